"""Top-level packages with common names: guards that they are ours wherever they are imported."""

import importlib.util
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cluster", "dashboards", "serving", "sharding", "simulation", "testkit")


@pytest.mark.parametrize("name", PACKAGES)
def test_the_package_loads_from_this_repository(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin) == ROOT / name / "__init__.py", "another distribution shadows one of our packages"


@pytest.mark.parametrize("name", PACKAGES)
def test_the_package_is_typed(name: str) -> None:
    assert (ROOT / name / "py.typed").is_file()


def test_no_test_folder_is_a_package_that_could_shadow_ours() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert sorted(set(names)) == sorted(names)


def test_tests_are_imported_by_importlib(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getoption("importmode") == "importlib"


def test_the_distribution_is_longtake_with_one_console_script() -> None:
    scripts = distribution("longtake").entry_points.select(group="console_scripts")
    assert [script.name for script in scripts] == ["longtake"]
