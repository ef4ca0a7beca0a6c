"""What the planner promises, whatever it is told: single decisions, and a pool in simulated time that it rules.

The pool is as simple as one can be: gangs come after a cold start, each works at the backlog by the call, and of those
that must go the ones that are not there yet go first, then any, as with Serve.
"""

import math
from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.contract.planner import PlannerMemory, ScalingTargets, plan_gangs
from cluster.contract.pools_and_nodes import MAX_GANGS, PoolDecision, PoolDemand, PoolSupply, PoolTerms

START = 1_000_000.0
LOOK_S = 10.0
CALL_S = 30.0

small = st.integers(0, 40)
anything = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def all_terms(draw: st.DrawFn) -> PoolTerms:
    most = draw(st.integers(1, 60))
    return PoolTerms(
        min_gangs=draw(st.integers(0, min(most, 5))),
        max_gangs=most,
        mode=draw(st.sampled_from(["native", "native", "external"])),
        replicas=draw(st.none() | st.integers(0, MAX_GANGS)),
    )


all_demand = st.builds(
    PoolDemand,
    measured_at=anything | st.just(START),
    backlog_gpu_s=anything | st.floats(0, 50_000),
    gpus_per_gang=st.integers(-1, 8),
    calls_ready=small,
    calls_running=small,
    oldest_wait_s=anything | st.floats(0, 2000),
    required_gangs=anything | st.floats(0, 50),
    due_slack_s=st.none() | anything,
)


@st.composite
def all_supply(draw: st.DrawFn) -> PoolSupply:
    ready = draw(small)
    return PoolSupply(
        ready=ready,
        idle=draw(st.integers(0, ready)),
        starting=draw(small),
        draining=draw(small),
        cold_start_s=draw(anything | st.floats(0, 1000)),
    )


all_targets = st.builds(
    ScalingTargets,
    drain_within_s=st.floats(1, 5000),
    hold_s=st.floats(0, 1000),
    idle_for_s=st.floats(0, 200),
    quota_gangs=st.none() | small,
)


def most_gangs(terms: PoolTerms, targets: ScalingTargets) -> int:
    return terms.max_gangs if targets.quota_gangs is None else min(terms.max_gangs, targets.quota_gangs)


def least_gangs(terms: PoolTerms, targets: ScalingTargets) -> int:
    return min(terms.min_gangs, most_gangs(terms, targets))


@given(
    steps=st.lists(
        st.tuples(st.none() | all_demand, all_supply(), all_terms(), st.floats(-1e5, 1e5)), min_size=1, max_size=12
    ),
    targets=all_targets,
)
def test_whatever_it_is_told_it_answers_inside_the_limits_with_a_reason(
    steps: list[tuple[PoolDemand | None, PoolSupply, PoolTerms, float]], targets: ScalingTargets
) -> None:
    memory, now = PlannerMemory(), START
    for demand, supply, terms, passed_s in steps:
        now += passed_s
        before = memory.gangs
        decision, memory = plan_gangs(
            terms=terms, demand=demand, supply=supply, targets=targets, memory=memory, now=now
        )
        least, most = least_gangs(terms, targets), most_gangs(terms, targets)
        assert least <= decision.gangs <= most
        assert decision.reason.startswith(f"{decision.gangs} gang")
        assert decision.decided_at == now
        assert memory.gangs == decision.gangs
        held = supply.ready + supply.starting if before is None else before
        if terms.mode == "native":  # fewer only by those that have no call
            assert decision.gangs >= min(held, supply.ready - supply.idle, most)
        if demand is None and terms.mode == "native":
            assert decision.gangs == min(max(held, least), most)
        assert len(memory.needed) <= MAX_GANGS + 1
        for peaks in (memory.needed, memory.in_use):
            assert [value for _, value in peaks] == sorted({value for _, value in peaks}, reverse=True)
            assert [when for when, _ in peaks] == sorted(when for when, _ in peaks)


@given(
    terms=all_terms(), supply=all_supply(), targets=all_targets, backlog=st.floats(0, 50_000), due=st.floats(0, 30),
    calls=small, gpus=st.integers(1, 8), memory_gangs=st.none() | small,
)  # fmt: skip
def test_what_is_needed_and_can_work_is_asked_for(
    terms: PoolTerms,
    supply: PoolSupply,
    targets: ScalingTargets,
    backlog: float,
    due: float,
    calls: int,
    gpus: int,
    memory_gangs: int | None,
) -> None:
    assume(terms.mode == "native")
    demand = PoolDemand(
        measured_at=START, backlog_gpu_s=backlog, gpus_per_gang=gpus, calls_ready=calls, calls_running=0,
        oldest_wait_s=0.0, required_gangs=due,
    )  # fmt: skip
    memory = PlannerMemory() if memory_gangs is None else remembered(memory_gangs)
    decision, _ = plan_gangs(terms=terms, demand=demand, supply=supply, targets=targets, memory=memory, now=START)
    drain = backlog / gpus / targets.drain_within_s
    needed = min(max(drain, due), max(1, calls)) if backlog else 0.0
    held = supply.ready + supply.starting if memory_gangs is None else memory_gangs
    assert decision.gangs >= min(needed, most_gangs(terms, targets)) - 1e-6
    # Never more than that, rounded to whole gangs and with the margin of due times, but for what was there before.
    most_wanted = min(math.ceil(max(drain, due * targets.due_margin)), max(1, calls)) if backlog else 0
    assert decision.gangs <= max(most_wanted, least_gangs(terms, targets), min(held, most_gangs(terms, targets)))


def remembered(gangs: int) -> PlannerMemory:
    """Of a planner that decided once."""
    terms = PoolTerms(max_gangs=MAX_GANGS, mode="external", replicas=gangs)
    supply = PoolSupply(ready=0, idle=0, starting=0, draining=0, cold_start_s=0.0)
    return plan_gangs(
        terms=terms, demand=None, supply=supply, targets=ScalingTargets(), memory=PlannerMemory(), now=START
    )[1]


# ---------------------------------------------------------------------------------------------------- a pool


class Gang:
    """Works at a call until some time; None: idle."""

    def __init__(self, ready_at: float) -> None:
        self.ready_at = ready_at
        self.busy_until: float | None = None
        self.draining = False


class Pool:
    """Gangs and a backlog in simulated time, ruled by the planner every ten seconds."""

    def __init__(self, targets: ScalingTargets, cold_start_s: float, terms: PoolTerms) -> None:
        self.targets, self.cold_start_s, self.terms = targets, cold_start_s, terms
        self.now, self.clock_error_s = START, 0.0
        self.waiting_calls = 0
        self.gangs: list[Gang] = []
        self.memory = PlannerMemory()
        self.is_measured = True
        self.decisions: list[tuple[float, int, PoolDecision]] = []
        """(true time, gangs decided before, the decision)"""
        self.asked = 0
        """Gangs that were ever asked for."""

    def supply(self) -> PoolSupply:
        kept = [gang for gang in self.gangs if not gang.draining]
        ready = [gang for gang in kept if gang.ready_at <= self.now]
        return PoolSupply(
            ready=len(ready),
            idle=sum(gang.busy_until is None for gang in ready),
            starting=len(kept) - len(ready),
            draining=len(self.gangs) - len(kept),
            cold_start_s=self.cold_start_s,
        )

    def demand(self) -> PoolDemand:
        running = [gang.busy_until - self.now for gang in self.gangs if gang.busy_until is not None]
        return PoolDemand(
            measured_at=self.now + self.clock_error_s,
            backlog_gpu_s=self.waiting_calls * CALL_S + sum(running),
            gpus_per_gang=1,
            calls_ready=self.waiting_calls,
            calls_running=len(running),
            oldest_wait_s=0.0,
            required_gangs=0.0,
        )

    def look(self) -> PoolDecision:
        before = self.supply().ready + self.supply().starting if self.memory.gangs is None else self.memory.gangs
        decision, self.memory = plan_gangs(
            terms=self.terms,
            demand=self.demand() if self.is_measured else None,
            supply=self.supply(),
            targets=self.targets,
            memory=self.memory,
            now=self.now + self.clock_error_s,
        )
        self.decisions.append((self.now, before, decision))
        self._apply(decision.gangs)
        return decision

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self._work()
            self.look()
            self._work()
            self.now += LOOK_S

    def _work(self) -> None:
        for gang in list(self.gangs):
            if gang.busy_until is not None and gang.busy_until <= self.now:
                gang.busy_until = None
            if gang.draining and gang.busy_until is None:
                self.gangs.remove(gang)
            elif gang.busy_until is None and gang.ready_at <= self.now and self.waiting_calls:
                self.waiting_calls -= 1
                gang.busy_until = self.now + CALL_S

    def _apply(self, target: int) -> None:
        kept = [gang for gang in self.gangs if not gang.draining]
        for _ in range(target - len(kept)):
            self.gangs.append(Gang(self.now + self.cold_start_s))
            self.asked += 1
        for gang in sorted(kept, key=lambda gang: -gang.ready_at)[: max(0, len(kept) - target)]:
            if gang.ready_at > self.now:
                self.gangs.remove(gang)
            else:
                gang.draining = True


@settings(max_examples=40)
@given(
    calls=st.integers(1, 1500),
    cold_start_s=st.sampled_from([0.0, 60.0, 300.0, 900.0]),
    drain_within_s=st.sampled_from([120.0, 600.0, 1200.0]),
)
def test_a_backlog_is_drained_in_time_by_one_change_up_and_goes_to_zero(
    calls: int, cold_start_s: float, drain_within_s: float
) -> None:
    targets = ScalingTargets(drain_within_s=drain_within_s)
    pool = Pool(targets, cold_start_s, PoolTerms(max_gangs=MAX_GANGS))
    pool.waiting_calls = calls
    pool.pass_time(cold_start_s + drain_within_s + CALL_S + 2 * LOOK_S)
    assert pool.waiting_calls == 0
    # What is on its way is never asked for again: one answer, and that many gangs.
    assert pool.asked == min(calls, math.ceil(calls * CALL_S / drain_within_s))
    pool.pass_time(max(targets.hold_s, 1.25 * cold_start_s) + targets.idle_for_s + drain_within_s + CALL_S)
    assert pool.supply() == PoolSupply(ready=0, idle=0, starting=0, draining=0, cold_start_s=cold_start_s)
    gangs = [decision.gangs for _, _, decision in pool.decisions]
    peak = gangs.index(max(gangs))
    assert gangs[peak:] == sorted(gangs[peak:], reverse=True)
    assert pool.asked == max(gangs)


@settings(max_examples=30)
@given(
    base=st.integers(300, 3000),
    noise=st.lists(st.floats(0.8, 1.2), min_size=180, max_size=180),
    cold_start_s=st.sampled_from([60.0, 300.0]),
)
def test_demand_that_trembles_changes_nothing_after_a_while(base: int, noise: list[float], cold_start_s: float) -> None:
    """Half an hour around one value: every change is up, to the highest need seen."""
    targets = ScalingTargets()
    memory, now = PlannerMemory(), START
    decided: list[int] = []
    for factor in noise:
        demand = PoolDemand(
            measured_at=now, backlog_gpu_s=base * 10 * factor, gpus_per_gang=1, calls_ready=5000, calls_running=0,
            oldest_wait_s=0.0, required_gangs=0.0,
        )  # fmt: skip
        gangs = decided[-1] if decided else 0
        supply = PoolSupply(ready=gangs, idle=0, starting=0, draining=0, cold_start_s=cold_start_s)
        decision, memory = plan_gangs(
            terms=PoolTerms(max_gangs=MAX_GANGS), demand=demand, supply=supply, targets=targets, memory=memory, now=now
        )
        decided.append(decision.gangs)
        now += LOOK_S
    assert decided == sorted(decided)
    assert decided[-1] == math.ceil(base * 10 * max(noise) / targets.drain_within_s - 1e-9)


class RuledPool(RuleBasedStateMachine):
    """Work comes, gangs die, clocks jump, measurements fail, limits change; promises are checked after every step."""

    pool: Pool

    @initialize(
        cold_start_s=st.sampled_from([0.0, 60.0, 300.0]),
        hold_s=st.sampled_from([0.0, 120.0, 300.0]),
        ready=st.integers(0, 5),
    )
    def begin(self, cold_start_s: float, hold_s: float, ready: int) -> None:
        targets = ScalingTargets(drain_within_s=300.0, hold_s=hold_s, stale_after_s=30.0)
        self.pool = Pool(targets, cold_start_s, PoolTerms(max_gangs=30))
        self.pool.gangs = [Gang(START) for _ in range(ready)]
        self.checked = 0
        self.limits_changed_at = START
        self.jumps: list[float] = []
        """When the clock jumped: then up to stale_after_s count as watched that never passed."""

    @rule(calls=st.integers(1, 400))
    def work_comes(self, calls: int) -> None:
        self.pool.waiting_calls += calls

    @rule(share=st.floats(0, 1))
    def work_is_cancelled(self, share: float) -> None:
        self.pool.waiting_calls = int(self.pool.waiting_calls * share)

    @rule(seconds=st.integers(1, 60).map(lambda looks: looks * LOOK_S))
    def time_passes(self, seconds: float) -> None:
        self.pool.pass_time(seconds)

    @precondition(lambda self: self.pool.gangs)
    @rule(which=st.floats(0, 0.999))
    def a_gang_dies(self, which: float) -> None:
        gang = self.pool.gangs.pop(int(which * len(self.pool.gangs)))
        if gang.busy_until is not None:
            self.pool.waiting_calls += 1

    @rule(seconds=st.floats(-7200, 7200))
    def the_clock_jumps(self, seconds: float) -> None:
        self.pool.clock_error_s += seconds
        self.jumps.append(self.pool.now)

    @rule(is_measured=st.booleans())
    def the_director_goes_or_comes(self, is_measured: bool) -> None:
        self.pool.is_measured = is_measured

    @rule(least=st.integers(0, 5), most=st.integers(5, 40))
    def limits_change(self, least: int, most: int) -> None:
        self.pool.terms = PoolTerms(min_gangs=least, max_gangs=most)
        self.limits_changed_at = self.pool.now

    @rule(quota=st.none() | st.integers(0, 20))
    def the_quota_changes(self, quota: int | None) -> None:
        self.pool.targets = replace(self.pool.targets, quota_gangs=quota)
        self.limits_changed_at = self.pool.now

    @invariant()
    def nothing_flaps(self) -> None:
        """No gang is let go sooner after the pool was last made larger than a gang that was needed is kept."""
        if not hasattr(self, "pool"):
            return
        pool = self.pool
        hold_s = max(pool.targets.hold_s, 1.25 * pool.cold_start_s)
        for index in range(self.checked, len(pool.decisions)):
            now, before, decision = pool.decisions[index]
            if decision.gangs >= before or self.limits_changed_at > now - hold_s - LOOK_S:
                continue
            watched_s = hold_s - pool.targets.stale_after_s * sum(when >= now - hold_s for when in self.jumps)
            since = [(when, was, one.gangs) for when, was, one in pool.decisions[:index] if when >= now - watched_s]
            assert not any(gangs > was and gangs > decision.gangs for _, was, gangs in since), (decision, since)
        self.checked = len(pool.decisions)

    @invariant()
    def the_pool_is_as_decided(self) -> None:
        """Nothing is there or on its way beyond the last decision."""
        if not hasattr(self, "pool") or not self.pool.decisions:
            return
        gangs = self.pool.decisions[-1][2].gangs
        supply = self.pool.supply()
        assert supply.ready + supply.starting <= gangs
        assert gangs <= most_gangs(self.pool.terms, self.pool.targets) or self.limits_changed_at == self.pool.now

    def teardown(self) -> None:
        """Once all is well again and the work is done, the pool goes to its least."""
        if not hasattr(self, "pool"):
            return
        pool = self.pool
        pool.is_measured, pool.targets = True, replace(pool.targets, quota_gangs=None)
        self.limits_changed_at = pool.now
        pool.pass_time(pool.waiting_calls * CALL_S + pool.cold_start_s + 600.0)
        assert pool.waiting_calls == 0
        pool.pass_time(2 * max(pool.targets.hold_s, 1.25 * pool.cold_start_s) + 600.0)
        assert pool.supply().ready + pool.supply().starting == pool.terms.min_gangs


RuledPool.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestRuledPool = RuledPool.TestCase
