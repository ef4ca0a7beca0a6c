"""One run: a film that nobody has rendered before is rendered on a farm that meets faults on the way, each when a
drawn part of its calls is done. Shared by the tests and benchmarks/chaos.py.
"""

import random
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.faults import Fault
from tests.chaos.promises import check_film, check_jobs, check_leftovers
from tests.chaos.scene import Scene, submit
from tests.chaos.stage import Stage
from tests.farm_process import Json, calls_done, calls_planned, render

BOARD = """
version: 1
title: Chaos {seed}
seed: {seed}
quality: final
shots:
  - {{id: day, prompt: a red ball moves right, seconds: {first}}}
  - {{id: night, prompt: a white star falls at night, seconds: {second}}}
"""


@dataclass(frozen=True)
class Outcome:
    """How a run went."""

    run: int
    stage: str
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
    broken: tuple[str, ...]
    """Promises that were not kept."""


def play(stage: Stage, run: int, faults: Sequence[Fault], *, seed: int) -> Outcome:
    """One run. What it finds broken is in its outcome; it raises nothing for that."""
    rng = random.Random(f"{seed}/{run}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        board = Path(folder) / "film.yaml"
        film_seed = seed * 10_000 + run
        board.write_text(BOARD.format(seed=film_seed, first=rng.randint(4, 8), second=rng.randint(4, 8)))
        expected: list[str] = []
        scene = Scene(stage, rng, board)
        moments: list[int] = []
        broken: list[str] = []
        job: Json = {}
        try:
            scene.seen = stage.farm.calls()
            scene.key = str(uuid.uuid4())
            scene.job_id = submit(scene, board, key=scene.key)
            stage.submitted[scene.job_id] = "completed"
            for fault in faults:
                moments.append(_wait_for_a_moment(scene, rng, after=max(moments, default=0)))
                fault.act(scene)
            # The undisturbed film is made meanwhile, in a process of its own.
            beside = threading.Thread(target=lambda: expected.append(render(board)))
            beside.start()
            job = scene.wait_for(lambda job: job["status"] == "completed")
            beside.join()
            broken += check_film(scene, job, expected)
            broken += check_jobs(stage)
            broken += check_leftovers(scene)
        except AssertionError as error:
            broken.append(str(error) or repr(error))
        # The Director counts the calls of all jobs; where there was another one only falling back can be counted.
        repeated = scene.fallen if scene.others else max(0, scene.calls["done"] - (calls_planned(job) if job else 0))
        return Outcome(
            run=run,
            stage=stage.name,
            faults=tuple(fault.name for fault in faults),
            moments=tuple(moments),
            seconds=time.monotonic() - started,
            planned=calls_planned(job) if job else 0,
            repeated=repeated,
            failed=sum(number for outcome, number in scene.calls.items() if outcome != "done"),
            wasted_s=job["cost"]["wasted_gpu_seconds"] if job else 0.0,
            broken=(*scene.broken, *broken),
        )


def _wait_for_a_moment(scene: Scene, rng: random.Random, *, after: int) -> int:
    """Let the job come to a drawn part of its calls; returns the percent that are done then."""
    wanted = rng.uniform(max(3, after), min(95, after + 50)) / 100
    job = scene.wait_for(
        lambda job: job["status"] == "completed" or calls_done(job) >= wanted * max(1, calls_planned(job))
    )
    return round(100 * calls_done(job) / max(1, calls_planned(job)))
