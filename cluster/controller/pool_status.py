"""What a RenderPool's status says: numbers from the farm, conditions, and whether a new one is worth writing.

Pure. A condition keeps the time of its last transition for as long as its status is the same. What is known is never
taken back because the farm cannot be asked: numbers stay, with the time at which they were taken.
"""

import math
from dataclasses import dataclass
from typing import Literal

from cluster.contract.pools_and_nodes import MAX_GANGS, MAX_REASON_CHARS, PoolState
from cluster.kube.timestamps import read_time, write_time
from cluster.render_pool import (
    MAX_MESSAGE_CHARS,
    POOL_LABEL,
    Condition,
    GangCounts,
    RenderPool,
    RenderPoolStatus,
)

READY = "Ready"
FARM_REACHABLE = "FarmReachable"
SPOT_POLICY_APPLIED = "SpotPolicyApplied"
OURS = (READY, FARM_REACHABLE, SPOT_POLICY_APPLIED)

REFRESH_S = 30.0
"""Seconds after which numbers that always move (backlog, their age) are written again, though nothing else changed: as
often as an autoscaler would look, and far from what an API server minds."""

PATIENCE_S = 60.0
"""Seconds that a farm may be away before its pools count as Unknown: it is upgraded by starting another beside it."""

BACKLOG_DIGITS = 3

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class FarmReport:
    """What the farm said when it was asked for its pools, or that it did not answer."""

    pools: tuple[PoolState, ...] | None
    """None if it did not answer."""
    asked_at: float
    """Unix seconds."""
    problem: str = ""
    """Why not."""

    def pool(self, name: str) -> PoolState | None:
        """The pool of that name, if there is one."""
        return next((pool for pool in self.pools or () if pool.name == name), None)


@dataclass(frozen=True)
class Readiness:
    """Whether the farm has a pool as its RenderPool describes it."""

    truth: Truth
    reason: str
    """For programs: one word in CamelCase."""
    message: str
    """For people."""


def describe_pool(pool: RenderPool, ready: Readiness, farm: FarmReport, *, now: float) -> RenderPoolStatus:
    """The status that `pool` should have. If the farm did not answer, with what was last known of its gangs."""
    state = farm.pool(pool.spec.pool) if pool.spec is not None else None
    numbers = _numbers(state, farm.asked_at) if state is not None and state.supply is not None else _known(pool)
    ready = _patient(pool, ready, farm, now)
    conditions = [
        _condition(pool, READY, ready.truth, ready.reason, ready.message, now),
        _condition(pool, FARM_REACHABLE, *_reachable(farm), now),
        _condition(pool, SPOT_POLICY_APPLIED, *_spot(pool, state, farm), now),
    ]
    others = [found for found in pool.status.conditions if found.type not in OURS]
    selector = f"{POOL_LABEL}={pool.spec.pool}" if pool.spec is not None else pool.status.selector
    return numbers.model_copy(
        update={
            "observed_generation": pool.generation,
            "selector": selector,
            "conditions": (*conditions, *others),
        }
    )


def is_worth_writing(old: RenderPoolStatus, new: RenderPoolStatus, *, now: float) -> bool:
    """Whether `new` should take the place of `old`: something changed that people or autoscalers act on, or the rest is
    older than REFRESH_S."""
    if _steady(old) != _steady(new):
        return True
    written_at = read_time(old.measured_at)
    # A clock that was set back must not silence it, hence the absolute value.
    return old != new and (written_at is None or abs(now - written_at) >= REFRESH_S)


def _steady(status: RenderPoolStatus) -> RenderPoolStatus:
    return status.model_copy(update={"backlog_gpu_seconds": None, "reason": "", "measured_at": None})


def _numbers(state: PoolState, measured_at: float) -> RenderPoolStatus:
    supply, decision, demand = state.supply, state.decision, state.demand
    assert supply is not None
    return RenderPoolStatus(
        gangs=GangCounts(
            wanted=_count(decision.gangs) if decision is not None else None,
            ready=_count(supply.ready),
            starting=_count(supply.starting),
            draining=_count(supply.draining),
        ),
        replicas=max(0, supply.ready + supply.starting),
        backlog_gpu_seconds=_round(demand.backlog_gpu_s) if demand is not None else None,
        reason=decision.reason[:MAX_REASON_CHARS] if decision is not None else "",
        measured_at=write_time(measured_at),
    )


def _known(pool: RenderPool) -> RenderPoolStatus:
    return pool.status


def _count(gangs: int) -> int:
    return min(MAX_GANGS, max(0, gangs))


def _round(seconds: float) -> int:
    """To three digits: people read it, and the rest only makes for more writing."""
    if not math.isfinite(seconds) or seconds < 1:
        return 0
    return int(round(seconds, BACKLOG_DIGITS - 1 - math.floor(math.log10(seconds))))


def _patient(pool: RenderPool, ready: Readiness, farm: FarmReport, now: float) -> Readiness:
    """A farm that is away for a moment changes nothing of what was said of its pools."""
    said, away = pool.status.condition(READY), pool.status.condition(FARM_REACHABLE)
    if farm.pools is not None or ready.truth != "Unknown" or said is None or said.status == "Unknown":
        return ready
    since = read_time(away.last_transition_time) if away is not None and away.status == "False" else now
    if since is not None and abs(now - since) < PATIENCE_S:
        return Readiness(said.status, said.reason, said.message)
    return ready


def _reachable(farm: FarmReport) -> tuple[Truth, str, str]:
    if farm.pools is not None:
        return "True", "Answered", "the farm answers"
    return "False", "NoAnswer", f"{farm.problem}; nothing is changed, and the numbers are those of measuredAt"


def _spot(pool: RenderPool, state: PoolState | None, farm: FarmReport) -> tuple[Truth, str, str]:
    said = pool.status.condition(SPOT_POLICY_APPLIED)
    if farm.pools is None and said is not None:
        return said.status, said.reason, said.message
    if pool.spec is None or state is None:
        return "Unknown", "NotKnown", "the farm has not said what the pool was deployed with"
    if state.spot_applied == pool.spec.spot_policy:
        return "True", "Applied", f"gangs were deployed with spot policy {state.spot_applied!r}"
    return (
        "False",
        "NextDeployment",
        f"gangs were deployed with spot policy {state.spot_applied!r}, and stay so until they are replaced. For "
        f"{pool.spec.spot_policy!r} upgrade the chart's release with spotPolicy {pool.spec.spot_policy!r} at pool "
        f"{pool.spec.pool!r}, or, if farm.yaml is deployed by serving.app:deploy, deploy it with another revision",
    )


def _condition(pool: RenderPool, kind: str, truth: Truth, reason: str, message: str, now: float) -> Condition:
    said = pool.status.condition(kind)
    kept = said is not None and said.status == truth
    return Condition(
        type=kind,
        status=truth,
        reason=reason,
        message=message[:MAX_MESSAGE_CHARS],
        last_transition_time=said.last_transition_time if said is not None and kept else write_time(now),
        observed_generation=pool.generation,
    )


def as_patch(status: RenderPoolStatus) -> dict[str, object]:
    """The status as a merge patch that leaves nothing of an older one: unknown values are None."""
    whole = status.model_dump(mode="json", by_alias=True, exclude={"conditions"})
    conditions = [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in status.conditions]
    return {**whole, "conditions": conditions}
