"""A real farm, started and used through the real command, that loses processes while it renders."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.slow

STORYBOARD = """
version: 1
title: Two takes
seed: 7
shots:
  - id: day
    prompt: a red ball moves right, day
    seconds: 3
  - id: night
    prompt: a white star falls, night
    seconds: 3
"""


class Farm:
    """A farm in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._env = {
            **os.environ,
            "LONGTAKE_HOME": str(home),
            "LONGTAKE_URL": f"http://127.0.0.1:{self.port}",
            "LONGTAKE_CHECKPOINT_EVERY_STEPS": "2",
            "RAY_AUTH_MODE": "disabled",
        }

    def run(self, *arguments: str, timeout_s: float = 240) -> str:
        command = [sys.executable, "-m", "serving.cli.main", *arguments]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}\n{self.log_tail()}"
        return done.stdout

    def up(self) -> None:
        self.run("up", "--detach", "--port", str(self.port))

    def down(self) -> None:
        self.run("down")

    def submit(self, path: Path) -> str:
        return str(json.loads(self.run("submit", str(path), "--json"))["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.run("show", job_id, "--json"))
        return shown

    def wait_for(self, job_id: str, met: Callable[[dict[str, Any]], bool], *, within_s: float = 240) -> dict[str, Any]:
        end = time.monotonic() + within_s
        while True:
            job = self.job(job_id)
            if met(job):
                return job
            assert job["status"] != "failed", job["error"]
            assert time.monotonic() < end, job
            time.sleep(0.1)

    def ray_folder(self) -> str:
        return str(json.loads((self.home / "farm.json").read_text())["ray_folder"])

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Processes of this farm's Ray, by what they call themselves."""
        folder = self.ray_folder()
        gcs = next(p for p in psutil.process_iter(["cmdline"]) if _is(p, folder, "raylet/raylet"))
        supervisor = psutil.Process(json.loads((self.home / "farm.json").read_text())["pid"])
        tree = {p.pid: p for p in [gcs, *gcs.children(recursive=True), *supervisor.children(recursive=True)]}
        return [p for p in tree.values() if name in _name(p)]

    def kill(self, name: str) -> None:
        victims = self.processes(name)
        assert victims, f"no process is called {name}"
        victims[0].kill()

    def log_tail(self) -> str:
        log = self.home / "logs" / "farm.log"
        return log.read_text()[-2000:] if log.exists() else ""


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _is(process: psutil.Process, folder: str, what: str) -> bool:
    name = _name(process)
    return folder in name and what in name


@pytest.fixture(scope="module")
def storyboard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("board") / "film.yaml"
    path.write_text(STORYBOARD)
    return path


@pytest.fixture(scope="module")
def expected(storyboard: Path) -> str:
    """What `longtake render` makes of it."""
    out = storyboard.with_name("film.mp4")
    command = [sys.executable, "-m", "serving.cli.main", "render", str(storyboard), "-o", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return str(json.loads(done.stdout)["sha256"])


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    farm = Farm(tmp_path_factory.mktemp("home"))
    farm.up()
    yield farm
    farm.down()


def fresh(storyboard: Path, tmp_path: Path, take: str) -> Path:
    """The same film under another name of its takes would be cached; another seed is another film."""
    path = tmp_path / "film.yaml"
    path.write_text(storyboard.read_text().replace("seed: 7", f"seed: {take}"))
    return path


def render(path: Path) -> str:
    out = path.with_suffix(".mp4")
    command = [sys.executable, "-m", "serving.cli.main", "render", str(path), "-o", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return str(json.loads(done.stdout)["sha256"])


def test_submit_wait_and_download_give_the_film_that_render_gives(
    farm: Farm, storyboard: Path, expected: str, tmp_path: Path
) -> None:
    job_id = farm.submit(storyboard)
    farm.wait_for(job_id, lambda job: job["status"] == "completed")
    out = tmp_path / "film.mp4"
    farm.run("download", job_id, "-o", str(out))
    assert json.loads(farm.run("show", job_id, "--json"))["film"]["sha256"] == expected
    assert out.stat().st_size > 1000


@pytest.mark.parametrize(
    ("victim", "seed"),
    [
        ("ray::RankActor", "11"),
        ("ray::TimelineHostActor", "12"),
        ("ray::DirectorActor", "13"),
        ("ServeReplica:longtake:Decoder", "14"),
        ("ServeReplica:longtake:Renderer", "15"),
    ],
)
def test_a_process_killed_in_mid_render_changes_no_byte(
    farm: Farm, storyboard: Path, tmp_path: Path, victim: str, seed: str
) -> None:
    path = fresh(storyboard, tmp_path, seed)
    job_id = farm.submit(path)
    farm.wait_for(job_id, lambda job: sum(take["calls_done"] for take in job["takes"]) > 20)
    farm.kill(victim)
    done = farm.wait_for(job_id, lambda job: job["status"] == "completed")
    assert done["film"]["sha256"] == render(path)
