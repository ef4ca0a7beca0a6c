"""How long does one wait for Longtake to begin, and how much of that is Ray's?

Each repeat measures, in turn, wall seconds and the CPU seconds of all processes that took part:

1. `longtake --help`, `longtake plan` of a storyboard whose model's speed is known, the first call of `longtake render`
   (until it tells its first progress), and the film of a draft of three seconds.
2. The floor: a bare ray.init, serve.start and one deployment that answers over HTTP, started as `longtake up` starts
   them. It imports Ray and nothing of Longtake.
3. `longtake up --detach` until it returns; then, each after `--rest` seconds (0: at once), two jobs of the draft with
   other prompts: from submitting to the first call that a gang is sent, to the first that is done, and to the film.

    python -m benchmarks.startup [--repeats 5] [--rest 20] [--longtake PATH] [--only commands|floor|farm] [--json FILE]

`--longtake` names the command of another installation, to compare two: this program imports nothing of either.
"""

import argparse
import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

POLL_S = 0.05
"""Polling interval of a job, in seconds: what it costs is counted with the job."""

LIMIT_S = 600.0
"""Seconds that anything that is waited for may take."""

BOARD = """\
version: 1
title: {title}
model: pocket
seed: {seed}
video: {{width: 96, height: 64, fps: 16}}
quality: draft
shots:
  - {{id: one, prompt: "a red ball {title}", seconds: 3}}
"""

FLOOR = """
import os, sys, time
begun = time.monotonic()
import ray
from ray import serve
imported = time.monotonic()
ray.init(address="local", num_cpus=6, object_store_memory=1 << 29, include_dashboard=False, log_to_driver=False,
    configure_logging=False, _temp_dir=os.environ["RAY_TMPDIR"] + "/r")
initiated = time.monotonic()
serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
started = time.monotonic()

@serve.deployment(ray_actor_options={"num_cpus": 0})
class Answer:
    def __call__(self, request):
        return "ready"

serve.run(Answer.bind(), name="floor")
import urllib.request
urllib.request.build_opener(urllib.request.ProxyHandler({})).open("http://127.0.0.1:" + sys.argv[1], timeout=30).read()
ready = time.monotonic()
print(imported - begun, initiated - imported, started - initiated, ready - started, flush=True)
sys.stdin.readline()
"""


@dataclass
class Took:
    """What one thing took, in seconds."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, wall: float, cpu: float | None = None) -> None:
        self.wall.append(wall)
        if cpu is not None:
            self.cpu.append(cpu)


Results = dict[str, Took]


class Farm:
    """The farm of a home of its own, started by the command that is measured."""

    def __init__(self, longtake: str, folder: Path) -> None:
        self.folder = folder
        self.address = f"http://127.0.0.1:{free_port()}"
        self._longtake = longtake
        self.environment = os.environ | {
            "LONGTAKE_HOME": str(folder / "home"),
            "LONGTAKE_PORT": self.address.rpartition(":")[2],
            "LONGTAKE_METRICS_PORT": "0",
            "LONGTAKE_URL": self.address,
            "LONGTAKE_LIMITS__REQUESTS_PER_MINUTE": "1000000",
            "RAY_AUTH_MODE": "disabled",
        }

    def run(self, *arguments: str) -> None:
        """A command of it. Raises CalledProcessError."""
        subprocess.run(
            [self._longtake, *arguments],
            cwd=self.folder,
            env=self.environment,
            check=True,
            timeout=LIMIT_S,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def popen(self, *arguments: str, stderr: int) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [self._longtake, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
        )

    def cpu(self) -> float:
        """CPU seconds of its living processes so far."""
        pid = json.loads((self.folder / "home" / "farm.json").read_text())["pid"]
        return cpu_of(psutil.Process(pid))


def measure_commands(longtake: str, results: Results) -> None:
    with tempfile.TemporaryDirectory(prefix="longtake-startup-") as made:
        farm = Farm(longtake, Path(made))
        board = write_board(farm.folder, "alone", seed=1)
        farm.run("render", board, "--out", "warm.mp4", "--gangs", "1")  # `plan` measures nothing after it
        for name, arguments in (("longtake --help", ["--help"]), ("longtake plan", ["plan", board])):
            with children(results[name]):
                farm.run(*arguments)
        with children(results["render: 3 s draft"]):
            begun = time.monotonic()
            render = farm.popen("render", board, "--out", "film.mp4", "--gangs", "1", stderr=subprocess.PIPE)
            assert render.stderr is not None
            for line in render.stderr:
                if line.startswith("calls") and not line.startswith("calls 0/"):
                    results["render: first call"].add(time.monotonic() - begun)
                    break
            render.stderr.read()
            assert render.wait(LIMIT_S) == 0


def measure_floor(results: Results) -> None:
    with tempfile.TemporaryDirectory(prefix="lt-", dir="/tmp") as made:
        environment = os.environ | {
            "RAY_TMPDIR": made,
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_LOG_TO_STDERR": "0",
            "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        }
        begun = time.monotonic()
        bare = subprocess.Popen(
            [sys.executable, "-c", FLOOR, str(free_port())],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert bare.stdout is not None
        parts = [float(part) for part in bare.stdout.readline().split()]
        results["floor: all of it"].add(time.monotonic() - begun, cpu_of(psutil.Process(bare.pid)))
        names = ("import ray and serve", "ray.init", "serve.start", "one deployment answers")
        for name, part in zip(names, parts, strict=True):
            results[f"floor: {name}"].add(part)
        bare.communicate("\n", timeout=LIMIT_S)


def measure_farm(longtake: str, results: Results, *, rest_s: float) -> None:
    with tempfile.TemporaryDirectory(prefix="longtake-startup-") as made:
        farm = Farm(longtake, Path(made))
        begun, spent = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        farm.run("up", "--detach")
        try:
            wall = time.monotonic() - begun
            command = resource.getrusage(resource.RUSAGE_CHILDREN)
            results["up --detach"].add(wall, farm.cpu() + seconds_of(command) - seconds_of(spent))
            for number, which in enumerate(("first job", "second job"), start=1):
                time.sleep(rest_s)
                measure_job(farm, which, number, results)
        finally:
            farm.run("down")


def measure_job(farm: Farm, which: str, number: int, results: Results) -> None:
    text = Path(farm.folder, write_board(farm.folder, which, seed=number)).read_text()
    with httpx.Client(base_url=farm.address, timeout=60.0, trust_env=False) as http:
        spent, begun = farm.cpu(), time.time()
        answer = http.post("/v1/jobs", content=text, headers={"Content-Type": "application/yaml"}).raise_for_status()
        path = f"/v1/jobs/{answer.json()['id']}"

        def timeline() -> Any:
            return http.get(f"{path}/timeline").raise_for_status().json()["takes"]

        sent = wait_for(lambda: first_sent(timeline()))
        results[f"{which}: first call sent"].add(sent - begun)
        wait_for(lambda: any(count > 0 for take in timeline() for count in reached(take)))
        results[f"{which}: first call done"].add(time.time() - begun)
        wait_for(lambda: http.get(path).json()["status"] == "completed")
        results[f"{which}: film"].add(time.time() - begun, farm.cpu() - spent)


def first_sent(takes: list[dict[str, Any]]) -> float:
    """Unix seconds at which the oldest of the calls that are out was sent; 0.0 if none is."""
    return min((call["since"] for take in takes for call in take["in_flight"]), default=0.0)


def reached(take: dict[str, Any]) -> list[int]:
    """The steps that a take's latents have reached."""
    return [step for step, _ in take["reached"]]


def wait_for(look: Callable[[], Any]) -> Any:
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        time.sleep(POLL_S)
    raise TimeoutError("what was waited for did not come")


@contextlib.contextmanager
def children(took: Took) -> Iterator[None]:
    """Adds what the block takes, with the CPU seconds of the processes that it starts and waits for."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    yield
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took.add(time.monotonic() - begun, seconds_of(after) - seconds_of(before))


def seconds_of(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of a process and everything that it started: the living, and the dead that were waited for."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def write_board(folder: Path, title: str, *, seed: int) -> str:
    name = f"{title.replace(' ', '-')}.yaml"
    (folder / name).write_text(BOARD.format(title=title, seed=seed))
    return name


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def show(results: Results) -> None:
    print("| | wall s | CPU s | walls |\n|---|---|---|---|")
    for name, took in results.items():
        cpu = f"{statistics.median(took.cpu):.2f}" if took.cpu else ""
        walls = " ".join(f"{wall:.2f}" for wall in took.wall)
        print(f"| {name} | {statistics.median(took.wall):.2f} | {cpu} | {walls} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rest", type=float, default=20.0, help="Seconds of rest before each job.")
    parser.add_argument("--longtake", default=str(Path(sys.executable).with_name("longtake")))
    parser.add_argument("--only", choices=("commands", "floor", "farm"))
    parser.add_argument("--json", type=Path, help="Also write all numbers here.")
    options = parser.parse_args()
    results: Results = defaultdict(Took)
    print(f"load {os.getloadavg()[0]:.1f}, {psutil.cpu_count()} cores, {options.longtake}", file=sys.stderr)
    for _ in range(options.repeats):
        if options.only in (None, "commands"):
            measure_commands(options.longtake, results)
        if options.only in (None, "floor"):
            measure_floor(results)
        if options.only in (None, "farm"):
            measure_farm(options.longtake, results, rest_s=options.rest)
    show(results)
    if options.json is not None:
        options.json.write_text(json.dumps({name: vars(took) for name, took in results.items()}, indent=2))


if __name__ == "__main__":
    main()
