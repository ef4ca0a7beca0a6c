"""The chart's documentation is complete, and is what the chart says of itself."""

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.charts.chart_readme import README, described_values, render_readme
from tests.charts.chart_rendering import (
    CHART,
    CI,
    DEFAULTS,
    ROOT,
    Values,
    changed,
    notes,
    render,
    values_of,
    with_notes,
)
from tests.charts.test_chart_upgrades import leaves


def test_the_tables_are_current() -> None:
    text = README.read_text()
    assert render_readme(text) == text, "run python -m tests.charts.chart_readme"


def test_every_value_is_described() -> None:
    described = {path for path, _ in described_values()}
    assert sorted(set(leaves(DEFAULTS)) - described) == []


def test_every_value_is_in_the_schema_and_the_schema_is_closed() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    for path in leaves(DEFAULTS):
        part = schema
        for step in path.split("."):
            part = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
            assert part["additionalProperties"] is False, path
            part = part["properties"][step]


def test_every_field_of_pools_and_workers_is_described() -> None:
    for part in ("pool", "worker"):
        fields = json.loads((CHART / "values.schema.json").read_text())["$defs"][part]["properties"]
        assert [name for name, field in fields.items() if name != "name" and "description" not in field] == []


def test_the_chart_says_who_it_is() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    needed = (
        "name",
        "description",
        "type",
        "version",
        "appVersion",
        "kubeVersion",
        "home",
        "icon",
        "keywords",
    )
    assert [key for key in (*needed, "maintainers", "annotations") if not about.get(key)] == []


def test_the_release_of_the_chart_is_that_of_the_farm() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["appVersion"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("name", CI)
def test_the_notes_name_the_commands_that_come_next(name: str, tmp_path: Path) -> None:
    notes = _notes(values_of(name), tmp_path)
    assert "kubectl -n films wait rayservice/" in notes
    assert ("longtake cluster status" in notes) == (name != "bare")
    assert ("WARNING: gcs.backend is none" in notes) == (name == "bare")
    assert "{{" not in notes


def test_the_notes_warn_of_gangs_that_find_no_room(tmp_path: Path) -> None:
    values = changed(values_of("minimal"), "pools.0.maxGangs", 100)
    assert "WARNING: pool default may have 100 gangs, and its workers have room for 6." in _notes(values, tmp_path)


def test_the_notes_warn_of_nodes_whose_priority_means_nothing(tmp_path: Path) -> None:
    differing = changed(values_of("gpu"), "pools.0.workers.1.cpu", 16)
    assert "WARNING: nodes of pool wan-14b differ" in _notes(differing, tmp_path / "differing")
    assert "differ in" not in _notes(values_of("gpu"), tmp_path / "equal")


def test_the_notes_warn_of_a_cleanup_that_fetches_weights(tmp_path: Path) -> None:
    values = changed(changed(values_of("hpa"), "ray.control.replicas", 0), "weights.volume", {"type": "emptyDir"})
    assert "WARNING: ray.control.replicas is 0, so the head fetches the weights" in _notes(values, tmp_path / "head")
    assert "the head fetches" not in _notes(changed(values, "ray.control.replicas", 1), tmp_path / "control")


def _notes(values: Values, folder: Path) -> str:
    return notes(render(values, chart=with_notes(folder)))
