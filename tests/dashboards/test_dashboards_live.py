"""Every panel shows something of a real farm, through a real Prometheus; alerts are evaluated, and none fails."""

import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from dashboards.asking import ask
from dashboards.panels import Panel
from dashboards.written import DASHBOARDS, GROUPS
from tests.dashboards.busy_farm import BusyFarm
from tests.dashboards.promtool import MISSING

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason=MISSING),
]

SEEN_WITHIN_S = 120
"""Seconds until Prometheus has scraped and the Director has published all that happened, on a busy machine."""


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusyFarm]:
    """A farm that has worked."""
    farm = BusyFarm(tmp_path_factory.mktemp("busy"))
    farm.up()
    try:
        farm.work(seed=100, seconds=6)
        yield farm
    finally:
        farm.farm.down()


def empty_queries(busy: BusyFarm, panel: Panel) -> list[str]:
    """Queries of a panel that show no number."""
    stretch = busy.stretch()
    return [query.expr for query in panel.queries if not ask(busy.prometheus, query.expr, stretch)]


def test_no_panel_is_empty_but_those_that_say_when_they_are(busy: BusyFarm) -> None:
    panels = [panel for page in DASHBOARDS for panel in page.panels if not panel.empty_when]
    end = time.monotonic() + SEEN_WITHIN_S
    while True:
        empty = {panel.title: queries for panel in panels if (queries := empty_queries(busy, panel))}
        if not empty or time.monotonic() > end:
            break
        time.sleep(1)
    assert empty == {}


def test_no_panel_is_refused(busy: BusyFarm) -> None:
    for page in DASHBOARDS:
        for panel in page.panels:
            empty_queries(busy, panel)  # raises where Prometheus refuses a query


def test_what_a_farm_of_this_machine_has_is_shown_though_others_may_lack_it(busy: BusyFarm) -> None:
    shown = {panel.title for page in DASHBOARDS for panel in page.panels if not empty_queries(busy, panel)}
    assert shown >= {
        *(
            "Due times kept",
            "Of the daily limit",
            "Time to spare",
            "GPU time wasted",
            "Takes not rendered again",
            "Idle",
        ),
        "Refused and failed, by route",
    }


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


def test_status_names_prometheus_and_it_ends_with_the_farm(busy: BusyFarm) -> None:
    address, (process,) = busy.prometheus, busy.farm.processes("prometheus --config.file")
    assert f"Prometheus at {address}" in busy.farm.run("status")
    assert address.startswith("http://127.0.0.1:")
    assert busy.farm.run("status", "--json").count(address) == 1
    busy.farm.down()
    assert not process.is_running()
    assert (busy.farm.home / "prometheus").is_dir(), "what it read stays for the next one"
