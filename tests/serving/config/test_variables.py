"""Variables, paths and URLs of settings: one list of variables, one way to write a path, no URL made of text."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from cluster.controller.settings import PREFIX, ControllerSettings
from serving.config.farm import FarmConfig, load_config
from serving.config.reading import variable_names
from serving.errors import StoreUnavailable, UserError, hide_urls
from serving.settings import VARIABLES, home
from serving.store.database import open_database

ROOT = Path(__file__).parents[3]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *ROOT.glob("helm/*/README.md"),
]
CONTROLLERS = {f"{PREFIX}{name.upper()}" for name in ControllerSettings.model_fields}
FARMS = set(variable_names(FarmConfig))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_that_a_page_names_is_known(page: Path) -> None:
    named = {name.rstrip("_") for name in re.findall(r"\bLONGTAKE_[A-Z0-9_]+", page.read_text())} - {"LONGTAKE"}
    named -= {PREFIX.rstrip("_")}
    assert named <= {*VARIABLES, *CONTROLLERS, *FARMS}


def test_the_reference_names_every_variable_that_is_no_key() -> None:
    page = (ROOT / "docs" / "farm.md").read_text()
    assert [name for name, use in VARIABLES.items() if not use.startswith("tests:") and name not in page] == []


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_a_farm_starts_whatever_other_variables_are_set(tmp_path: Path, name: str) -> None:
    assert load_config(None, {"LONGTAKE_HOME": str(tmp_path), name: str(tmp_path)}).port == 8000


def test_a_misspelt_variable_is_told_with_the_nearest_of_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"LONGTAKE_LGO: is not a variable .*LONGTAKE_LOG"):
        load_config(None, {"LONGTAKE_HOME": str(tmp_path), "LONGTAKE_LGO": "json"})


@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(lambda n: n not in "..~")
)
def test_the_database_of_any_home_lies_in_it(name: str) -> None:
    folder = f"/homes/x{name}"
    config = load_config(None, {"LONGTAKE_HOME": folder})
    assert make_url(config.store_url).database == f"{folder}/farm.db"
    assert not make_url(config.store_url).query
    assert config.store_file == f"{folder}/farm.db"


@pytest.mark.parametrize("name", ["a%2Fb", "a%20b", "a b", "a?mode=ro", "a#b", "ä", "user@host", "a:b", "100%"])
def test_the_tables_of_a_home_are_made_in_it(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    open_database(load_config(None, {"LONGTAKE_HOME": str(folder)}).store_url).close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (folder / "farm.db").is_file()


def test_a_tilde_is_the_users_folder_wherever_a_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    file = tmp_path / "farm.yaml"
    file.write_text(
        "store_url: sqlite:///~/films.db\nartifacts_url: ~/artifacts\nscratch: ~/scratch\npools: [{model: ~/wan}]\n"
    )
    config = load_config(file, {"LONGTAKE_HOME": "~/farm"})
    assert config.store_file == str(tmp_path / "me" / "films.db")
    assert config.artifacts_url == str(tmp_path / "me" / "artifacts")
    assert config.scratch == str(tmp_path / "me" / "scratch")
    assert config.pools[0].model == str(tmp_path / "me" / "wan")
    assert home({"LONGTAKE_HOME": "~/farm"}) == tmp_path / "me" / "farm"
    assert home({"LONGTAKE_HOME": "~nobody-of-that-name/farm"}) == Path("~nobody-of-that-name/farm")
    plain = load_config(None, {"LONGTAKE_HOME": "~/farm"})
    assert plain.store_file == str(tmp_path / "me" / "farm" / "farm.db")


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:hunt@er2@host/db", "postgresql://u:hunter2@ho@st/db", "postgresql://u:p@host:hunter2/db"],
)
def test_a_url_that_was_not_escaped_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="LONGTAKE_STORE_URL: ") as refused:
        load_config(None, {"LONGTAKE_HOME": str(tmp_path), "LONGTAKE_STORE_URL": url})
    assert "hunt" not in str(refused.value)
    assert "er2" not in str(refused.value)


def test_a_database_that_is_away_is_told_without_its_password() -> None:
    with pytest.raises(StoreUnavailable) as away:
        open_database("postgresql://bob:hunter2@127.0.0.1:1/db?application_name=hunter2")
    assert "hunter2" not in str(away.value)


@given(secret=st.from_regex(r"[A-Za-z0-9_@:!-]{6,20}", fullmatch=True), words=st.text(max_size=30))
def test_no_secret_of_a_url_in_a_message_is_shown(secret: str, words: str) -> None:
    for message in (f"{words} postgresql://u:{secret}@h/d {words}", f"could not open s3://u:{secret}@b/k?key={secret}"):
        assert f"{secret}@" not in hide_urls(message)
        assert f"={secret}" not in hide_urls(message)
    assert secret not in hide_urls(f"connection to h failed: password={secret}").removeprefix("connection to h failed:")


def test_the_environment_of_settings_is_read_where_they_are(tmp_path: Path) -> None:
    allowed = {"settings.py", "ray_cluster.py"}
    readers = {
        path.name
        for path in (ROOT / "serving").rglob("*.py")
        if re.search(r'environ(\.get\(|\[)"LONGTAKE_', path.read_text())
    }
    assert readers <= allowed
    assert os.environ is not None
