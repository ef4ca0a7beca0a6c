"""How many gangs a pool should have: from what there is to do, what there is to do it with, and the limits. Pure.

No clock, no I/O, no Ray, no Kubernetes; standard library and pydantic alone, since the farm imports it too. The caller
keeps a PlannerMemory per pool and hands it back with the next question. docs/autoscaling.md has the formulas and a
worked example; benchmarks/autoscale_replay.py what they are worth.
"""

import math
from dataclasses import dataclass, field, fields, replace

from cluster.contract.pools_and_nodes import PoolDecision, PoolDemand, PoolSupply, PoolTerms

MAX_HOLD_S = 7200.0
"""Seconds; a cold start that is measured as longer does not make gangs be kept for longer than this."""

HOLD_OVER_START = 1.25
"""A gang that was needed is kept for at least this many cold starts: what is let go sooner may be asked for again
before it would have been there."""

LATE_SHARE = 4
"""While a call has waited longer than it should, one gang in so many is added to those that are there."""


@dataclass(frozen=True)
class ScalingTargets:
    """What the operator wants of a pool. Raises ValueError for a value that makes no sense."""

    drain_within_s: float = 900.0
    """Seconds in which the gangs asked for can do the whole backlog, once they are there. Work waits about this long
    at most; half of it costs up to twice the gangs, for half as long."""
    stale_after_s: float = 60.0
    """Seconds after which a measurement of demand counts as missing. Ask more often than this: of a longer time
    between two decisions only this much counts as watched."""
    hold_s: float = 300.0
    """Seconds for which gangs are kept after they were last needed; at least 1.25 cold starts, whatever it says."""
    idle_for_s: float = 60.0
    """Seconds for which as many gangs must have been idle as are let go: shorter pauses are between two calls."""
    due_margin: float = 1.25
    """Factor on the gangs that due times need: estimates err, and gangs that are asked for come later."""
    quota_gangs: int | None = None
    """Gangs for which there can be machines at all, as an account's quota says; it goes before min_gangs. None: no
    quota."""

    def __post_init__(self) -> None:
        for of in fields(self):
            value = getattr(self, of.name)
            least, is_whole = _LEAST[of.name], of.name == "quota_gangs"
            if is_whole and value is None:
                continue
            is_number = isinstance(value, int if is_whole else (int, float)) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value < least:
                kind = "a whole number" if is_whole else "a finite number"
                raise ValueError(f"{of.name}: {value!r} is not {kind} of at least {least:g}")


_LEAST = {
    "drain_within_s": 1.0,
    "stale_after_s": 1.0,
    "hold_s": 0.0,
    "idle_for_s": 0.0,
    "due_margin": 1.0,
    "quota_gangs": 0.0,
}

Peaks = tuple[tuple[float, int], ...]
"""What a sliding maximum must remember: (when, value), later and smaller from one to the next. The first is the
maximum. No value twice, so never more entries than a pool may have gangs."""


@dataclass(frozen=True)
class PlannerMemory:
    """What must be remembered of a pool between two decisions. Losing it costs no gang: whatever is there then counts
    as needed just now.

    Times of its own are watched seconds: they pass from one decision to the next, never backwards, and never by more
    than stale_after_s at once. So a clock that jumps lets go of nothing.
    """

    gangs: int | None = None
    """The last decision."""
    decided_at: float | None = None
    """Unix seconds of the last decision, as the caller's clock said."""
    watched_s: float = 0.0
    needed: Peaks = ()
    """Gangs needed, over the time for which they are kept."""
    in_use: Peaks = ()
    """Gangs that had calls, over idle_for_s."""
    measured_at: float | None = None
    """Of the newest measurement, by the clock of who measured."""
    seen_s: float = 0.0
    """Watched seconds at which that one was seen first."""


@dataclass(frozen=True)
class _Need:
    """Gangs that something needs, with the parts of the sentence that says why."""

    gangs: int
    clauses: list[str] = field(default_factory=list)


def plan_gangs(
    *,
    terms: PoolTerms,
    demand: PoolDemand | None,
    supply: PoolSupply,
    targets: ScalingTargets,
    memory: PlannerMemory,
    now: float,
) -> tuple[PoolDecision, PlannerMemory]:
    """Gangs that a pool should have in all: those that are starting count, those that drain do not.

    `now` is in Unix seconds. Answers whatever the numbers are: a measurement that is missing, old or no number holds
    the last decision. Limits always win: quota, then max_gangs, then min_gangs.
    """
    memory = _pass_time(memory, demand, targets, now)
    held = supply.ready + supply.starting if memory.gangs is None else memory.gangs
    memory = _watch(memory, held, supply, targets)
    if terms.mode == "external":
        need = _asked(terms, held)
    elif (trouble := _trouble(demand, memory, targets, now)) is not None or demand is None:
        need = _Need(held, [f"as before, since {trouble}"])
    else:
        need = _needed(demand, supply, targets, held)
    limited = _limit(need, terms, targets)
    hold_s = _hold_s(supply, targets)
    memory = replace(memory, needed=_slide(memory.needed, limited.gangs, memory.watched_s, hold_s))
    if terms.mode == "external":
        kept = _keep_external(limited, held, supply, memory, hold_s)
    else:
        kept = _keep(limited, held, memory, hold_s, targets)
    final = _limit(kept, terms, targets)
    if final.gangs == limited.gangs:
        final = limited  # what would be kept but is not allowed is worth no word
    decision = PoolDecision(gangs=final.gangs, reason=_sentence(final, supply), decided_at=now)
    return decision, replace(memory, gangs=final.gangs, decided_at=now)


# ---------------------------------------------------------------------------------------------------- what is needed


def _needed(demand: PoolDemand, supply: PoolSupply, targets: ScalingTargets, held: int) -> _Need:
    """Gangs for what there is to do now, as many as can work at once."""
    if demand.backlog_gpu_s <= 0:
        return _Need(0, ["nothing to do"])
    drain = _whole(demand.backlog_gpu_s / demand.gpus_per_gang / targets.drain_within_s)
    clauses = [
        f"{demand.backlog_gpu_s:,.0f} GPU-seconds of backlog within {targets.drain_within_s:,.0f} s need {drain}"
    ]
    due = _for_due_times(demand, targets, held)
    if due:
        clauses.append(f"due times need {due}{_slack(demand, supply, due)}")
    late = _late(demand, supply, targets)
    if late:
        clauses.append(f"a call has waited {demand.oldest_wait_s:,.0f} s, so {late} instead of {supply.ready}")
    wanted = max(1, drain, due, late)
    can_work = max(1, demand.calls_ready + demand.calls_running)
    if can_work < wanted:
        clauses.append(f"no more than {_count(can_work, 'call')} can run at once")
    return _Need(min(wanted, can_work), clauses)


def _for_due_times(demand: PoolDemand, targets: ScalingTargets, held: int) -> int:
    """With the margin where more must be asked for. What was asked for is enough until it is less than needed: while
    gangs start due times come nearer, and would else ask again for what is on its way.
    """
    needed, with_margin = _whole(demand.required_gangs), _whole(demand.required_gangs * targets.due_margin)
    return with_margin if needed > held else min(with_margin, held)


def _slack(demand: PoolDemand, supply: PoolSupply, due: int) -> str:
    if demand.due_slack_s is None:
        return ""
    slack = f", the tightest with {max(0.0, demand.due_slack_s):,.0f} s to spare"
    if due > supply.ready and demand.due_slack_s < supply.cold_start_s:
        slack += f", which a gang takes longer to start ({supply.cold_start_s:,.0f} s)"
    return slack


def _late(demand: PoolDemand, supply: PoolSupply, targets: ScalingTargets) -> int:
    """A quarter more than are there, where calls wait too long though every gang works and none is on its way: then
    the work takes longer than it was thought to. 0 if all is well.
    """
    is_late = demand.calls_ready > 0 and demand.oldest_wait_s > targets.drain_within_s
    if not is_late or supply.starting or supply.idle or not supply.ready:
        return 0
    return supply.ready + max(1, supply.ready // LATE_SHARE)


def _asked(terms: PoolTerms, held: int) -> _Need:
    """What somebody else has asked for in external mode."""
    if terms.replicas is None:
        return _Need(held, ["as before, since the mode is external and nobody has set replicas"])
    return _Need(terms.replicas, [f"replicas is {terms.replicas}"])


def _trouble(demand: PoolDemand | None, memory: PlannerMemory, targets: ScalingTargets, now: float) -> str | None:
    """Why nothing can be decided from a measurement; None if something can."""
    if demand is None:
        return "what there is to do has not been measured"
    numbers = (demand.measured_at, demand.backlog_gpu_s, demand.oldest_wait_s, demand.required_gangs)
    if not all(map(math.isfinite, (*numbers, demand.due_slack_s or 0.0))) or demand.gpus_per_gang < 1:
        return "what was measured makes no sense"
    age_s = max(now - demand.measured_at, memory.watched_s - memory.seen_s)
    if age_s > targets.stale_after_s:
        limit = f"more than {targets.stale_after_s:,.0f} s"
        return f"what there is to do was last measured {age_s:,.0f} s ago, {limit}"
    return None


# ---------------------------------------------------------------------------------------------------- what is kept


def _keep(need: _Need, held: int, memory: PlannerMemory, hold_s: float, targets: ScalingTargets) -> _Need:
    """Not fewer than were needed a while ago, nor than had calls just now; never more than there were.

    What is starting has no call. It is let go like an idle gang: who waited longer than a cold start may wait forever.
    """
    needed, in_use = memory.needed[0][1], memory.in_use[0][1]
    kept = min(held, max(needed, in_use))
    if kept <= need.gangs:
        return need
    if needed >= kept:
        why = f"{needed} {'was' if needed == 1 else 'were'} needed in the last {hold_s:,.0f} s"
    else:
        why = f"{in_use} had calls in the last {targets.idle_for_s:,.0f} s"
    return _Need(kept, [*need.clauses, why])


def _keep_external(need: _Need, held: int, supply: PoolSupply, memory: PlannerMemory, hold_s: float) -> _Need:
    """What was asked for. Gangs that have calls are waited for, but no longer than idle ones are kept otherwise."""
    busy = max(0, supply.ready - supply.idle)
    kept = min(held, busy)
    if kept <= need.gangs or memory.needed[0][1] <= need.gangs:
        return need
    return _Need(kept, [*need.clauses, f"{busy} have calls and are waited for, {hold_s:,.0f} s at most"])


def _limit(need: _Need, terms: PoolTerms, targets: ScalingTargets) -> _Need:
    """Inside min_gangs, max_gangs and the quota. It wins over min_gangs: what it does not allow would not come."""
    gangs, clauses = need.gangs, list(need.clauses)
    if gangs < terms.min_gangs:
        gangs = terms.min_gangs
        clauses.append(f"min_gangs is {gangs}")
    if gangs > terms.max_gangs:
        gangs = terms.max_gangs
        clauses.append(f"max_gangs is {gangs}")
    if targets.quota_gangs is not None and gangs > targets.quota_gangs:
        gangs = targets.quota_gangs
        clauses.append(f"the quota is {gangs}")
    return _Need(gangs, list(dict.fromkeys(clauses)))


# ---------------------------------------------------------------------------------------------------- memory


def _pass_time(memory: PlannerMemory, demand: PoolDemand | None, targets: ScalingTargets, now: float) -> PlannerMemory:
    passed_s = 0.0 if memory.decided_at is None else min(max(0.0, now - memory.decided_at), targets.stale_after_s)
    memory = replace(memory, watched_s=memory.watched_s + passed_s)
    if demand is not None and demand.measured_at != memory.measured_at:
        memory = replace(memory, measured_at=demand.measured_at, seen_s=memory.watched_s)
    return memory


def _watch(memory: PlannerMemory, held: int, supply: PoolSupply, targets: ScalingTargets) -> PlannerMemory:
    """With the gangs that have calls now. The first decision takes all that are there for needed."""
    busy = max(0, supply.ready - supply.idle)
    if memory.gangs is None:
        return replace(memory, needed=((memory.watched_s, held),), in_use=((memory.watched_s, max(busy, held)),))
    return replace(memory, in_use=_slide(memory.in_use, busy, memory.watched_s, targets.idle_for_s))


def _slide(peaks: Peaks, value: int, at_s: float, length_s: float) -> Peaks:
    """The maximum over the last `length_s`, with one more value."""
    return (*((when, peak) for when, peak in peaks if when >= at_s - length_s and peak > value), (at_s, value))


def _hold_s(supply: PoolSupply, targets: ScalingTargets) -> float:
    start_s = supply.cold_start_s if math.isfinite(supply.cold_start_s) else 0.0
    return max(targets.hold_s, min(HOLD_OVER_START * start_s, MAX_HOLD_S))


# ---------------------------------------------------------------------------------------------------- words


def _sentence(need: _Need, supply: PoolSupply) -> str:
    clauses = list(need.clauses)
    if supply.starting:
        clauses.append(f"{supply.starting} on their way" if supply.starting > 1 else "1 on its way")
    return f"{_count(need.gangs, 'gang')}: {'; '.join(clauses)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _whole(gangs: float) -> int:
    """Gangs are whole. What floats add by rounding is not worth one."""
    return max(0, math.ceil(gangs - 1e-9))
