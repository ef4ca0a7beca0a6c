"""A day of jobs for autoscale_replay.py, drawn from a seed, written to and read from a CSV file.

Office hours with two peaks, a batch before dawn that is due in the morning, and a few films that are very long. It is
made up: no farm was recorded. Whoever has a log of a real one writes it in the same columns and replays that.

    python -m simulation.day --seed 1 > benchmarks/data/autoscale_day.csv
"""

import argparse
import csv
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TextIO

from simulation.jobs import path_s

HOUR_S = 3600.0

JOBS_BY_HOUR = (1, 0, 0, 0, 0, 0, 1, 3, 8, 16, 18, 14, 7, 10, 17, 18, 14, 9, 5, 4, 3, 2, 2, 1)
"""People's jobs that arrive on average in each hour of the day."""

BATCH_AT_S, BATCH_JOBS, BATCH_DUE_S = 1.5 * HOUR_S, 16, 7.0 * HOUR_S
LONG_FILMS = 3

DUE_SHARE = 0.7
"""Of people's jobs, those with a due time: between a quarter and one and a half hours more than twice their path."""


@dataclass(frozen=True)
class DayJob:
    """A job of the day. Seconds are seconds after midnight."""

    arrives_at_s: float
    priority: int
    due_at_s: float | None
    latents: tuple[int, ...]
    """Of its takes."""


def draw_day(seed: int, due_share: float = DUE_SHARE) -> list[DayJob]:
    """Jobs by arrival; the same for the same seed."""
    rng = random.Random(seed)
    return sorted((*_people(rng, due_share), *_batch(rng), *_long_films(rng)), key=lambda job: job.arrives_at_s)


def _people(rng: random.Random, due_share: float) -> Iterator[DayJob]:
    for hour, jobs in enumerate(JOBS_BY_HOUR):
        arrives_at_s = hour * HOUR_S
        while jobs and (arrives_at_s := arrives_at_s + rng.expovariate(jobs / HOUR_S)) < (hour + 1) * HOUR_S:
            latents = tuple(_take(rng) for _ in range(min(8, 1 + int(rng.expovariate(1 / 1.5)))))
            due_in_s = 2 * path_s(list(latents)) + rng.uniform(0.25, 1.5) * HOUR_S
            due_at_s = arrives_at_s + due_in_s if rng.random() < due_share else None
            yield DayJob(arrives_at_s, 50, due_at_s, latents)


def _batch(rng: random.Random) -> Iterator[DayJob]:
    """What is left to the night, all at once."""
    for _ in range(BATCH_JOBS):
        takes = rng.randint(3, 6)
        yield DayJob(BATCH_AT_S + rng.uniform(0, 60), 20, BATCH_DUE_S, tuple(_take(rng) for _ in range(takes)))


def _long_films(rng: random.Random) -> Iterator[DayJob]:
    """Minutes of film each; every second one is wanted on the same day."""
    for index in range(LONG_FILMS):
        arrives_at_s = rng.uniform(8, 15) * HOUR_S
        latents = tuple(rng.randint(120, 400) for _ in range(rng.randint(4, 7)))
        yield DayJob(arrives_at_s, 50, arrives_at_s + 5 * HOUR_S if index % 2 else None, latents)


def _take(rng: random.Random) -> int:
    """Of 100 takes 60 are one chunk, 30 up to 20 s of film, 9 up to a minute, 1 up to two."""
    low, high = rng.choices([(5, 21), (22, 80), (81, 240), (241, 480)], weights=[60, 30, 9, 1])[0]
    return rng.randint(low, high)


COLUMNS = ("arrives_at_s", "priority", "due_at_s", "latents")


def write_day(jobs: Iterable[DayJob], file: TextIO) -> None:
    """One job a line; an empty due time is none; latents of takes are separated by blanks."""
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(COLUMNS)
    for job in jobs:
        due = "" if job.due_at_s is None else f"{job.due_at_s:.0f}"
        lines.writerow((f"{job.arrives_at_s:.0f}", job.priority, due, " ".join(map(str, job.latents))))


def read_day(file: TextIO) -> list[DayJob]:
    """Raises ValueError that names the line which is wrong."""
    jobs = []
    for number, line in enumerate(csv.DictReader(file), start=2):
        try:
            due = float(line["due_at_s"]) if line["due_at_s"] else None
            latents = tuple(map(int, line["latents"].split()))
            jobs.append(DayJob(float(line["arrives_at_s"]), int(line["priority"]), due, latents))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number}: {line} is not a job with the columns {', '.join(COLUMNS)}") from error
    return sorted(jobs, key=lambda job: job.arrives_at_s)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    write_day(draw_day(parser.parse_args().seed), sys.stdout)
