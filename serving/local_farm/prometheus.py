"""A Prometheus beside the farm of this machine: its program, what it is told, and its process.

It listens on this machine alone and keeps its data in the farm's home. It inherits RAY_TMPDIR, by which every process
of a farm is known, so it is ended as they are; nothing here ends it.
"""

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import yaml

from serving.config.farm import FarmConfig
from serving.errors import Fault, UserError
from serving.local_farm.home import FarmHome
from serving.settings import LOG_TAIL_LINES

PROMETHEUS_PORT = 9090
"""Where the Prometheus of `longtake up --with-prometheus` listens, if the port is free."""

PROMETHEUS_SCRAPE_S = 5
"""Scrape interval, in seconds."""

PROMETHEUS_EVALUATE_S = 15
"""Evaluation interval of rules, in seconds."""

PROMETHEUS_KEPT_S = 15 * 86_400
"""Seconds that it keeps what it read."""

PROMETHEUS_MAX_BYTES = 1 << 30
"""Bytes of that at most; the oldest goes first."""

PROMETHEUS_START_S = 60
"""Seconds that it may take until it answers: it reads what it had in memory when it ended."""


_SHIPPED = Path(__file__).with_name("rules")
"""What a wheel has of the chart's rules; see force-include in pyproject.toml."""

RULES = _SHIPPED if _SHIPPED.is_dir() else Path(__file__).resolve().parents[2] / "helm" / "longtake" / "rules"
"""Alerts and recordings: the chart's, in a working copy."""


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    address: str
    process: psutil.Process


def check_prometheus(config: FarmConfig) -> None:
    """Raises UserError if none could run beside this farm."""
    if config.exporter_port == 0:
        raise UserError("--with-prometheus: metrics_port is 0, so there is nothing to scrape; give it a port")
    _find_program()


def start_prometheus(home: FarmHome, config: FarmConfig) -> Prometheus:
    """Starts one and waits until it answers. Raises Fault if it does not."""
    told = home.folder / "prometheus.yml"
    rules = sorted(RULES.glob("*.yaml"))
    told.write_text(configuration(config, rules))
    address = f"127.0.0.1:{_choose_port()}"
    log = home.folder / "logs" / "prometheus.log"
    with log.open("wb") as out:
        started = subprocess.Popen(_command(told, home.folder / "prometheus", address), stdout=out, stderr=out)
    _wait_until_ready(started, f"http://{address}", log)
    return Prometheus(f"http://{address}", psutil.Process(started.pid))


def configuration(config: FarmConfig, rules: list[Path]) -> str:
    """prometheus.yml: the Director's exporter, and these rules."""
    told = {
        "global": {
            "scrape_interval": f"{PROMETHEUS_SCRAPE_S}s",
            "evaluation_interval": f"{PROMETHEUS_EVALUATE_S}s",
        },
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [{"job_name": "longtake", "static_configs": [{"targets": [config.exporter_address]}]}],
    }
    return yaml.safe_dump(told, sort_keys=False)


def _find_program() -> str:
    program = shutil.which("prometheus")
    if program is None:
        raise UserError(
            "--with-prometheus: there is no program `prometheus` on this machine; install it "
            "(apt-get install prometheus, brew install prometheus, or https://prometheus.io/download)"
        )
    return program


def _command(told: Path, data: Path, address: str) -> list[str]:
    return [
        _find_program(),
        f"--config.file={told}",
        f"--storage.tsdb.path={data}",
        f"--storage.tsdb.retention.time={PROMETHEUS_KEPT_S}s",
        f"--storage.tsdb.retention.size={PROMETHEUS_MAX_BYTES}B",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]


def _choose_port() -> int:
    """The usual one, or if that is taken one that the system chooses."""
    for port in (PROMETHEUS_PORT, 0):
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(server.getsockname()[1])
    raise Fault("this machine has no port left for Prometheus")


def _wait_until_ready(started: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + PROMETHEUS_START_S
    while time.monotonic() < deadline:
        if started.poll() is not None:
            lines = log.read_text(errors="replace").splitlines()
            raise Fault("\n".join([*lines[-LOG_TAIL_LINES:], f"Prometheus could not start; its log is {log}"]))
        try:
            if httpx.get(f"{address}/-/ready", timeout=5.0, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass  # it does not listen yet
        time.sleep(0.05)
    raise Fault(f"Prometheus was not ready after {PROMETHEUS_START_S} seconds; its log is {log}")
