"""The committed JSON is what Grafana and its users expect. Reads the files, not the data that they were made of."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.declared import declared_series
from dashboards.written import CHART
from testkit.json_object import Json
from tests.dashboards.promql_reading import series_of

FILES = sorted((CHART / "dashboards").glob("*.json"))
WINDOWS = {"$__rate_interval", "$__range", "$__range:", "1d"}
"""Of rates and increases. 1d is the day of a limit that is per day."""

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def load(path: Path) -> Json:
    found: Json = json.loads(path.read_text())
    return found


def data_panels(path: Path) -> list[Json]:
    return [panel for panel in load(path)["panels"] if panel["type"] not in ("row", "text")]


def targets(path: Path) -> Iterator[tuple[str, Json]]:
    for panel in data_panels(path):
        for target in panel["targets"]:
            yield panel["title"], target


def filled_in(expr: str) -> str:
    """The query as Prometheus gets it."""
    for name, value in (("$__rate_interval", "1m"), ("$__range", "6h"), ("$cluster", ".*"), ("$pool", ".*")):
        expr = expr.replace(name, value)
    return expr


def test_uids_and_titles_are_unique() -> None:
    pages = [load(path) for path in FILES]
    assert len({page["uid"] for page in pages}) == len({page["title"] for page in pages}) == len(FILES) == 4


@each_file
def test_a_dashboard_can_be_imported_anywhere(path: Path) -> None:
    page = load(path)
    assert page.get("id") is None, "an id belongs to one Grafana"
    assert page["uid"] == f"longtake-{path.stem}"
    assert page["tags"] == ["longtake"]
    assert page["schemaVersion"] >= 36
    assert json.dumps(page).count('"uid": "${datasource}"') == json.dumps(page).count('"type": "prometheus"')
    assert Dashboard.from_json(page).title == page["title"]


@each_file
def test_panels_have_their_own_ids_and_places(path: Path) -> None:
    panels = load(path)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, f"{one} overlaps {other}"


@each_file
def test_every_line_of_panels_is_full(path: Path) -> None:
    widths: dict[int, int] = {}
    for panel in load(path)["panels"]:
        widths[panel["gridPos"]["y"]] = widths.get(panel["gridPos"]["y"], 0) + panel["gridPos"]["w"]
    assert set(widths.values()) == {24}


@each_file
def test_panels_are_few_and_each_says_what_it_is(path: Path) -> None:
    panels = data_panels(path)
    assert 8 <= len(panels) <= 14
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"][0].isupper()
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]


def test_no_two_panels_ask_the_same() -> None:
    asked = [target["expr"] for path in FILES for _, target in targets(path)]
    assert sorted(set(asked)) == sorted(asked)


@each_file
def test_source_cluster_and_pool_are_variables(path: Path) -> None:
    variables = {variable["name"]: variable for variable in load(path)["templating"]["list"]}
    assert list(variables) == ["datasource", "cluster", "pool"]
    for name in ("cluster", "pool"):
        assert (variables[name]["allValue"], variables[name]["multi"]) == (".*", True)


@each_file
def test_every_query_is_for_the_chosen_clusters_and_pools(path: Path) -> None:
    for title, target in targets(path):
        expr = target["expr"]
        selectors = re.findall(r"(longtake_\w+)(\{[^}]*\})?", expr)
        assert selectors, title
        for series, matchers in selectors:
            assert 'cluster=~"$cluster"' in matchers, f"{title}: {series}"
            assert ('pool=~"$pool"' in matchers) == ("pool" in declared_series()[series]), f"{title}: {series}"


@each_file
def test_every_query_parses_and_type_checks_and_asks_for_series_that_exist(path: Path) -> None:
    for title, target in targets(path):
        expr = filled_in(target["expr"])
        assert "$" not in expr, title
        asked = series_of(expr)
        assert asked, title
        assert asked <= set(declared_series()), title


def test_a_query_of_the_wrong_type_is_noticed() -> None:
    with pytest.raises(ValueError, match="expected type"):
        series_of("rate(longtake_calls_total)")


@each_file
def test_windows_are_as_wide_as_the_graph_asks_for(path: Path) -> None:
    for title, target in targets(path):
        assert set(re.findall(r"\[([^]]+)\]", target["expr"])) <= WINDOWS, title


@each_file
def test_counters_are_asked_for_their_growth_and_gauges_are_not(path: Path) -> None:
    for title, target in targets(path):
        for function, series in re.findall(r"(\w*) ?\((longtake_\w+)", target["expr"]):
            grows = series.endswith(("_total", "_bucket", "_count", "_sum"))
            assert (function in ("rate", "increase")) == grows, f"{title}: {function}({series})"


@each_file
def test_legends_name_labels_that_the_query_leaves(path: Path) -> None:
    for title, target in targets(path):
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        left = {label for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in by.split(", ")}
        assert named <= left, title
