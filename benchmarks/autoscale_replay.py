"""What is the planner worth? A day of jobs in simulated time under three ways to choose the number of gangs.

The planner; queue length, as KEDA and an HPA would (the best of several thresholds); and fixed fleets, the smallest
that misses no more due times than the planner and the smallest that besides lets jobs wait no longer.
docs/autoscaling.md says what the simulation (simulation/autoscaled_farm.py) leaves out.

    python -m benchmarks.autoscale_replay [--seed 2 [--due-share 0.4] | --day FILE] [--only planner]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cluster.contract.planner import ScalingTargets
from simulation.autoscaled_farm import MAX_GANGS, AutoscaledFarm, Planner, QueueLength, Scaler
from simulation.day import DUE_SHARE, DayJob, draw_day, read_day

HOUR_S = 3600.0
RECORDED_DAY = Path(__file__).parent / "data" / "autoscale_day.csv"


@dataclass(frozen=True)
class Outcome:
    """What a day came to."""

    name: str
    gang_hours: float
    wait_mean_s: float
    """Seconds that jobs were done later than on gangs without end that are always there."""
    wait_p95_s: float
    missed: int
    due: int
    changes: int
    most_gangs: int
    busy_victims: int
    cut_gang_s: float
    utilisation: float


def play(name: str, jobs: Sequence[DayJob], seed: int, *, scaler: Scaler | None = None, fixed: int = 0) -> Outcome:
    farm = AutoscaledFarm(seed=seed, scaler=scaler, fixed=fixed)
    farm.play(jobs)
    waits, missed, due = [], 0, 0
    for job in farm.jobs.values():
        assert job.finished_at is not None
        path_s = max(take.path_s for take in job.takes)
        waits.append(max(0.0, job.finished_at - job.spec.created_at - path_s))
        if job.spec.due_at is not None:
            due += 1
            missed += job.finished_at > job.spec.due_at
    return Outcome(
        name=name,
        gang_hours=farm.gang_s / HOUR_S,
        wait_mean_s=statistics.fmean(waits),
        wait_p95_s=statistics.quantiles(waits, n=20)[-1],
        missed=missed,
        due=due,
        changes=farm.changes,
        most_gangs=max(fixed, farm.most_gangs),
        busy_victims=farm.busy_victims,
        cut_gang_s=farm.cut_s,
        utilisation=farm.totals.work_s / farm.gang_s,
    )


def smallest_fleets(jobs: Sequence[DayJob], seed: int, ours: Outcome) -> tuple[Outcome, Outcome]:
    """The smallest that misses no more, and the smallest that besides lets jobs wait no longer on average."""

    @cache
    def fleet(gangs: int) -> Outcome:
        return play(f"fixed fleet of {gangs}", jobs, seed, fixed=gangs)

    same_misses = _smallest(fleet, lambda outcome: outcome.missed <= ours.missed)
    same_waits = _smallest(
        fleet, lambda outcome: outcome.missed <= ours.missed and outcome.wait_mean_s <= ours.wait_mean_s
    )
    return same_misses, same_waits


def _smallest(fleet: Callable[[int], Outcome], is_enough: Callable[[Outcome], bool]) -> Outcome:
    """By halving; the largest where none is enough. Misses do not fall evenly with size, so a smaller one might do by
    luck of the draw.
    """
    low, high = 0, MAX_GANGS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(fleet(middle)) else (middle, high)
    return fleet(high)


QUEUES = ((1, False), (2, False), (4, False), (1, True), (2, True), (4, True))


def play_queues(jobs: Sequence[DayJob], seed: int) -> Iterator[Outcome]:
    for calls, counts_running in QUEUES:
        name = f"queue length, {calls} {'waiting or running' if counts_running else 'waiting'} a gang"
        yield play(name, jobs, seed, scaler=QueueLength(calls, counts_running))


def best_queue(queues: Sequence[Outcome], at_most_missed: int) -> Outcome:
    """The cheapest that misses no more than the planner; if all do, the one that misses the fewest."""
    return min(queues, key=lambda queue: (max(0, queue.missed - at_most_missed), queue.gang_hours))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--seed", type=int, help="draw another day instead of the recorded one")
    chosen.add_argument("--day", type=Path, default=RECORDED_DAY, help="a day in the columns of the recorded one")
    parser.add_argument("--due-share", type=float, default=DUE_SHARE, help="of a drawn day's jobs that have a due time")
    parser.add_argument("--only", choices=("planner",), help="leave out the rivals")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        jobs = draw_day(options.seed, options.due_share)
    else:
        with options.day.open(encoding="utf-8", newline="") as file:
            jobs = read_day(file)
    seed = options.seed or 1
    started = time.perf_counter()
    ours = play("planner", jobs, seed, scaler=Planner(ScalingTargets()))
    if options.only is None:
        compare(ours, smallest_fleets(jobs, seed, ours), list(play_queues(jobs, seed)))
    else:
        print_table([ours])
    print(f"{time.perf_counter() - started:.0f} s")
    return 0


def compare(ours: Outcome, fleets: tuple[Outcome, Outcome], queues: Sequence[Outcome]) -> None:
    same_misses, same_waits = fleets
    print_table([ours, *dict.fromkeys(fleets), *queues])
    queue = best_queue(queues, ours.missed)
    print(f"\ncost over {same_misses.name}: {ours.gang_hours / same_misses.gang_hours:.3f} (goal <= 0.7)")
    print(f"cost over {same_waits.name}, whose jobs wait no longer: {ours.gang_hours / same_waits.gang_hours:.3f}")
    print(
        f"cost over the best queue length ({queue.name}): {ours.gang_hours / queue.gang_hours:.3f}; "
        f"mean wait over its: {ours.wait_mean_s / queue.wait_mean_s:.3f}"
    )


def print_table(rows: Sequence[Outcome]) -> None:
    print(
        "| | gang-hours | busy | wait s, mean | p95 | due missed | changes | most gangs | busy victims | cut gang-s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        cells = (
            row.name,
            f"{row.gang_hours:.1f}",
            f"{row.utilisation:.0%}",
            f"{row.wait_mean_s:.0f}",
            f"{row.wait_p95_s:.0f}",
            f"{row.missed} of {row.due}",
            row.changes,
            row.most_gangs,
            row.busy_victims,
            f"{row.cut_gang_s:.0f}",
        )
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    sys.exit(main())
