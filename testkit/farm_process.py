"""A real farm for tests: started by the real command in a home of its own, asked over HTTP, its processes killed."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from serving.local_farm.leftovers import find_processes, is_living
from testkit.json_object import Json

LONGTAKE = str(Path(sys.executable).with_name("longtake"))
TIME_LIMIT_S = 300.0
"""Seconds that a command, or anything else that is waited for, may take on a busy machine."""


class Farm:
    """The farm of one home.

    `extra` are environment variables of it and of every command, `up_options` further options of `longtake up`.
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int | None = None,
        extra: Mapping[str, str] | None = None,
        up_options: Sequence[str] = (),
    ) -> None:
        self.home = home
        self.up_options = up_options
        self.port = port or free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        settings = {
            "LONGTAKE_HOME": str(home),
            "LONGTAKE_PORT": str(self.port),
            "LONGTAKE_METRICS_PORT": "0",
            "LONGTAKE_LIMITS__REQUESTS_PER_MINUTE": "100000",  # tests look more often than people
            "LONGTAKE_URL": self.address,
            "RAY_AUTH_MODE": "disabled",
        }
        self.environment = {**os.environ, **settings, **(extra or {})}

    # ------------------------------------------------------------------------------------------------ commands

    def command(self, *arguments: str, timeout_s: float = TIME_LIMIT_S) -> subprocess.CompletedProcess[str]:
        """What `longtake ARGUMENTS` says, run beside the home."""
        return subprocess.run(
            [LONGTAKE, *arguments],
            cwd=self.home.parent,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def run(self, *arguments: str) -> str:
        """Its standard output. Raises AssertionError if it fails."""
        done = self.command(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}\n{self.log_tail()}"
        return done.stdout

    def up(self) -> None:
        assert self.run("up", "--detach", *self.up_options) == f"{self.address}\n"

    def down(self) -> None:
        self.run("down")

    def log_tail(self) -> str:
        log = self.home / "logs" / "farm.log"
        return log.read_text()[-2000:] if log.exists() else ""

    # ------------------------------------------------------------------------------------------------ HTTP

    def ask(self, method: str, path: str, *, within_s: float = TIME_LIMIT_S, **what: Any) -> Json:
        """An answer of the API; see `request`."""
        return request(self.address, method, path, within_s=within_s, **what)

    def submit(self, storyboard: Path) -> str:
        return str(json.loads(self.run("submit", str(storyboard), "--json"))["id"])

    def job(self, job_id: str) -> Json:
        return self.ask("GET", f"/v1/jobs/{job_id}")

    def wait_for(
        self, job_id: str, met: Callable[[Json], bool], *, within_s: float = TIME_LIMIT_S, every_s: float = 0.05
    ) -> Json:
        """The job when `met` is true of it. Raises AssertionError if it fails or does not come so far in time."""
        end = time.monotonic() + within_s
        while True:
            job = self.job(job_id)
            if met(job):
                return job
            assert job["status"] != "failed", job["error"]
            assert time.monotonic() < end, f"it did not happen in {within_s} s: {job}"
            time.sleep(every_s)

    def calls(self) -> Counter[str]:
        """Calls by how they ended, as the Director counts them since it was started."""
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"{self.address}/metrics", timeout=10, trust_env=False)
            if answer.is_success:
                counts: Counter[str] = Counter()
                for family in text_string_to_metric_families(answer.text):
                    for sample in family.samples:
                        if sample.name == "longtake_calls_total":  # of each pool and reason one
                            counts[sample.labels["outcome"]] += int(sample.value)
                return counts
        return Counter()

    # ------------------------------------------------------------------------------------------------ processes

    @property
    def state(self) -> Json:
        found: Json = json.loads((self.home / "farm.json").read_text())
        return found

    def processes(self, name: str = "") -> list[psutil.Process]:
        """The living processes of this farm whose command line holds `name`, the supervisor among them."""
        state = self.state
        found = find_processes(Path(state["ray_folder"]))
        if all(process.pid != state["pid"] for process in found):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(state["pid"]))
        return [process for process in found if name in title(process) and is_living(process)]

    def kill_everything(self) -> None:
        """SIGKILL every process of the farm at once."""
        victims = self.processes()
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(victims, timeout=30)


def request(address: str, method: str, path: str, *, within_s: float = TIME_LIMIT_S, **what: Any) -> Json:
    """An answer of a farm's API. It is asked again while it does not answer, as a client of a farm in trouble would."""
    end = time.monotonic() + within_s
    while True:
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.request(method, address + path, timeout=60, trust_env=False, **what)
            if answer.status_code < 500:
                assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
                found: Json = answer.json()
                return found
        assert time.monotonic() < end, f"{method} {path} was not answered"
        time.sleep(0.1)


def title(process: psutil.Process) -> str:
    """What a process calls itself; nothing for one that has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def calls_done(job: Json) -> int:
    """Calls of a job's takes that are done, as the API shows them."""
    return sum(take["calls_done"] for take in job["takes"])


def calls_planned(job: Json) -> int:
    """Calls that its takes need in all."""
    return sum(take["calls"] for take in job["takes"])


def render(storyboard: Path, *, gang: str = "1") -> str:
    """The sha256 of the film that `longtake render` makes of it, on one gang of this shape."""
    out = storyboard.with_suffix(".rendered.mp4")
    command = [LONGTAKE, "render", str(storyboard), "-o", str(out), "--gangs", "1", "--gang", gang, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["sha256"])
