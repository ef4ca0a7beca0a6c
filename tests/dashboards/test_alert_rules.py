"""Alerts fire when they should and else are silent, as Prometheus itself evaluates them."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.controller.metrics import ControllerMetrics
from dashboards.alerts import ALERTS
from dashboards.rules import RUNBOOKS_URL, Alert
from dashboards.written import CHART, GROUPS
from serving.telemetry.metrics import FarmMetrics
from tests.dashboards.alert_trials import FARM, TRIALS, Trial
from tests.dashboards.promtool import promtool

RULES = CHART / "rules" / "longtake.yaml"


def trial_file(alert: Alert, trial: Trial) -> dict[str, Any]:
    """promtool's file for one alert: it fires in time and not before, and is silent with the other series."""
    fired = {
        "exp_labels": {**trial.labels, "severity": alert.severity},
        "exp_annotations": {
            "summary": alert.summary,
            "description": trial.description,
            "runbook_url": f"{RUNBOOKS_URL}/{alert.name}.md",
        },
    }
    expected: dict[str, tuple[Mapping[str, str], list[tuple[int, list[Any]]]]] = {
        "fires": (trial.fires, [(trial.before_m, []), (trial.at_m, [fired])]),
        "silent": (trial.silent, [(trial.at_m, [])]),
    }
    tests = [
        {
            "name": name,
            "interval": "1m",
            "input_series": [{"series": series, "values": values.strip()} for series, values in given.items()],
            "alert_rule_test": [
                {"alertname": alert.name, "eval_time": f"{minute}m", "exp_alerts": alerts} for minute, alerts in looks
            ],
        }
        for name, (given, looks) in expected.items()
    ]
    order = {"group_eval_order": list(GROUPS)}  # else by chance, and now and then a minute behind what is recorded
    return {"rule_files": [str(RULES)], "evaluation_interval": "1m", **order, "tests": tests}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_fires_when_it_should_and_else_is_silent(alert: Alert, tmp_path: Path) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text(yaml.safe_dump(trial_file(alert, TRIALS[alert.name])))
    ran = promtool("test", "rules", file)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def without_farm(series: Mapping[str, str]) -> dict[str, str]:
    """The same from a Prometheus that names neither cluster nor namespace."""
    return {name.replace(f"{FARM},", ""): values for name, values in series.items()}


@pytest.mark.parametrize(
    ("name", "labels", "description"),
    [
        (
            "LongtakeStoreErrors",
            {"store": "database"},
            "The database of the farm did not answer 10 times in 5 minutes.",
        ),
        ("LongtakeDueTimesAtRisk", {"pool": "wan"}, "2 jobs of pool wan will probably be late."),
    ],
)
def test_an_alert_reads_well_where_no_label_names_the_farm(
    name: str, labels: dict[str, str], description: str, tmp_path: Path
) -> None:
    (alert,) = (one for one in ALERTS if one.name == name)
    trial = TRIALS[name]
    fires, silent = without_farm(trial.fires), without_farm(trial.silent)
    bare = replace(trial, fires=fires, silent=silent, labels=labels, description=description)
    file = tmp_path / "trial.yaml"
    file.write_text(yaml.safe_dump(trial_file(alert, bare)))
    ran = promtool("test", "rules", file)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("turned", ["fires", "silent"])
def test_a_trial_that_expects_the_contrary_fails(turned: str, tmp_path: Path) -> None:
    alert, trial = ALERTS[0], TRIALS[ALERTS[0].name]
    same = trial.silent if turned == "fires" else trial.fires
    turned_trial = replace(trial, fires=same) if turned == "fires" else replace(trial, silent=same)
    file = tmp_path / "trial.yaml"
    file.write_text(yaml.safe_dump(trial_file(alert, turned_trial)))
    assert promtool("test", "rules", file).returncode != 0


def test_every_alert_is_tried_and_no_other() -> None:
    assert sorted(TRIALS) == sorted(alert.name for alert in ALERTS)


def test_every_alert_is_in_a_group_that_is_written() -> None:
    written = [rule.name for rules in GROUPS.values() for rule in rules if isinstance(rule, Alert)]
    assert sorted(written) == sorted(alert.name for alert in ALERTS)


def test_promtool_accepts_the_rules() -> None:
    ran = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("exporter", [FarmMetrics, ControllerMetrics])
def test_promtool_accepts_the_names_of_all_metrics(exporter: type[FarmMetrics | ControllerMetrics]) -> None:
    metrics = exporter()
    if isinstance(metrics, FarmMetrics):
        metrics.open(["wan"], spend_limit_usd_per_day=None)
    ran = promtool("check", "metrics", text=metrics.text())
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_says_all_that_an_operator_needs(alert: Alert) -> None:
    assert re.fullmatch(r"Longtake[A-Z]\w+", alert.name)
    assert alert.severity in ("critical", "warning", "info")
    assert alert.summary.endswith(".")
    assert "{{" not in alert.summary
    assert alert.description.endswith(".")
    assert alert.description != alert.summary
