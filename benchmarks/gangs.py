"""What is a gang of several ranks worth? One take, one thread a rank, in one process tree and on a farm.

1. shapes: the same take by two gangs of one rank, and by one gang of two ranks in each shape, in turn; calls of 4,032
   tokens. Chunk-parallel is the rival: it exchanges nothing, so no shape should beat it where there are calls for both.
2. rebuild: on a farm, one of two ranks is killed: how long until the gang is whole again.

    python -m benchmarks.gangs [--only shapes|rebuild] [--repeats 3]
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.farm import write_slow_checkpoint
from serving.models.registry import open_model
from serving.planning.compile import compile_storyboard
from serving.render.local.film import render_film
from serving.render.local.progress import Progress
from serving.storyboard import Shot, Storyboard
from sharding.gang_shape import GangShape
from testkit.farm_process import Farm

RUNS = (("1", 1), ("1", 2), ("cfg=2", 1), ("ulysses=2", 1), ("ring=2", 1))
"""Shape of the gangs, and how many."""

STEPS = 4
REBUILDS = 4
LIMIT_S = 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["shapes", "rebuild"])
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="gangs-") as folder:
        if given.only in (None, "shapes"):
            compare_shapes(Path(folder), given.repeats)
        if given.only in (None, "rebuild"):
            time_rebuilds(Path(folder))
    return 0


# ---------------------------------------------------------------------------------------------- shapes


class Watch:
    """Seconds from the first call that was done to the last."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._last = (0.0, 0)

    def __call__(self, progress: Progress) -> None:
        now = (time.monotonic(), progress.calls_done)
        if progress.calls_done and self._first is None:
            self._first = now
        if progress.calls_done > self._last[1]:
            self._last = now

    @property
    def seconds_per_call(self) -> float:
        assert self._first is not None
        return (self._last[0] - self._first[0]) / (self._last[1] - self._first[1])


def compare_shapes(folder: Path, repeats: int) -> None:
    name = str(write_slow_checkpoint(folder / "model", layers=1, window=21, width=256, height=192))
    model = open_model(name)
    shots = (Shot(id="a", prompt="a red ball moving right day", seconds=18.0),)
    storyboard = Storyboard(version=1, title="One take", model=name, shots=shots)
    plan = compile_storyboard(storyboard, model_name=name, capabilities=model.capabilities, steps=STEPS)
    times: dict[tuple[str, int], list[float]] = {run: [] for run in RUNS}
    for _ in range(repeats):
        for shape, gangs in RUNS:
            watch = Watch()
            out = folder / "film.mp4"
            render_film(plan, model=model, out=out, gangs=gangs, shape=GangShape.parse(shape), on_progress=watch)
            times[shape, gangs].append(watch.seconds_per_call)
    medians = {run: statistics.median(values) for run, values in times.items()}
    chunks = f"{min(plan.takes[0].chunks_per_step)}-{max(plan.takes[0].chunks_per_step)}"
    print(f"{plan.calls} calls of up to 4,032 tokens, {chunks} chunks a step, medians of {repeats}")
    print("| gangs | shape | s a call | speed-up over one rank | of chunk-parallel |")
    print("|---|---|---|---|---|")
    for (shape, gangs), seconds in medians.items():
        over_one, of_chunks = medians["1", 1] / seconds, medians["1", 2] / seconds
        print(f"| {gangs} | {shape} | {seconds:.2f} | {over_one:.2f} | {of_chunks:.2f} |", flush=True)


# ---------------------------------------------------------------------------------------------- rebuild


def time_rebuilds(folder: Path) -> None:
    farm = Farm(folder / "home", extra={"LONGTAKE_POOLS__0__GANG_SHAPE": "ulysses=2", "LONGTAKE_POOLS__0__GANGS": "1"})
    farm.up()
    try:
        seconds: list[float] = []
        gangs = [_whole_gang(farm, [])]
        for turn in range(REBUILDS):
            killed = time.monotonic()
            psutil.Process(gangs[-1][turn % 2]).kill()
            gangs.append(_whole_gang(farm, gangs))  # earlier ones are listed for a while
            seconds.append(time.monotonic() - killed)
    finally:
        farm.down()
    every = ", ".join(f"{value:.1f}" for value in seconds)
    print(f"\na killed rank of two is replaced in {statistics.median(seconds):.1f} s (median of {every})")


def _whole_gang(farm: Farm, other_than: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The processes of the pool's gang, once it is none of these."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        [pool] = farm.ask("GET", "/v1/pools")["data"]
        for gang in (pool["live"] or {}).get("gangs", []):
            if (found := tuple(gang["pids"])) and found not in other_than:
                return found
        time.sleep(0.05)
    raise AssertionError("the gang does not become whole")


if __name__ == "__main__":
    sys.exit(main())
