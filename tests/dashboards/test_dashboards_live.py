"""Every panel shows something of a real farm, through a real Prometheus; alerts are evaluated, and none fails."""

import json
import shutil
import time
import urllib.request
from collections.abc import Iterable
from typing import Any

import pytest

from dashboards.asking import ask
from dashboards.panels import Panel
from dashboards.written import DASHBOARDS, GROUPS
from testkit.farm_process import Farm
from testkit.test_tools import NO_PROMETHEUS
from tests.dashboards.busy_farm import BusyFarm

pytestmark = [
    pytest.mark.farm,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason=NO_PROMETHEUS),
]

SEEN_WITHIN_S = 120
"""Seconds until Prometheus has scraped and the Director has published all that happened, on a busy machine."""


@pytest.fixture(scope="module")
def busy(shared_farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> BusyFarm:
    """The shared farm, after it has worked."""
    busy = BusyFarm(shared_farm, tmp_path_factory.mktemp("busy"))
    busy.work(seed=100, seconds=4)
    return busy


def empty_queries(busy: BusyFarm, panel: Panel) -> list[str]:
    """Queries of a panel that show no number."""
    stretch = busy.stretch()
    return [query.expr for query in panel.queries if not ask(busy.prometheus, query.expr, stretch)]


def empty_panels(busy: BusyFarm, panels: Iterable[Panel]) -> dict[str, list[str]]:
    """Panels that stay empty, by title, with their queries that show no number."""
    end = time.monotonic() + SEEN_WITHIN_S
    while True:
        empty = {panel.title: queries for panel in panels if (queries := empty_queries(busy, panel))}
        if not empty or time.monotonic() > end:
            return empty
        time.sleep(1)


def test_no_panel_is_empty_but_those_that_say_when_they_are(busy: BusyFarm) -> None:
    assert empty_panels(busy, [panel for page in DASHBOARDS for panel in page.panels if not panel.empty_when]) == {}


def test_no_panel_is_refused(busy: BusyFarm) -> None:
    for page in DASHBOARDS:
        for panel in page.panels:
            empty_queries(busy, panel)  # raises where Prometheus refuses a query


def test_what_a_farm_of_this_machine_has_is_shown_though_others_may_lack_it(busy: BusyFarm) -> None:
    here = {
        "Due times kept",
        "Of the daily limit",
        "Time to spare",
        "GPU time wasted",
        "Takes not rendered again",
        "Idle",
        "Refused and failed, by route",
    }
    panels = [panel for page in DASHBOARDS for panel in page.panels if panel.title in here]
    assert {panel.title for panel in panels} == here
    assert empty_panels(busy, panels) == {}


def test_prometheus_evaluates_every_rule_without_a_failure(busy: BusyFarm) -> None:
    end = time.monotonic() + SEEN_WITHIN_S
    while any(rule["health"] == "unknown" for rule in rules(busy)) and time.monotonic() < end:
        time.sleep(1)
    found = rules(busy)
    assert [rule["name"] for rule in found if rule["health"] != "ok"] == []
    assert len(found) == sum(len(group) for group in GROUPS.values())
    firing = {rule["name"] for rule in found if rule.get("state") == "firing"}
    assert firing <= {"LongtakeDueTimesMissed"}, "one job was too late on purpose"


def rules(busy: BusyFarm) -> list[Any]:
    """As Prometheus knows them."""
    with urllib.request.urlopen(f"{busy.prometheus}/api/v1/rules", timeout=30) as answer:
        groups = json.load(answer)["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_status_names_prometheus(busy: BusyFarm) -> None:
    assert busy.prometheus.startswith("http://127.0.0.1:")
    assert f"Prometheus at {busy.prometheus}" in busy.farm.run("status")
    assert busy.farm.run("status", "--json").count(busy.prometheus) == 1
