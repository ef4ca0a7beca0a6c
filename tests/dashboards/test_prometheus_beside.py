"""`longtake up --with-prometheus`: what Prometheus is told, and what a machine without it is told."""

from pathlib import Path

import pytest
import yaml

from dashboards.written import GROUPS
from serving.config.farm import FarmConfig, load_config
from serving.errors import UserError
from serving.local_farm.home import FarmHome
from serving.local_farm.prometheus import RULES, check_prometheus, configuration
from testkit.farm_process import Farm, free_port
from tests.dashboards.promtool import promtool


def config_of(tmp_path: Path, **settings: object) -> FarmConfig:
    given = {f"LONGTAKE_{name.upper()}": str(value) for name, value in settings.items()}
    return load_config(None, {"LONGTAKE_HOME": str(tmp_path), **given})


@pytest.mark.parametrize(
    ("host", "target"),
    [("127.0.0.1", "127.0.0.1:8001"), ("0.0.0.0", "127.0.0.1:8001"), ("::", "[::1]:8001"), ("::1", "[::1]:8001")],
)
def test_prometheus_scrapes_the_directors_exporter_on_this_machine(tmp_path: Path, host: str, target: str) -> None:
    told = yaml.safe_load(configuration(config_of(tmp_path, host="0.0.0.0", metrics_host=host, port=8000), []))
    assert told["scrape_configs"][0]["static_configs"] == [{"targets": [target]}]


def test_promtool_accepts_what_it_is_told_with_the_rules(tmp_path: Path) -> None:
    rules = sorted(RULES.glob("*.yaml"))
    assert [path.name for path in rules] == ["longtake.yaml"]
    file = tmp_path / "prometheus.yml"
    file.write_text(configuration(config_of(tmp_path), rules))
    ran = promtool("check", "config", file)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{sum(len(group) for group in GROUPS.values())} rules found" in ran.stdout


def test_a_farm_without_a_metrics_port_has_nothing_to_scrape(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="metrics_port is 0"):
        check_prometheus(config_of(tmp_path, metrics_port=0))


def test_a_machine_without_prometheus_is_told_what_to_install_and_starts_nothing(tmp_path: Path) -> None:
    farm = Farm(tmp_path / "home", extra={"LONGTAKE_METRICS_PORT": str(free_port()), "PATH": str(tmp_path)})
    done = farm.command("up", "--detach", "--with-prometheus")
    assert done.returncode == 2
    assert "there is no program `prometheus` on this machine; install it" in done.stderr
    assert FarmHome(tmp_path / "home").read() is None
