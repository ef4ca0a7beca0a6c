"""`longtake up` and `down` with a real Ray: what they start, refuse and go on with after a kill; they leave nothing."""

import json
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from testkit.farm_process import LONGTAKE, TIME_LIMIT_S, Farm, free_port

ONE_GANG = {"LONGTAKE_POOLS__0__GANGS": "1", "LONGTAKE_POOLS__0__MIN_GANGS": "0"}
BOARD = "version: 1\ntitle: A ball\nquality: draft\nshots:\n  - {id: ball, prompt: a red ball, seconds: 1}\n"

pytestmark = pytest.mark.farm


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    (tmp_path / "board.yaml").write_text(BOARD)
    found = Farm(tmp_path / "home", extra=ONE_GANG)
    yield found
    found.command("down")


def wait_until_gone(processes: list[psutil.Process]) -> None:
    _, left = psutil.wait_procs(processes, timeout=TIME_LIMIT_S / 10)
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []


def test_a_farm_starts_goes_on_after_kills_and_leaves_nothing(farm: Farm) -> None:
    # up: what it says and does
    assert farm.run("up", "--detach") == f"http://127.0.0.1:{farm.port}\n"
    assert "ready at" in farm.run("status")
    first, folder = farm.processes(), Path(farm.state["ray_folder"])

    # others: the home is closed to them, and no port of it or of Ray's leaves this machine
    assert stat.S_IMODE(farm.home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in farm.home.glob("**/*")} == {0}
    ports = [found for one in first for found in one.net_connections("tcp") if found.status == psutil.CONN_LISTEN]
    assert len(ports) > 5
    assert all(ip_address(found.laddr.ip.removeprefix("::ffff:")).is_loopback for found in ports), ports
    assert len(first) > 8
    assert all(process.terminal() is None for process in first)
    assert len(str(folder)) < 40
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    # a second farm on the same home, and one on the same port
    again = farm.command("up", "--detach")
    assert (again.returncode, again.stdout) == (2, "")
    assert f"a farm already runs on {farm.home} at http://127.0.0.1:{farm.port}" in again.stderr
    other = Farm(farm.home.parent / "other", port=farm.port).command("up")
    assert other.returncode == 2
    assert f"--port: 127.0.0.1:{farm.port} cannot be listened on" in other.stderr

    # a job is taken, then everything that matters is killed at once
    job_id = farm.run("submit", "board.yaml", "--priority", "7").strip()
    for process in first:
        if process.name() in ("raylet", "gcs_server") or process.pid == farm.state["pid"]:
            process.kill()
    assert farm.command("status").returncode == 1

    # up again: the dead farm's leftovers go, its jobs stay
    with subprocess.Popen(["tail", "-f", str(farm.home / "logs" / "farm.log")], stdout=subprocess.DEVNULL) as bystander:
        farm.run("up", "--detach")
        wait_until_gone(first)
        assert json.loads(farm.run("show", job_id, "--json"))["priority"] == 7
        assert farm.command("submit", "board.yaml", "--wait", "-o", "film.mp4").returncode == 0
        assert (farm.home.parent / "film.mp4").stat().st_size > 1000

        # the supervisor is killed alone: down clears what is left
        second = farm.processes()
        os.kill(farm.state["pid"], signal.SIGKILL)
        assert "was dead already" in farm.run("down")
        wait_until_gone(second)
        assert bystander.poll() is None
        bystander.kill()
    assert not folder.exists()
    assert (farm.home / "logs" / "ray" / "gcs_server.out").exists()
    assert sorted(path.name for path in farm.home.iterdir() if not path.name.startswith("farm.db")) == [
        "artifacts", "farm.lock", "logs",
    ]  # fmt: skip
    assert farm.run("down") == f"no farm runs on {farm.home}\n"


def test_a_farm_in_the_foreground_ends_in_good_order_on_a_signal(farm: Farm) -> None:
    environment = {**farm.environment, "LONGTAKE_AUTH": "on", "LONGTAKE_METRICS_PORT": str(free_port())}
    del environment["RAY_AUTH_MODE"]
    beside = ["--with-prometheus"] if shutil.which("prometheus") else []
    with subprocess.Popen(
        [LONGTAKE, "up", *beside], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == f"http://127.0.0.1:{farm.port}\n"
            assert farm.run("jobs") == "no jobs\n"  # with the key that the home keeps
            assert farm.command("keys", "list").stdout.count("admin") == 1
            started = farm.processes()
            assert len(farm.processes("prometheus --config.file")) == len(beside)
            running.send_signal(signal.SIGINT)
            until = time.monotonic() + TIME_LIMIT_S
            while running.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
        finally:
            running.kill()
        assert running.stderr is not None
        stderr = running.stderr.read()
    assert running.returncode == 0, stderr
    assert "no API key is asked for" not in stderr
    assert "Traceback" not in stderr
    wait_until_gone(started)
    assert not (farm.home / "farm.json").exists()
    assert not (farm.home / "ray_token").exists()
    assert (farm.home / "prometheus").is_dir() == bool(beside), "what it read stays for the next one"


def test_a_farm_that_cannot_start_says_why_and_leaves_nothing(farm: Farm) -> None:
    wrong = farm.home.parent / "farm.yaml"
    wrong.write_text("pools: [{model: ./nowhere}]\n")
    result = farm.command("up", "--detach", "--config", "farm.yaml")
    assert result.returncode == 2, result.stderr
    assert "pools[0].model: " in result.stderr
    assert "Traceback" not in result.stderr
    assert not (farm.home / "farm.json").exists()
