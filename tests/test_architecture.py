"""What is written of the layout is true: the rooms are those that import-linter keeps, and what is named exists."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def layers(package: str) -> list[set[str]]:
    """The rooms of a package from the top, as the layers contract has them."""
    (contract,) = (one for one in CONTRACTS if one["type"] == "layers" and one["containers"] == [package])
    assert contract["exhaustive"]
    return [{room.strip() for room in layer.split("|")} for layer in contract["layers"]]


@pytest.mark.parametrize("package", ["serving", "cluster", "sharding"])
def test_the_table_of_rooms_is_that_of_the_layers_in_their_order(package: str) -> None:
    table = PAGE.split(f"| {package}/ | what it is |")[1].split("\n\n")[0]
    rooms = re.findall(r"^\| `(\w+)` \| .+ \|$", table, re.MULTILINE)
    for layer in layers(package):
        assert set(rooms[: len(layer)]) == layer
        rooms = rooms[len(layer) :]
    assert rooms == []


def test_every_path_in_it_exists() -> None:
    places = re.findall(r"`((?:serving|cluster|sharding|tests|docs|helm|benchmarks|dashboards)/[\w./-]*)`", PAGE)
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert len(places) > 15
    assert [path for path in (*places, *links) if not (ROOT / path).exists()] == []


def test_the_farm_may_import_the_contract_alone_of_cluster() -> None:
    (contract,) = (one for one in CONTRACTS if one["name"].startswith("serving knows nothing of Kubernetes"))
    forbidden = {name.removeprefix("cluster.") for name in contract["forbidden_modules"] if name.startswith("cluster.")}
    assert forbidden == set().union(*layers("cluster")) - {"contract"}


def test_ray_may_be_imported_in_three_rooms_alone() -> None:
    (contract,) = (one for one in CONTRACTS if one["name"].startswith("Ray only in"))
    free = {name.removeprefix("serving.") for name in contract["source_modules"] if name.startswith("serving.")}
    assert set().union(*layers("serving")) - free == {"actors", "app", "local_farm"}


def test_every_module_that_a_page_or_a_docstring_names_exists() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    modules = {path for path in tracked if path.endswith(".py")}
    pages = [path for path in tracked if path.endswith(".md") and "RESULTS" not in path and "CHANGELOG" not in path]
    missing = [
        f"{page}: {named}"
        for page in (*pages, *(path for path in modules if not path.startswith("tests/")))
        for named in re.findall(r"(?<![\w/.*<])((?:\w+/)*\w+\.py)\b", (ROOT / page).read_text())
        if not any(f"/{module}".endswith(f"/{named}") for module in modules)
    ]
    assert missing == []
