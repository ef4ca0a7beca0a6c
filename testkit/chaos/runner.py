"""One run: a new film is rendered on a farm that meets faults meanwhile, each when a drawn share of the calls is done.

Shared by tests/chaos and benchmarks/chaos.py.
"""

import random
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from testkit.chaos.checks import check_film, check_jobs, check_leftovers
from testkit.chaos.fault_run import FaultRun, submit
from testkit.chaos.faults import Fault
from testkit.chaos.testbeds import Testbed
from testkit.farm_process import calls_done, calls_planned, render
from testkit.json_object import Json

BOARD = """
version: 1
title: Chaos {seed}
seed: {seed}
shots:
  - {{id: day, prompt: a red ball moves right, seconds: {first}}}
  - {{id: night, prompt: a white star falls at night, seconds: {second}}}
"""

FIRST_MOMENT, LAST_MOMENT = 0.03, 0.95
"""Shares of the calls that are done when the first fault may come at the earliest, and the last one at the latest."""


@dataclass(frozen=True)
class Outcome:
    """How a run went."""

    number: int
    testbed: str
    faults: tuple[str, ...]
    moments: tuple[int, ...]
    """Percent of the calls that were done when each fault came."""
    seconds: float
    planned: int
    """Calls of the film."""
    repeated: int
    """Calls that were done more than once, as far as was seen."""
    failed: int
    """Calls that ended otherwise than done: with a gang that died, a host that was lost."""
    wasted_s: float
    """GPU-seconds that the job was charged for nothing."""
    violations: tuple[str, ...]
    """Guarantees that were not kept."""


def play(testbed: Testbed, number: int, faults: Sequence[Fault], *, seed: int) -> Outcome:
    """One run. What it finds wrong is in its outcome; it raises nothing for that."""
    rng = random.Random(f"{seed}/{number}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        board = Path(folder) / "film.yaml"
        film_seed = seed * 10_000 + number
        board.write_text(BOARD.format(seed=film_seed, first=rng.randint(3, 6), second=rng.randint(3, 6)))
        run = FaultRun(testbed, rng, board)
        moments: list[int] = []
        violations: list[str] = []
        job: Json = {}
        try:
            _submit_film(run)
            for share, fault in zip(_draw_moments(rng, len(faults)), faults, strict=True):
                moments.append(_wait_for_share(run, share))
                fault.act(run)
            job, expected = _finish(run)
            violations += check_film(run, job, expected)
            violations += check_jobs(testbed)
            violations += check_leftovers(run)
        except AssertionError as error:
            violations.append(str(error) or repr(error))
        # The Director counts the calls of all jobs; if there was another one only falling back can be counted.
        repeated = run.fallen if run.others else max(0, run.calls["done"] - (calls_planned(job) if job else 0))
        return Outcome(
            number=number,
            testbed=testbed.name,
            faults=tuple(fault.name for fault in faults),
            moments=tuple(moments),
            seconds=time.monotonic() - started,
            planned=calls_planned(job) if job else 0,
            repeated=repeated,
            failed=sum(count for outcome, count in run.calls.items() if outcome != "done"),
            wasted_s=job["cost"]["wasted_gpu_seconds"] if job else 0.0,
            violations=(*run.violations, *violations),
        )


def _submit_film(run: FaultRun) -> None:
    run.seen = run.farm.calls()
    run.key = str(uuid.uuid4())
    run.job_id = submit(run, run.board, key=run.key)
    run.testbed.submitted[run.job_id] = "completed"


def _finish(run: FaultRun) -> tuple[Json, str | None]:
    """The finished job, and the sha256 of the undisturbed film, which is made meanwhile in a process of its own."""
    expected: list[str] = []
    beside = threading.Thread(target=lambda: expected.append(render(run.board)))
    beside.start()
    job = run.wait_for(lambda job: job["status"] == "completed")
    beside.join()
    return job, expected[0] if expected else None


def _draw_moments(rng: random.Random, count: int) -> Iterator[float]:
    """Shares of the calls, rising and well apart: one in each of `count` equal parts of the film."""
    for index in range(count):
        yield FIRST_MOMENT + (LAST_MOMENT - FIRST_MOMENT) * (index + rng.random()) / count


def _wait_for_share(run: FaultRun, share: float) -> int:
    """Let the job do this share of its calls; returns the percent that are done then."""
    job = run.wait_for(
        lambda job: job["status"] == "completed" or calls_done(job) >= share * max(1, calls_planned(job))
    )
    return round(100 * calls_done(job) / max(1, calls_planned(job)))
