"""How good is the schedule, and how fast is it made? The real policy on two farms in simulated time, on one core.

Drain: 6,000 takes of mixed length, all there at the start, on 1,200 gangs. Day: 10,000 jobs over a day on 1,000 gangs,
with tenants, priorities, due times, caps, pauses, cancellations, lost gangs and hosts; and once more first come, first
served. The farm is simulation/farm.py, the generator of jobs simulation/jobs.py. Correctness fails the run; a goal that
is missed is only reported.

    python -m benchmarks.farm_replay [--seed 1] [--small] [--only drain|day]
"""

import argparse
import math
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from serving.scheduler.state import JobSpec, TenantSpec
from simulation.farm import POOL, TRUE_CURVE, Job, Simulation, Totals
from simulation.jobs import draw_latents, new_spec, path_s, work_s

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@dataclass(frozen=True)
class Size:
    """How much of it."""

    drain_gangs: int = 1200
    drain_takes: int = 6000
    day_gangs: int = 1000
    day_jobs: int = 10_000
    day_s: float = DAY_S


FULL = Size()
SMALL = Size(drain_gangs=40, drain_takes=200, day_gangs=20, day_jobs=200)
"""A whole day too: due times are some hours ahead, so a shorter one would be over before they pressed."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="a few seconds instead of minutes")
    parser.add_argument("--only", choices=("drain", "day"))
    options = parser.parse_args(arguments)
    size = SMALL if options.small else FULL
    if options.only != "day":
        print_drain(size, drain(size, options.seed))
    if options.only != "drain":
        print_day(size, *day(size, options.seed))
    return 0


# ---------------------------------------------------------------------------------------------------- drain


@dataclass(frozen=True)
class Drained:
    """What the drain came to."""

    totals: Totals
    path_s: float
    fair_error: float
    """Largest relative error of a tenant's share of the service while every tenant had work waiting."""
    seconds: float


def drain(size: Size, seed: int) -> Drained:
    """All takes there at once, in jobs of 1 to 40 takes, of six tenants with weights 1 to 3 and as much work each."""
    rng = random.Random(seed)
    simulation = Simulation(seed=seed)
    weights = {f"tenant-{index}": weight for index, weight in enumerate((1.0, 1.0, 1.0, 2.0, 2.0, 3.0))}
    for name, weight in weights.items():
        simulation.add_tenant(TenantSpec(name, weight))
    for _ in range(size.drain_gangs):
        simulation.add_gang()
    served: dict[str, float] = defaultdict(float)
    calls: Counter[str] = Counter()
    frozen: dict[str, float] = {}

    def placed(job: Job, expected_s: float) -> None:
        served[job.spec.tenant] += expected_s
        if not frozen and len(simulation.state.pools[POOL].classes[50].in_turn) < len(weights):
            frozen.update(served)

    simulation.on_placed = placed
    jobs: list[Job] = []
    left = size.drain_takes
    while left:
        count = min(left, rng.randint(1, 40))
        left -= count
        latents = [draw_latents(rng) for _ in range(count)]
        tenant = min(weights, key=lambda name: (calls[name], name))
        job = Job(new_spec(f"job-{len(jobs):05d}", tenant, latents, created_at=len(jobs) * 1e-3), latents, len(jobs))
        calls[tenant] += job.left
        jobs.append(job)
    for job in jobs:
        simulation.submit(job)
    started = time.perf_counter()
    totals = simulation.run()
    longest = max(take.path_s for job in jobs for take in job.takes)
    return Drained(totals, longest, fair_error(frozen, weights), time.perf_counter() - started)


def fair_error(served: dict[str, float], weights: dict[str, float]) -> float:
    """Largest relative error of anyone's share of what was served."""
    total, weight = sum(served.values()), sum(weights[name] for name in served)
    return max(abs(served[name] / total / (weights[name] / weight) - 1) for name in served)


def print_drain(size: Size, drained: Drained) -> None:
    totals = drained.totals
    bound = max(drained.path_s, totals.work_s / size.drain_gangs)
    print(f"drain: {size.drain_takes} takes on {size.drain_gangs} gangs, {totals.placements} calls")
    report("placements per second", totals.placements / totals.core_s, at_least=2000)
    report("makespan over max(path, work / gangs)", totals.ended_at / bound, at_most=1.05)
    report("fair-share error", drained.fair_error, at_most=0.05)
    print(
        f"  path {drained.path_s / bound:.3f} of the bound; {totals.full_checks} full checks; {drained.seconds:.0f} s\n"
    )


# ---------------------------------------------------------------------------------------------------- a day


@dataclass(frozen=True)
class Day:
    """What a day came to."""

    totals: Totals
    due: Counter[int]
    """Jobs with a due time that were done, by the priority that they arrived with."""
    missed: Counter[int]
    """Of those the late ones."""
    hopeless: int
    """Of the missed those that had too little room: see Room. 0 if that is not watched."""
    other_s: float
    """Mean seconds from arrival to end of jobs without a due time."""
    fair_error: float | None
    """None if no two tenants ever had calls waiting for half an hour."""
    seconds: float


@dataclass(frozen=True)
class Trace:
    """What happens on a day, whatever the policy."""

    jobs: tuple[tuple[JobSpec, tuple[int, ...]], ...]
    """With the latents of their takes, by arrival."""
    tenants: tuple[TenantSpec, ...]
    gang_losses: tuple[tuple[float, float, str], ...]
    """(when, number in 0..1 that picks the gang, how)"""
    incidents: tuple[tuple[float, str, str], ...]
    """(when, what, job): hold, free, cancel, raise, lose_host"""


def new_trace(size: Size, seed: int) -> Trace:
    rng = random.Random(seed)
    return Trace(
        jobs=tuple(_draw_jobs(rng, size)),
        tenants=tuple(
            TenantSpec(name, weight=1.0 + (index % 3 == 0), max_calls=size.day_gangs // 3 if index in (2, 3) else None)
            for index, name in enumerate(TENANTS)
        ),
        gang_losses=tuple(_draw_gang_losses(rng, size)),
        incidents=tuple(_draw_incidents(rng, size)),
    )


TENANTS = tuple(f"tenant-{index:02d}" for index in range(20))
"""The first brings most, the last least; every second one never gives a due time."""

PRIORITIES = (80, 50, 20)

GANG_LIFE_S = 12 * HOUR_S
"""Mean time until a gang's node is taken away."""


def _draw_jobs(rng: random.Random, size: Size) -> Iterator[tuple[JobSpec, tuple[int, ...]]]:
    arrivals = sorted(_draw_arrival(rng, size.day_s) for _ in range(size.day_jobs))
    for index, created_at in enumerate(arrivals):
        tenant = rng.choices(range(len(TENANTS)), weights=[1 / (rank + 2) for rank in range(len(TENANTS))])[0]
        latents = [draw_latents(rng) for _ in range(min(40, 1 + int(rng.expovariate(1 / 2.3))))]
        max_calls = rng.randint(4, 32) if rng.random() < 0.05 else None
        least_s = max(path_s(latents), work_s(latents) / (max_calls or size.day_gangs))
        in_hours = rng.expovariate(1 / 1.5)
        due = tenant % 2 == 0 and rng.random() < 0.6
        spec = replace(
            new_spec(f"job-{index:05d}", TENANTS[tenant], latents, created_at),
            priority=rng.choices(PRIORITIES, weights=(5, 85, 10))[0],
            due_at=created_at + 1.5 * least_s + in_hours * HOUR_S if due else None,
            max_calls=max_calls,
        )
        yield spec, tuple(latents)


def _draw_arrival(rng: random.Random, day_s: float) -> float:
    """Most come in the afternoon: 1.6 times the mean at 15 h, 0.4 times at 3 h."""
    while True:
        when = rng.random()
        if rng.random() * 1.6 <= 1 + 0.6 * math.sin(2 * math.pi * (when - 9 / 24)):
            return when * day_s


def _draw_gang_losses(rng: random.Random, size: Size) -> Iterator[tuple[float, float, str]]:
    """Single gangs, most of them with a notice, and four times an eighth of the farm at once."""
    when = 0.0
    while (when := when + rng.expovariate(size.day_gangs / GANG_LIFE_S)) < size.day_s:
        yield when, rng.random(), "notice" if rng.random() < 0.7 else "died"
    for _ in range(4):
        when = rng.uniform(0, size.day_s)
        for _ in range(size.day_gangs // 8):
            yield when, rng.random(), "notice"


def _draw_incidents(rng: random.Random, size: Size) -> Iterator[tuple[float, str, str]]:
    for index in range(size.day_jobs):
        name, when = f"job-{index:05d}", rng.uniform(0, size.day_s)
        what = rng.choices((None, "hold", "cancel", "raise", "lose_host"), weights=(94, 2, 2, 1, 1))[0]
        if what is not None:
            yield when, what, name
        if what == "hold":
            yield when + HOUR_S, "free", name


def day(size: Size, seed: int) -> tuple[Day, Day]:
    """The day under the policy, and the same day first come, first served."""
    trace = new_trace(size, seed)
    return play(size, trace, seed, first_come=False), play(size, trace, seed, first_come=True)


def play(size: Size, trace: Trace, seed: int, *, first_come: bool) -> Day:
    simulation = Simulation(seed=seed)
    simulation.raises_every = 10_000
    for tenant in trace.tenants:
        simulation.add_tenant(TenantSpec(tenant.name) if first_come else tenant)
    for _ in range(size.day_gangs):
        simulation.add_gang()
    for spec, latents in trace.jobs:
        own = replace(spec, tenant=TENANTS[0], priority=50, due_at=None) if first_come else spec
        simulation.at(spec.created_at, _submitting(simulation, own, latents))
    for when, pick, how in trace.gang_losses:
        simulation.at(when, _losing(simulation, pick, how))
    fairness = None if first_come else Fairness(simulation, trace)
    room = None if first_come else Room(simulation, trace)
    for when, what, name in trace.incidents:
        simulation.at(when, _incident(simulation, what, name, first_come=first_come))
    started = time.perf_counter()
    totals = simulation.run()
    ended = {name: job.finished_at for name, job in simulation.jobs.items() if job.finished_at is not None}
    due = [(spec, spec.due_at) for spec, _ in trace.jobs if spec.due_at is not None and spec.id in ended]
    missed = [(spec, due_at) for spec, due_at in due if ended[spec.id] > due_at]
    other = [ended[spec.id] - spec.created_at for spec, _ in trace.jobs if spec.due_at is None and spec.id in ended]
    return Day(
        totals=totals,
        due=Counter(spec.priority for spec, _ in due),
        missed=Counter(spec.priority for spec, _ in missed),
        hopeless=sum(room.lacked(spec, due_at) for spec, due_at in missed) if room is not None else 0,
        other_s=sum(other) / len(other),
        fair_error=fairness.error() if fairness is not None else None,
        seconds=time.perf_counter() - started,
    )


def _submitting(simulation: Simulation, spec: JobSpec, latents: tuple[int, ...]) -> Callable[[], None]:
    return lambda: simulation.submit(Job(spec, latents, int(spec.id[4:])))


def _losing(simulation: Simulation, pick: float, how: str) -> Callable[[], None]:
    def lose() -> None:
        alive = [gang.name for gang in simulation.gangs.values() if gang.alive and not gang.draining]
        name = alive[int(pick * len(alive))]
        if how == "notice":
            simulation.drain_gang(name)
            simulation.at(simulation.now + 30, lambda: simulation.lose_gang(name, died=False))
        else:
            simulation.lose_gang(name, died=True)
        simulation.at(simulation.now + 180 + 900 * pick, lambda: (simulation.add_gang(), None)[1])

    return lose


def _incident(simulation: Simulation, what: str, name: str, *, first_come: bool) -> Callable[[], None]:
    def happen() -> None:
        job = simulation.jobs.get(name)
        if job is None:
            return
        if what in ("hold", "free"):
            simulation.hold(job, held=what == "hold")
        elif what == "cancel":
            simulation.cancel(job)
        elif what == "raise" and not first_come:
            simulation.raise_priority(job, 80)
        elif what == "lose_host":
            simulation.lose_host(job)

    return happen


class Fairness:
    """Watches what tenants without due times are served, in half hours in which they always have calls waiting."""

    WINDOW_S = 1800.0
    SAMPLE_S = 30.0

    def __init__(self, simulation: Simulation, trace: Trace) -> None:
        self._simulation = simulation
        self._weights = {tenant.name: tenant.weight for tenant in trace.tenants[1::2]}
        self._served: dict[str, float] = defaultdict(float)
        self._always: set[str] = set()
        self._errors: list[float] = []
        simulation.on_placed = self._placed
        last = max(spec.created_at for spec, _ in trace.jobs)
        for index in range(int(last / self.SAMPLE_S)):
            simulation.at(index * self.SAMPLE_S, self._sample)

    def error(self) -> float | None:
        """Mean over the half hours of the largest relative error of a tenant's share."""
        return sum(self._errors) / len(self._errors) if self._errors else None

    def _placed(self, job: Job, expected_s: float) -> None:
        if job.spec.priority == 50:
            self._served[job.spec.tenant] += expected_s

    def _sample(self) -> None:
        of = self._simulation.state.pools[POOL].classes.get(50)
        waiting = {share.tenant.spec.name for share in of.in_turn} if of is not None else set()
        self._always &= waiting
        if self._simulation.now % self.WINDOW_S == 0:
            tenants = self._always & self._weights.keys()
            if len(tenants) > 1:
                self._errors.append(fair_error({name: self._served[name] for name in sorted(tenants)}, self._weights))
            self._served.clear()
            self._always = waiting


class Room:
    """Watches what higher priorities leave to lower ones: gangs without a call of a higher priority, every 30 s.

    A job to which in all of its time less was left than its work on the fastest gangs could be saved by nobody who puts
    higher priorities first, even had it been alone in its own.
    """

    SAMPLE_S = 30.0
    FASTEST = 0.95
    """Seconds of the fastest gang over the mean."""

    def __init__(self, simulation: Simulation, trace: Trace) -> None:
        self._simulation = simulation
        self._last = trace.jobs[-1][0].created_at
        self._sums: dict[int, list[float]] = {priority: [0.0] for priority in PRIORITIES}
        """Gang-seconds left to a priority, from the start to every sample."""
        simulation.at(0.0, self._sample)

    def lacked(self, spec: JobSpec, due_at: float) -> bool:
        """Whether a job had less room between its arrival and its due time than its work."""
        job = self._simulation.jobs[spec.id]
        sums = self._sums[job.spec.priority]  # the priority that it was raised to, for all of its time
        first, last = int(spec.created_at / self.SAMPLE_S), min(len(sums) - 1, math.ceil(due_at / self.SAMPLE_S))
        work_s = sum(TRUE_CURVE.seconds(latents) for take in job.takes for _, _, _, latents in take.shape.calls)
        return sums[last] - sums[first] < self.FASTEST * work_s

    def _sample(self) -> None:
        simulation = self._simulation
        free, busy = 0, Counter[int]()
        for gang in simulation.gangs.values():
            if gang.calls and gang.alive:
                busy[simulation.jobs[gang.calls[0].job_id].spec.priority] += 1
            elif gang.alive and not gang.draining:
                free += 1
        for priority, sums in self._sums.items():
            left = free + sum(num for other, num in busy.items() if other <= priority)
            sums.append(sums[-1] + self.SAMPLE_S * left)
        if simulation.state.jobs or simulation.now < self._last:
            simulation.at(simulation.now + self.SAMPLE_S, self._sample)


def print_day(size: Size, ours: Day, first_come: Day) -> None:
    hours = size.day_s / HOUR_S
    print(f"day: {size.day_jobs} jobs in {hours:g} h on {size.day_gangs} gangs, {ours.totals.placements} calls")
    report("placements per second", ours.totals.placements / ours.totals.core_s, at_least=2000)
    missed, others = ours.missed.total(), first_come.missed.total()
    report("due times missed over first come", missed / max(1, others), at_most=1 / 3)
    report("fair-share error", ours.fair_error, at_most=0.05)
    print(f"  missed {missed} of {ours.due.total()} due times; first come, first served {others}")
    for priority in PRIORITIES:
        print(
            f"    priority {priority}: {ours.missed[priority]} of {ours.due[priority]}; "
            f"first come {first_come.missed[priority]}"
        )
    print(f"    for {ours.hopeless} of the {missed} higher priorities left too few gangs, whoever had had them")
    print(
        f"  gangs were busy {ours.totals.work_s / (size.day_gangs * ours.totals.ended_at):.0%} of the time on average"
    )
    print(
        f"  jobs without one took {ours.other_s / 60:.0f} min on average; first come {first_come.other_s / 60:.0f} min"
    )
    print(f"  {ours.totals.lost_calls} calls lost with gangs and hosts; {ours.totals.full_checks} full checks")
    print(f"  {ours.seconds:.0f} s and {first_come.seconds:.0f} s\n")


def report(name: str, value: float | None, *, at_least: float | None = None, at_most: float | None = None) -> None:
    if value is None:
        print(f"  {name:40} not measured: too small for it")
        return
    goal = f">= {at_least:g}" if at_least is not None else f"<= {at_most:.3g}"
    good = value >= at_least if at_least is not None else at_most is not None and value <= at_most
    print(f"  {name:40} {value:10.3f}   goal {goal:8} {'reached' if good else 'MISSED'}")


if __name__ == "__main__":
    sys.exit(main())
