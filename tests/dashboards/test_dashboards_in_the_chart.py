"""The chart installs dashboards and rules, from the one copy that there is."""

import json

import pytest
import yaml

from dashboards.alerts import ALERTS
from dashboards.written import CHART
from tests.charts.chart_rendering import HELMS, changed, of_kind, only, render, values_of

MONITORED = changed(values_of("minimal"), "monitoring.dashboards.enabled", True)


@pytest.mark.parametrize("helm_name", HELMS)
def test_each_dashboard_is_in_a_config_map_as_it_was_written(helm_name: str) -> None:
    manifests = render(MONITORED, helm_name=helm_name)
    found: dict[str, str] = {}
    for config in of_kind(manifests, "ConfigMap"):
        if "-dashboard-" in config["metadata"]["name"]:
            assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
            found |= config["data"]
    written = {path.name: json.loads(path.read_text()) for path in (CHART / "dashboards").glob("*.json")}
    assert {name: json.loads(text) for name, text in found.items()} == written


@pytest.mark.parametrize("helm_name", HELMS)
def test_the_rules_are_in_a_prometheus_rule_as_they_were_written(helm_name: str) -> None:
    values = changed(values_of("minimal"), "monitoring.prometheusRule.enabled", True)
    rule = only(render(values, helm_name=helm_name), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((CHART / "rules" / "longtake.yaml").read_text())


@pytest.mark.parametrize("url", ["https://wiki.example/runbooks", "https://wiki.example/runbooks/"])
def test_runbooks_are_where_the_values_say(url: str) -> None:
    values = changed(values_of("gpu"), "monitoring.prometheusRule.runbooksUrl", url)
    groups = only(render(values), "PrometheusRule")["spec"]["groups"]
    urls = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "summary" in str(rule)]
    assert urls == [f"https://wiki.example/runbooks/{alert.name}.md" for alert in ALERTS]


def test_off_by_default() -> None:
    manifests = render(values_of("minimal"))
    assert of_kind(manifests, "PrometheusRule") == []
    assert [one for one in of_kind(manifests, "ConfigMap") if "-dashboard-" in one["metadata"]["name"]] == []
