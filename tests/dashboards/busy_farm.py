"""Work for a real farm that leaves something to show on every panel of the dashboards.

`python -m tests.dashboards.busy_farm MINUTES` works it for that long, and plots the dashboards for docs/dashboards.md.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from dashboards.asking import Stretch
from serving.local_farm.prometheus import PROMETHEUS_SCRAPE_S
from testkit.farm_process import LONGTAKE, Farm, calls_done
from testkit.shared_farm import gang_pids, make_shared_farm, wait_for_gangs

STORYBOARD = """
version: 1
title: Day and night
seed: {seed}
shots:
  - {{id: day, prompt: "a red ball moves right, day", seconds: {seconds}}}
  - {{id: night, prompt: "a white star falls, night", seconds: {seconds}}}
"""


class BusyFarm:
    """What is done with a farm that was just started."""

    def __init__(self, farm: Farm, folder: Path) -> None:
        self.farm = farm
        self.folder = folder
        self.started_at = time.time()

    @property
    def prometheus(self) -> str:
        """Its address."""
        return str(self.farm.state["prometheus"])

    def submit(self, *options: str, seed: int, seconds: int, pool: str) -> str:
        board = self.folder / f"film-{seed}.yaml"
        board.write_text(STORYBOARD.format(seed=seed, seconds=seconds))
        told = self.farm.run("submit", str(board), "--json", "--pool", pool, *options)
        return str(json.loads(told)["id"])

    def watch(self, job_id: str) -> "subprocess.Popen[bytes]":
        """Somebody who is told of every event of a job."""
        command = [LONGTAKE, "watch", job_id]
        return subprocess.Popen(
            command, env=self.farm.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def lose_a_gang(self, job_id: str) -> None:
        """Kill the rank of a gang, and a whole gang, while they have calls of this job."""
        self.farm.wait_for(job_id, lambda job: calls_done(job) > 0)
        rank = psutil.Process(gang_pids(self.farm, "plain")[0])
        for process in (rank, *self.farm.processes("ray::ServeReplica:longtake:Renderer-plain")[:1]):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def ask_in_vain(self) -> None:
        """A request that is refused."""
        httpx.get(f"{self.farm.address}/v1/jobs/none", timeout=30, trust_env=False)

    def work(self, *, seed: int, seconds: int) -> None:
        """One round: films with due times and budgets, a gang that is lost, a film whose takes are there already."""
        first = self.submit("--due", "in 1h", "--budget", "1", seed=seed, seconds=seconds, pool="plain")
        other = self.submit("--due", "in 20s", seed=seed + 1, seconds=seconds, pool="split")
        watcher = self.watch(first)
        self.lose_a_gang(first)
        self.ask_in_vain()
        for job_id in (first, other):
            self.farm.wait_for(job_id, lambda job: job["status"] == "completed", every_s=0.5)
        watcher.wait(60)
        again = self.submit(seed=seed, seconds=seconds, pool="plain")
        self.farm.wait_for(again, lambda job: job["status"] == "completed")

    def stretch(self) -> Stretch:
        """All the time since it was started."""
        end = time.time()
        step_s = max(5.0, round((end - self.started_at) / 120))
        return Stretch(self.started_at, end, step_s, PROMETHEUS_SCRAPE_S)


def main() -> None:
    """Works a farm and plots what it did."""
    from dashboards.plot import plot_all

    minutes = float(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        farm = make_shared_farm(Path(folder))
        try:
            farm.up()
            wait_for_gangs(farm)
            busy, seed = BusyFarm(farm, Path(folder)), 100
            while time.time() - busy.started_at < 60 * minutes:
                busy.work(seed=seed, seconds=8)
                seed += 10
            time.sleep(2 * PROMETHEUS_SCRAPE_S)  # so that what happened last is seen
            plot_all(busy.prometheus, busy.stretch())
        finally:
            farm.down()


if __name__ == "__main__":
    main()
