"""A farm in simulated time: the real scheduler, gangs that only take time, takes that only know what is ready.

Nothing here decides anything. The scheduler's own books are checked against others kept here: a call is with one gang
at once, no cap is exceeded, no gang stands idle beside a call that it could have, and at the end nothing is left.
"""

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TypeVar

from serving.scheduler.cost_model import CostModel, Curve
from serving.scheduler.failures import FailureKind
from serving.scheduler.policy import assign, wake_at
from serving.scheduler.state import CallKey, FarmState, JobSpec, PoolSpec, ReadyCall, TenantSpec
from sharding.chunks import ChunkLimits, plan_chunks

Result = TypeVar("Result")

POOL = "pool"
STEPS = 24
WINDOW = 21
"""Latents of a chunk, as Wan's."""

TRUE_CURVE = Curve(linear_s=1.2, quadratic_s=0.012)
"""What calls take: 30 s for a full chunk. The scheduler is not told; it guesses and learns."""

FIRST_GUESS = Curve(linear_s=2.0)

TICK_S = 0.5
"""Least polling interval, in seconds, of the farm when nothing happens, as the Director's."""

NEW_GANG_S = 60.0
"""Seconds until a gang that had to be replaced is."""

FACTORS = 1 << 12
"""Random factors of the length of calls, drawn in advance: a call's is its own, whatever the order of events."""


@dataclass(frozen=True, eq=False)
class Shape:
    """The calls of a take, numbered step by step, and which wait for which."""

    calls: tuple[tuple[int, int, int, int], ...]
    """(step, chunk, start, latents)"""
    needs: tuple[int, ...]
    """Calls of the step before that must have reported."""
    feeds: tuple[tuple[int, ...], ...]
    """Calls of the next step that wait for it."""
    numbers: Mapping[tuple[int, int], int]
    """From (step, chunk)."""


@cache
def shape_of(latents: int, window: int = WINDOW, steps: int = STEPS) -> Shape:
    """A call waits for every call of the step before that shares a latent with it: see sharding/timeline.py."""
    limits = ChunkLimits(window)
    rows = [plan_chunks(latents, limits, step, steps) for step in range(steps)]
    calls = [(step, k, span.start, len(span)) for step, row in enumerate(rows) for k, span in enumerate(row)]
    first = [sum(map(len, rows[:step])) for step in range(steps)]
    needs = [0] * len(calls)
    feeds: list[list[int]] = [[] for _ in calls]
    for step in range(1, steps):
        for k, span in enumerate(rows[step]):
            for j, before in enumerate(rows[step - 1]):
                if before.start < span.stop and span.start < before.stop:
                    needs[first[step] + k] += 1
                    feeds[first[step - 1] + j].append(first[step] + k)
    numbers = {call[:2]: number for number, call in enumerate(calls)}
    return Shape(tuple(calls), tuple(needs), tuple(map(tuple, feeds)), numbers)


class Take:
    """Which calls of a take are ready, as its timeline would say, and the length of its longest path so far."""

    def __init__(self, job: "Job", index: int, shape: Shape) -> None:
        self.job, self.index, self.shape = job, index, shape
        self.key = f"take-{index:03d}"
        self.open = {number for number, needs in enumerate(shape.needs) if not needs}
        """Ready or with a gang."""
        self._needs = list(shape.needs)
        self._path_s = [0.0] * len(shape.calls)
        self.path_s = 0.0
        self.left = len(shape.calls)

    def ready_call(self, number: int) -> ReadyCall:
        step, chunk, start, latents = self.shape.calls[number]
        key = CallKey(self.job.spec.id, self.key, step, chunk)
        return ReadyCall(key, latents, 1, start, STEPS - step, take_index=self.index)

    def finish(self, number: int, seconds: float) -> list[int]:
        """Calls that became ready through this one."""
        self.open.remove(number)
        self.left -= 1
        path_s = self._path_s[number] + seconds
        self.path_s = max(self.path_s, path_s)
        ready = []
        for later in self.shape.feeds[number]:
            self._path_s[later] = max(self._path_s[later], path_s)
            self._needs[later] -= 1
            if not self._needs[later]:
                ready.append(later)
        self.open.update(ready)
        if not self.left:
            self._needs, self._path_s = [], []
        return ready


class Job:
    """A job of a trace."""

    def __init__(self, spec: JobSpec, latents: Iterable[int], seed: int) -> None:
        self.spec = spec
        self.seed = seed
        self.takes = [Take(self, index, shape_of(n)) for index, n in enumerate(latents)]
        self.left = sum(take.left for take in self.takes)
        self.by_key = {take.key: take for take in self.takes}
        self.finished_at: float | None = None
        self.held = self.dropped = False


@dataclass(eq=False)
class Gang:
    """A gang works at its calls one after the other."""

    name: str
    speed: float
    calls: list[CallKey] = field(default_factory=list)
    alive: bool = True
    draining: bool = False


@dataclass
class Totals:
    """What a run came to."""

    placements: int = 0
    events: int = 0
    core_s: float = 0.0
    """Seconds of one core inside state and policy."""
    work_s: float = 0.0
    """Gang-seconds of calls that counted."""
    lost_calls: int = 0
    """Calls that were done twice or in part, because gangs or hosts were lost."""
    ended_at: float = 0.0
    full_checks: int = 0


class Simulation:
    """Runs jobs on gangs. `at` puts events into its time; `run` lets it pass until nothing is left to happen."""

    def __init__(self, *, seed: int, slots: int = 2, spread: float = 0.1, check_every: int = 20_000) -> None:
        self.state = FarmState(CostModel({"cost": FIRST_GUESS}))
        self.state.put_pool(PoolSpec(POOL, slots))
        self.now = 0.0
        self.jobs: dict[str, Job] = {}
        self.gangs: dict[str, Gang] = {}
        self.totals = Totals()
        self.on_placed: Callable[[Job, float], None] = lambda job, expected_s: None
        """Called for every call placed, with what it is expected to take."""
        self.raises_every = 0
        """One call in so many fails."""
        self._rng = random.Random(seed)
        self._factors = [self._rng.lognormvariate(0, spread) for _ in range(FACTORS)]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._running: dict[CallKey, Gang] = {}
        self._by_tenant: Counter[str] = Counter()
        self._by_job: Counter[str] = Counter()
        self._check_every = check_every
        self._slots = slots
        self._caps: dict[str, int] = {}

    # ------------------------------------------------------------------------------------------------ what happens

    def at(self, when: float, event: Callable[[], None]) -> None:
        """Let something happen at a time."""
        self._sequence += 1
        heapq.heappush(self._events, (when, self._sequence, event))

    def add_tenant(self, spec: TenantSpec) -> None:
        self.state.put_tenant(spec)
        if spec.max_calls is not None:
            self._caps[spec.name] = spec.max_calls

    def add_gang(self) -> str:
        """A gang joins; returns its name."""
        gang = Gang(f"gang-{len(self.gangs):05d}", self._rng.uniform(0.95, 1.05))
        self.gangs[gang.name] = gang
        self._timed(lambda: self.state.gang_joined(gang.name, POOL))
        return gang.name

    def drain_gang(self, name: str) -> None:
        """It was told that it must go soon."""
        self.gangs[name].draining = True
        self._timed(lambda: self.state.gang_draining(name))

    def lose_gang(self, name: str, *, died: bool) -> None:
        """It goes, with what it was working on."""
        gang = self.gangs[name]
        if not gang.alive:
            return
        gang.alive = False
        if died and gang.calls and self._running.get(gang.calls[0]) is gang:
            self._fail(gang.calls[0], gang, "gang_died")
        held = [key for key in gang.calls if self._running.get(key) is gang]
        given_back = self._timed(lambda: self.state.gang_left(name, self.now))
        assert sorted(given_back) == sorted(held), f"{name} had {held}, and {given_back} were given back"
        for key in held:
            self._forget_flight(key)
        self.totals.lost_calls += len(gang.calls[:1])

    def submit(self, job: Job) -> None:
        """A job arrives."""
        self.jobs[job.spec.id] = job
        ready = [take.ready_call(number) for take in job.takes for number in take.open]

        def tell() -> None:
            self.state.put_job(job.spec)
            self.state.calls_ready(job.spec.id, ready, self.now)

        self._timed(tell)

    def hold(self, job: Job, *, held: bool) -> None:
        """Its owner pauses it, or lets it go on."""
        if not job.left or job.dropped:
            return
        job.held = held
        change = self.state.hold_job if held else lambda job_id, why: self.state.free_job(job_id)
        self._timed(lambda: change(job.spec.id, "paused by its owner"))

    def raise_priority(self, job: Job, priority: int) -> None:
        """Its owner wants it earlier."""
        if job.left and not job.dropped:
            job.spec = replace(job.spec, priority=priority, work_s=self.state.jobs[job.spec.id].work_s)
            self._timed(lambda: self.state.put_job(job.spec))

    def cancel(self, job: Job) -> None:
        """Its owner does not want it any more."""
        if job.left and not job.dropped:
            self._drop(job)

    def lose_host(self, job: Job) -> None:
        """The timelines of a job's takes are lost, and at once restored from checkpoints that hold everything."""
        if not job.left or job.dropped:
            return
        for key in [key for key in self._running if key.job_id == job.spec.id]:
            self._forget_flight(key)
            self.totals.lost_calls += 1
        ready = [take.ready_call(number) for take in job.takes for number in take.open]

        def tell() -> None:
            for take in job.takes:
                self.state.forget_take(job.spec.id, take.key)
            self.state.calls_ready(job.spec.id, ready, self.now)

        self._timed(tell)

    # ------------------------------------------------------------------------------------------------ time

    def run(self) -> Totals:
        """Until nothing happens any more. Raises AssertionError if the scheduler breaks a promise."""
        self._place()
        while True:
            wake = wake_at(self.state, self.now)
            wake = None if wake is None else max(wake, self.now + TICK_S)
            soonest = self._events[0][0] if self._events else None
            if soonest is None and (wake is None or not self._waits()):
                break
            self.now = min(when for when in (wake, soonest) if when is not None)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
                self.totals.events += 1
            self._place()
        self._check_end()
        return self.totals

    def _place(self) -> None:
        placed = self._timed(lambda: assign(self.state, self.now))
        for one in placed:
            gang, job = self.gangs[one.gang], self.jobs[one.call.job_id]
            assert one.call not in self._running, f"{one.call} is with two gangs"
            assert gang.alive, f"{gang.name} is gone and was given a call"
            assert not gang.draining, f"{gang.name} drains and was given a call"
            assert not job.held, f"job {job.spec.id} is held and was given a gang"
            assert not job.dropped, f"job {job.spec.id} is dropped and was given a gang"
            self._running[one.call] = gang
            self._by_job[job.spec.id] += 1
            self._by_tenant[job.spec.tenant] += 1
            assert job.spec.max_calls is None or self._by_job[job.spec.id] <= job.spec.max_calls
            assert self._by_tenant[job.spec.tenant] <= self._caps.get(job.spec.tenant, 1 << 30)
            gang.calls.append(one.call)
            assert sum(self._running.get(key) is gang for key in gang.calls) <= self._slots
            if len(gang.calls) == 1:
                self._begin(gang)
            self.on_placed(job, one.expected_s)
        self.totals.placements += len(placed)
        self._check_idle()
        if self.totals.placements // self._check_every > self.totals.full_checks:
            self.totals.full_checks += 1
            self.state.check_invariants()

    def _begin(self, gang: Gang) -> None:
        """The gang begins with the first of its calls."""
        key = gang.calls[0]
        job = self.jobs[key.job_id]
        take = job.by_key[key.take_key]
        number = take.shape.numbers[key.step, key.chunk]
        factor = self._factors[(job.seed + 977 * take.index + number) % FACTORS]
        seconds = TRUE_CURVE.seconds(take.shape.calls[number][3]) * factor * gang.speed
        self.at(self.now + seconds, lambda: self._end(gang, key, take, number, seconds))

    def _end(self, gang: Gang, key: CallKey, take: Take, number: int, seconds: float) -> None:
        if not gang.alive:
            return
        del gang.calls[0]
        if gang.calls:
            self._begin(gang)
        job = take.job
        if self._running.get(key) is not gang:  # nobody waits for it
            known = self._timed(lambda: self.state.call_finished(key, gang.name, seconds))
            assert not known
            return
        if self.raises_every and not self._rng.randrange(self.raises_every):
            self._fail(key, gang, "call_raised")
            return
        self._forget_flight(key)
        self.totals.work_s += seconds
        ready = [take.ready_call(later) for later in take.finish(number, seconds)]

        def tell() -> None:
            assert self.state.call_finished(key, gang.name, seconds)
            if ready:
                self.state.calls_ready(job.spec.id, ready, self.now)

        self._timed(tell)
        job.left -= 1
        if not job.left:
            job.finished_at = self.totals.ended_at = self.now
            self._drop(job)

    def _fail(self, key: CallKey, gang: Gang, kind: FailureKind) -> None:
        self._forget_flight(key)
        verdict = self._timed(lambda: self.state.call_failed(key, gang.name, kind, "simulated", self.now))
        assert verdict is not None
        assert verdict.retry_at is not None, f"a job was failed by chance: {verdict}"
        if verdict.replace_gang:
            gang.draining = True
            self.at(self.now, lambda: self.lose_gang(gang.name, died=False))
            if kind != "gang_died":
                self.at(self.now + NEW_GANG_S, lambda: (self.add_gang(), None)[1])

    def _drop(self, job: Job) -> None:
        job.dropped = True
        if job.left:
            for key in [key for key in self._running if key.job_id == job.spec.id]:
                self._forget_flight(key)
        self._timed(lambda: self.state.drop_job(job.spec.id))

    def _forget_flight(self, key: CallKey) -> None:
        del self._running[key]
        self._by_job[key.job_id] -= 1
        self._by_tenant[self.jobs[key.job_id].spec.tenant] -= 1

    # ------------------------------------------------------------------------------------------------ checks

    def _check_idle(self) -> None:
        """No gang is idle while a call could run on it; a call that failed may wait for another gang."""
        pool = self.state.pools[POOL]
        if len(pool.idle) and len(pool.open_classes):
            waiting = [call for job in pool.jobs.values() if not job.held for call in job.by_film]
            assert any(call.avoid for call in waiting), f"{len(pool.idle)} gangs are idle beside {len(waiting)} calls"

    def _check_end(self) -> None:
        self.state.check_invariants()
        assert all(job.dropped for job in self.jobs.values()), "a job was never finished"
        assert not self._running
        assert not self.state.jobs
        assert not self.state.calls
        assert not any(tenant.in_flight for tenant in self.state.tenants.values())
        assert not any(self._by_job.values())

    def _waits(self) -> bool:
        return any(not job.held for job in self.state.jobs.values())

    def _timed(self, act: Callable[[], Result]) -> Result:
        started = time.process_time()
        try:
            return act()
        finally:
            self.totals.core_s += time.process_time() - started
