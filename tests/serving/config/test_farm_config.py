"""farm.yaml and the LONGTAKE_ variables: every problem at once, no password told, a reference that names every key."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from cluster.contract.planner import ScalingTargets
from serving.config.farm import (
    AssetsConfig,
    FarmConfig,
    LimitsConfig,
    PoolConfig,
    RetentionConfig,
    ScalingConfig,
    load_config,
)
from serving.config.reading import variable_names
from serving.errors import UserError, hide_secrets

REFERENCE = Path(__file__).parents[3] / "docs" / "farm.md"


def load(text: str, folder: Path, **environ: str) -> FarmConfig:
    path = folder / "farm.yaml"
    path.write_text(text)
    return load_config(path, {"LONGTAKE_HOME": str(folder / "home"), **environ})


def refused(text: str, folder: Path, **environ: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(text, folder, **environ)
    return str(caught.value).splitlines()


def test_without_a_file_there_is_one_pool_of_pocket_and_everything_lies_in_the_home(tmp_path: Path) -> None:
    config = load_config(None, {"LONGTAKE_HOME": str(tmp_path)})
    (pool,) = config.pools
    assert (pool.name, pool.model, pool.min_gangs) == ("default", "pocket", 1)
    assert pool.start_gangs == pool.max_gangs >= 1
    assert config.store_url == f"sqlite:///{tmp_path}/farm.db"
    assert config.artifacts_url == f"{tmp_path}/artifacts"
    assert config.address == "http://127.0.0.1:8000"


@pytest.mark.parametrize("text", ["", "# only a comment\n", "null\n", "{}\n"])
def test_an_empty_file_is_all_defaults(tmp_path: Path, text: str) -> None:
    assert load(text, tmp_path) == load_config(None, {"LONGTAKE_HOME": str(tmp_path / "home")})


def test_variables_come_before_the_file_and_the_file_before_the_defaults(tmp_path: Path) -> None:
    text = "port: 9000\npoll_s: 1\npools: [{name: big, gang_shape: 1, max_gangs: 4}]\nlimits: {active_jobs: 3}\n"
    config = load(
        text,
        tmp_path,
        LONGTAKE_PORT="9001",
        LONGTAKE_POOLS__0__GANGS="2",
        LONGTAKE_POOLS__1__NAME="123",
        LONGTAKE_LIMITS__CALLS_PER_JOB="7",
        LONGTAKE_RETENTION__TAKES_DAYS="null",
        LONGTAKE_AUTH="on",
        LONGTAKE_HOST="",
    )
    assert (config.port, config.poll_s, config.host) == (9001, 1.0, "127.0.0.1")
    assert [(pool.name, pool.start_gangs, pool.max_gangs) for pool in config.pools] == [("big", 2, 4), ("123", 1, 1)]
    assert (config.limits.active_jobs, config.limits.calls_per_job) == (3, 7)
    assert config.retention.takes_days is None
    assert config.needs_keys


def test_every_problem_is_told_at_once_with_line_value_and_what_is_allowed(tmp_path: Path) -> None:
    text = (
        "pools:\n  - {name: Big Pool}\n  - {slts: 3}\n  - {min_gangs: 4, max_gangs: 2}\n  - 7\n"
        "prt: 1\nport: 99999\nauth: onn\nport: 3\nlimits: {active_jobs: 0, calls_per_job: true}\n"
    )
    lines = refused(text, tmp_path, LONGTAKE_PRT="1", LONGTAKE_POLL_S="-1", LONGTAKE_POOLS__9__NAME="x")
    file = f"{tmp_path}/farm.yaml"
    known = ", ".join(PoolConfig.model_fields)
    assert lines == [
        "LONGTAKE_POOLS__9__NAME: is not a variable that Longtake knows; docs/farm.md lists them;"
        " did you mean 'LONGTAKE_POOLS__0__NAME'?",
        "LONGTAKE_PRT: is not a variable that Longtake knows; docs/farm.md lists them; did you mean 'LONGTAKE_PORT'?",
        "LONGTAKE_POLL_S: must be a number from 0.01 to 86400 (got -1)",
        f"{file}: line 2: pools[0].name: must be 1 to 40 small letters, digits and - (got 'Big Pool')",
        f"{file}: line 3: pools[1].slts: is not a key that is known here; known are {known}; did you mean 'slots'?",
        f"{file}: line 4: pools[2]: max_gangs must be at least 1 and at least min_gangs, 4",
        f"{file}: line 5: pools[3]: must be a mapping (got 7)",
        f"{file}: line 6: prt: is not a key that is known here; known are {', '.join(FarmConfig.model_fields)};"
        " did you mean 'port'?",
        f"{file}: line 7: port: must be a whole number from 1 to 65535 (got 99999)",
        f"{file}: line 8: auth: must be auto or on or off (got 'onn'); did you mean 'on'?",
        f"{file}: line 9: port: this key stands here a second time",
        f"{file}: line 10: limits.active_jobs: must be a whole number from 1 to 1000000 (got 0)",
        f"{file}: line 10: limits.calls_per_job: must be a whole number from 1 to 1000000 or nothing (got true)",
    ]


def test_pools_need_names_of_their_own(tmp_path: Path) -> None:
    (line,) = refused("pools: [{name: a}, {name: b}, {name: a}]\n", tmp_path)
    assert line.endswith("pools: each pool needs a name of its own; several are called a")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://bob:hunter2@host/x", "postgres://bob:hun/ter2@host/x?password=hunter2", "host=x password=hunter2",
        "postgresql:/bob:hunter2@host",
    ],
)  # fmt: skip
def test_a_password_is_never_told(tmp_path: Path, url: str) -> None:
    for key in ("store_url", "artifacts_url", "store_ulr", "host", "auth"):
        told = "\n".join([*refused(f"{key}: '{url}'\nport: x\n", tmp_path), *refused("port: x\n", tmp_path)])
        assert "hunter2" not in told
        assert "ter2" not in told
    good = load("store_url: postgresql://bob:hunter2@host/x\n", tmp_path)
    assert "hunter2" not in f"{good!r}{good}"
    assert hide_secrets(good.store_url) == "postgresql://***@host/x"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"- a\n", "must be a mapping of pools"), (b"\xff\xfe", "UTF-8"), (b"a: [\n", "not YAML"), (None, "No such file")],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "farm.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        load_config(path, {})


def test_paths_do_not_depend_on_where_a_process_runs(tmp_path: Path) -> None:
    text = "artifacts_url: films\nstore_url: sqlite:///jobs.db\nscratch: tmp\npools: [{model: ./mine}]\n"
    config = load(text, tmp_path)
    assert config.artifacts_url == f"{tmp_path}/films"
    assert config.store_url == f"sqlite:///{tmp_path}/jobs.db"
    assert config.scratch == f"{tmp_path}/tmp"
    assert config.pools[0].model == f"{tmp_path}/mine"
    assert load("store_url: sqlite:////abs/jobs.db\n", tmp_path).store_url == "sqlite:////abs/jobs.db"


@pytest.mark.parametrize(
    ("host", "auth", "needs"),
    [
        ("127.0.0.1", "auto", False), ("::1", "auto", False), ("localhost", "auto", False), ("127.0.0.1", "on", True),
        ("0.0.0.0", "auto", True), ("0.0.0.0", "off", False), ("farm.example", "auto", True),
    ],
)  # fmt: skip
def test_keys_are_needed_wherever_others_could_reach_the_farm(host: str, auth: str, needs: bool) -> None:
    config = FarmConfig.model_validate({"host": host, "auth": auth})
    assert config.needs_keys == needs


POOLS = st.builds(
    PoolConfig,
    name=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True),
    min_gangs=st.integers(0, 3),
    max_gangs=st.integers(3, 9),
    gangs=st.none() | st.just(3),
    price_per_gpu_second=st.floats(0, 10),
    slots=st.integers(1, 16),
)
CONFIGS = st.builds(
    FarmConfig,
    pools=st.lists(POOLS, min_size=1, max_size=3, unique_by=lambda pool: pool.name).map(tuple),
    port=st.integers(1, 65_535),
    poll_s=st.floats(0.01, 100),
    auth=st.sampled_from(["auto", "on", "off"]),
    retention=st.builds(RetentionConfig, films_days=st.none() | st.floats(0.5, 100)),
    limits=st.builds(LimitsConfig, calls_per_job=st.none() | st.integers(1, 99)),
)


@given(CONFIGS)
def test_a_configuration_survives_json(config: FarmConfig) -> None:
    assert FarmConfig.model_validate(json.loads(json.dumps(config.as_json()))) == config


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*FarmConfig.model_fields, *PoolConfig.model_fields, "x", "1"]), inner)
    ),
    max_leaves=12,
)


@given(
    values=st.dictionaries(st.sampled_from([*FarmConfig.model_fields, "", "prots"]), VALUES, max_size=4),
    variables=st.dictionaries(
        st.sampled_from([*variable_names(FarmConfig), "LONGTAKE_X", "LONGTAKE_POOLS", "LONGTAKE_POOLS__1__NAME"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
        max_size=3,
    ),
)
def test_anything_is_either_a_configuration_or_a_list_of_problems(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any], variables: dict[str, str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(json.dumps(values))
    problems: list[str] = []
    try:
        config = load_config(path, variables)
        assert FarmConfig.model_validate(config.as_json()) == config
    except UserError as error:
        problems = str(error).splitlines()
    assert all(re.match(rf"{path}: |LONGTAKE_", problem) for problem in problems)


def test_the_reference_names_every_key_and_its_default() -> None:
    text = REFERENCE.read_text().split("## Variables")[0]
    rows = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", text, flags=re.MULTILINE))
    parts: dict[str, type[BaseModel]] = {
        "": FarmConfig,
        "pools[].": PoolConfig,
        "pools[].scaling.": ScalingConfig,
        "retention.": RetentionConfig,
        "limits.": LimitsConfig,
        "assets.": AssetsConfig,
    }
    expected = {before + key for before, part in parts.items() for key in part.model_fields}
    assert set(rows) == expected
    plain = {before: part() for before, part in parts.items()}
    for before, part in plain.items():
        for key, value in part.model_dump(mode="json").items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert float(rows[before + key].strip("` ").replace(",", "")) == value, key


def test_a_pool_scales_only_where_it_is_told_to_and_reads_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "farm.yaml"
    path.write_text("pools: [{min_gangs: 0, max_gangs: 3, scaling: {hold_s: 20}, spot: avoid, node_labels: {a: b}}]\n")
    [pool] = load_config(path, {"LONGTAKE_POOLS__0__SCALING__DRAIN_WITHIN_S": "30"}).pools
    assert pool.scaling == ScalingConfig(drain_within_s=30, hold_s=20)
    assert pool.node_selector == {"a": "b", "ray.io/market-type": "!spot"}
    assert PoolConfig.model_validate(pool.model_dump(mode="json")) == pool
    [plain] = load_config(None, {}).pools
    assert (plain.scaling, plain.node_selector) == (None, {})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scaling": {}, "gangs": 1}, "gangs is for pools of a fixed size"),
        ({"spot": "only", "node_labels": {"ray.io/market-type": "on-demand"}}, "must not name ray.io/market-type"),
        ({"scaling": {"drain_within_s": 0.5}}, "greater than or equal to 1"),
        ({"node_labels": {"no label!": "a"}}, "pattern"),
    ],
)
def test_scaling_that_makes_no_sense_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PoolConfig(**values)


def test_the_targets_of_a_pool_are_those_of_the_planner() -> None:
    assert ScalingConfig().model_dump() == asdict(ScalingTargets())
