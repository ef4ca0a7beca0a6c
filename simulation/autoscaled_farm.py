"""A farm in simulated time whose gangs come and go as somebody chooses: for autoscale_replay.py.

The scheduler is the real one (farm.py), and so is the demand that it measures. Gangs only take time to come,
and finish their calls before they go.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cluster.contract.planner import PlannerMemory, ScalingTargets, plan_gangs
from cluster.contract.pools_and_nodes import PoolDemand, PoolSupply, PoolTerms
from serving.scheduler.due_times import gangs_for
from serving.scheduler.state import CallKey
from simulation.day import DayJob
from simulation.farm import POOL, Gang, Job, Simulation, Take
from simulation.jobs import new_spec

DAY_S = 86_400.0

LOOK_S = 10.0
"""Seconds between two decisions, of all rivals."""

COLD_START_S = 300.0
"""From asking for a gang until it takes calls, on average: a machine, an image, weights. Drawn from 0.8 to 1.3 times
this."""

NODE_IDLE_S = 60.0
"""Seconds that a machine is paid for after its gang has gone: the node autoscaler waits as well."""

MAX_GANGS = 40


class Scaler(Protocol):
    """Chooses how many gangs there should be."""

    def __call__(self, demand: PoolDemand, supply: PoolSupply, now: float) -> int: ...


class Planner:
    """The real one."""

    def __init__(self, targets: ScalingTargets) -> None:
        self._targets = targets
        self._memory = PlannerMemory()
        self._terms = PoolTerms(max_gangs=MAX_GANGS)

    def __call__(self, demand: PoolDemand, supply: PoolSupply, now: float) -> int:
        decision, self._memory = plan_gangs(
            terms=self._terms, demand=demand, supply=supply, targets=self._targets, memory=self._memory, now=now
        )
        return decision.gangs


@dataclass
class QueueLength:
    """A gang for every so many calls, and the highest answer of a while: KEDA's trigger and an HPA's stabilization."""

    calls_per_gang: float
    counts_running: bool
    """Whether calls that gangs have count like those that wait."""
    window_s: float = 300.0

    def __post_init__(self) -> None:
        self._answers: list[tuple[float, int]] = []

    def __call__(self, demand: PoolDemand, supply: PoolSupply, now: float) -> int:
        calls = demand.calls_ready + (demand.calls_running if self.counts_running else 0)
        answer = min(MAX_GANGS, math.ceil(calls / self.calls_per_gang))
        self._answers = [(when, one) for when, one in self._answers if when >= now - self.window_s and one > answer]
        self._answers.append((now, answer))
        return self._answers[0][1]


class AutoscaledFarm(Simulation):
    """Gangs come after a cold start, and finish their calls before they go. It is asked every ten seconds.

    Of gangs that must go those that are not there yet go first, then the newest, whether they have calls or not: that
    is how Serve chooses.
    """

    def __init__(self, *, seed: int, scaler: Scaler | None, fixed: int = 0) -> None:
        super().__init__(seed=seed)
        self.gang_s = 0.0
        """Seconds of gangs paid for, from asking until the machine is gone."""
        self.changes = 0
        self.busy_victims = 0
        self.cut_s = 0.0
        """Seconds that victims had worked on calls which they were in the middle of."""
        self.most_gangs = 0
        self._scaler = scaler
        self._starts = random.Random(seed)
        self._asked_at: dict[str, float] = {}
        self._starting: list[tuple[int, float]] = []
        """(number, asked at)"""
        self._asked = 0
        self._target = fixed
        self._started_at: dict[CallKey, float] = {}
        self._last_arrival_s = 0.0
        for _ in range(fixed):
            self._asked_at[self.add_gang()] = 0.0

    def play(self, jobs: Sequence[DayJob]) -> None:
        """The whole day, and on until everything is done."""
        for index, job in enumerate(jobs):
            self.at(job.arrives_at_s, _arriving(self, job, index))
        self._last_arrival_s = max(job.arrives_at_s for job in jobs)
        if self._scaler is not None:
            self.at(0.0, self._look)
        self.run()
        end_s = max(DAY_S, self.now)
        for asked_at in (*self._asked_at.values(), *(asked_at for _, asked_at in self._starting)):
            self.gang_s += end_s - asked_at

    def demand(self) -> PoolDemand:
        """As the Director measures it."""
        told = self.state.load(POOL, self.now)
        required, slack_s = gangs_for(self.state.due_work(POOL), most=MAX_GANGS, now=self.now)
        return PoolDemand(
            measured_at=self.now,
            backlog_gpu_s=told.backlog_gpu_s,
            gpus_per_gang=1,
            calls_ready=told.calls_ready,
            calls_running=told.calls_running,
            oldest_wait_s=told.oldest_wait_s,
            required_gangs=required,
            due_slack_s=slack_s,
        )

    def supply(self) -> PoolSupply:
        return PoolSupply(
            ready=len(self._ready()),
            idle=len(self.state.pools[POOL].idle),
            starting=len(self._starting),
            draining=sum(gang.alive and gang.draining for gang in self.gangs.values()),
            cold_start_s=COLD_START_S,
        )

    # ------------------------------------------------------------------------------------------------ gangs

    def _look(self) -> None:
        assert self._scaler is not None
        target = self._scaler(self.demand(), self.supply(), self.now)
        self.changes += target != self._target
        self._target = target
        ready = self._ready()
        surplus = len(ready) + len(self._starting) - target
        for _ in range(-surplus):
            self._ask()
        for _ in range(min(surplus, len(self._starting))):
            self._pay(self._starting.pop()[1])
            surplus -= 1
        for gang in ready[len(ready) - max(0, surplus) :]:
            self._let_go(gang)
        self.most_gangs = max(self.most_gangs, target)
        if self.now < max(DAY_S, self._last_arrival_s) or self.state.jobs:
            self.at(self.now + LOOK_S, self._look)

    def _ask(self) -> None:
        number, self._asked = self._asked, self._asked + 1
        self._starting.append((number, self.now))
        self.at(self.now + COLD_START_S * self._starts.uniform(0.8, 1.3), lambda: self._arrive(number))

    def _arrive(self, number: int) -> None:
        """It takes calls, unless it was given up meanwhile."""
        for index, (other, asked_at) in enumerate(self._starting):
            if other == number:
                del self._starting[index]
                self._asked_at[self.add_gang()] = asked_at
                return

    def _let_go(self, gang: Gang) -> None:
        self.drain_gang(gang.name)
        if gang.calls:
            self.busy_victims += 1
            self.cut_s += self.now - self._started_at[gang.calls[0]]
        else:
            self._leave(gang)

    def _leave(self, gang: Gang) -> None:
        self.lose_gang(gang.name, died=False)
        self._pay(self._asked_at.pop(gang.name))

    def _pay(self, asked_at: float) -> None:
        self.gang_s += self.now - asked_at + NODE_IDLE_S

    def _ready(self) -> list[Gang]:
        """Oldest first."""
        return [self.gangs[name] for name in self._asked_at if not self.gangs[name].draining]

    def _begin(self, gang: Gang) -> None:
        self._started_at[gang.calls[0]] = self.now
        super()._begin(gang)

    def _end(self, gang: Gang, key: CallKey, take: Take, number: int, seconds: float) -> None:
        super()._end(gang, key, take, number, seconds)
        if gang.alive and gang.draining and not gang.calls:
            self._leave(gang)


def _arriving(farm: AutoscaledFarm, job: DayJob, index: int) -> Callable[[], None]:
    spec = replace(
        new_spec(f"job-{index:05d}", "tenant", list(job.latents), job.arrives_at_s),
        priority=job.priority,
        due_at=job.due_at_s,
    )
    return lambda: farm.submit(Job(spec, job.latents, index))
