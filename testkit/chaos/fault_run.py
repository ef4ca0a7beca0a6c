"""The state of a run: its job, and what faults have done to it so far."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from serving.models.registry import open_model
from serving.settings import QUALITY_STEPS
from serving.store.artifact_keys import latents_artifact
from serving.store.checkpoints import Checkpoints
from serving.store.database import open_database
from serving.store.jobs import JobStore
from serving.store.records import Take
from sharding.stitching import schedule
from sharding.timeline import Recipe, Timeline
from testkit.chaos.testbeds import Testbed
from testkit.farm_process import Farm, calls_done
from testkit.json_object import Json

MODEL = "pocket"


class GuaranteeBroken(AssertionError):
    """A guarantee that a run saw broken."""


@dataclass
class FaultRun:
    """A job that is being rendered, and what has happened to it."""

    testbed: Testbed
    rng: random.Random
    board: Path
    job_id: str = ""
    key: str = ""
    """Idempotency-Key that it was submitted with."""
    others: list[str] = field(default_factory=list)
    """Other jobs that faults have sent."""
    calls: Counter[str] = field(default_factory=Counter)
    """Calls by how they ended, over all Directors, as far as they could be seen."""
    seen: Counter[str] = field(default_factory=Counter)
    progress: Counter[str] = field(default_factory=Counter)
    """Calls done of each take when it was last looked at."""
    fallen: int = 0
    """By how many calls its takes fell back, as far as it could be seen."""
    kept: dict[str, int] = field(default_factory=dict)
    """Calls of each take that were durable when a host was last lost; nothing while none was."""
    outage: bool = False
    """Whether there was a time in which nothing could be made durable."""
    violations: list[str] = field(default_factory=list)
    """Guarantees that were seen broken on the way."""

    @property
    def farm(self) -> Farm:
        return self.testbed.farm

    def look(self) -> Json:
        """The job now; adds what the Director counts to `calls`."""
        now = self.farm.calls()
        if now:
            reset = any(now[outcome] < self.seen[outcome] for outcome in self.seen)
            self.calls += now - (Counter() if reset else self.seen)
            self.seen = now
        job = self.farm.job(self.job_id)
        for take in job["takes"]:
            key, before, now_done = take["key"], self.progress[take["key"]], take["calls_done"]
            self.fallen += max(0, before - now_done)
            self.progress[key] = now_done
            if now_done < min(before, self.kept.get(key, before)):
                durable = self.kept.get(key, "all of them")
                self.violations.append(f"take {key} fell from {before} calls to {now_done}; {durable} were durable")
        return job

    def wait_for(self, met: Callable[[Json], bool], *, within_s: float = 240) -> Json:
        end = time.monotonic() + within_s
        while not met(job := self.look()):
            if job["status"] == "failed":
                raise GuaranteeBroken(f"the job failed: {job['error']}")
            if time.monotonic() > end:
                state = f"{job['status']}, {calls_done(job)} calls done"
                raise GuaranteeBroken(f"nothing happened for {within_s:.0f} s: {state}")
            time.sleep(0.05)
        return job

    def lose(self, hosts: list[psutil.Process]) -> None:
        """Timeline hosts are about to be killed: stop them, and note what of each take is durable in this moment."""
        for host in hosts:
            host.suspend()
        database = open_database(self.testbed.store_url)
        try:
            takes = JobStore(database).takes(self.job_id)
        finally:
            database.close()
        self.kept = {take.key: self._durable_calls(take) for take in takes}
        for take in takes:
            if take.calls_done > take.calls_total / 2 and not self.kept[take.key] and not self.outage:
                self.violations.append(f"take {take.key} had done {take.calls_done} calls and kept no checkpoint")

    def _durable_calls(self, take: Take) -> int:
        """Calls of a take that need not be done again if every process dies now."""
        artifacts = self.testbed.artifacts
        if take.content_key is None:
            return 0
        if artifacts.exists(latents_artifact(take.content_key)):
            return take.calls_total
        loaded = Checkpoints(artifacts, take.content_key).load_newest()
        if loaded is None:
            return 0
        return Timeline.restore(loaded.snapshot, _recipe(take.latents)).num_reported()


def _recipe(latents: int) -> Recipe:
    """The calls of a take of this many latents. Counting them computes nothing."""
    steps = QUALITY_STEPS["standard"]
    model = open_model(MODEL)
    can = model.capabilities
    steps_of_take = schedule(can.stitching, num_latents=latents, window=can.window, steps=steps)
    shape = can.latent_shape(width=can.width, height=can.height)
    return Recipe.of(steps_of_take, solver_of=model.solver, step_noise=lambda n, step: torch.zeros(shape))


def submit(run: FaultRun, board: Path, *, key: str) -> str:
    """The id of the job that a storyboard becomes."""
    body = {"storyboard": board.read_text()}
    return str(run.farm.ask("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key})["id"])
