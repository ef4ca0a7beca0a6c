"""Decides what to tell the farm about pools and what to write into RenderPools, from what both say now.

Pure and stateless: the same RenderPools and the same answer of the farm give the same plan, so a round may be
interrupted anywhere and run again. reconciler.py carries it out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cluster.contract.pools_and_nodes import PoolState, PoolTerms
from cluster.controller.pool_status import READY, FarmReport, Readiness, describe_pool, is_worth_writing
from cluster.errors import did_you_mean
from cluster.render_pool import RenderPool, RenderPoolSpec, RenderPoolStatus, same_shape

TERMS_REFUSED = "TermsRefused"
TERMS_PENDING = "TermsPending"


@dataclass(frozen=True)
class PutTerms:
    """Tell the farm the terms of a pool."""

    render_pool: RenderPool
    pool: str
    terms: PoolTerms
    before: PoolTerms


@dataclass(frozen=True)
class SetFirstReplicas:
    """Write the first `replicas` of a RenderPool, from which an autoscaler goes on: if it finds none, or 0, it never
    changes them."""

    render_pool: RenderPool
    replicas: int


@dataclass(frozen=True)
class WriteStatus:
    """Write the status of a RenderPool."""

    render_pool: RenderPool
    status: RenderPoolStatus

    @property
    def news(self) -> str | None:
        """What is worth an event: the reason why it is ready or not has changed."""
        old, new = self.render_pool.status.condition(READY), self.status.condition(READY)
        changed = new is not None and (old is None or (old.status, old.reason) != (new.status, new.reason))
        return new.message if new is not None and changed else None


def plan_terms(pools: Sequence[RenderPool], farm: FarmReport) -> tuple[PutTerms, ...]:
    """Terms that the farm must be told, because its own differ, of pools that it has as described. None if it does not
    answer."""
    orders = []
    for pool in pools:
        state = farm.pool(pool.spec.pool) if pool.spec is not None else None
        if pool.spec is None or state is None or _mismatch(pool, pools, farm) is not None:
            continue
        if state.terms != pool.spec.terms:
            orders.append(PutTerms(pool, state.name, pool.spec.terms, state.terms))
    return tuple(orders)


def plan_first_replicas(pools: Sequence[RenderPool], farm: FarmReport) -> tuple[SetFirstReplicas, ...]:
    """RenderPools in external mode for which nobody has written replicas: they begin with the gangs that there are."""
    orders = []
    for pool in pools:
        if pool.spec is None or pool.spec.scaling != "external" or pool.spec.replicas is not None:
            continue
        state = farm.pool(pool.spec.pool)
        if state is not None and state.supply is not None and check_pool(pool, pools, farm).truth == "True":
            now = max(1, pool.spec.min_gangs, state.supply.ready + state.supply.starting)
            orders.append(SetFirstReplicas(pool, min(pool.spec.max_gangs, now)))
    return tuple(orders)


def with_terms(farm: FarmReport, done: Iterable[PutTerms]) -> FarmReport:
    """What the farm would answer after it has the terms."""
    terms = {order.pool: order.terms for order in done}
    known = None if farm.pools is None else tuple(_with(pool, terms) for pool in farm.pools)
    return replace(farm, pools=known)


def plan_statuses(
    pools: Sequence[RenderPool], farm: FarmReport, *, failed: Mapping[str, Readiness], now: float
) -> tuple[WriteStatus, ...]:
    """The statuses that must be written. `failed`: by key of a RenderPool, why the farm does not have its terms."""
    orders = []
    for pool in pools:
        ready = failed.get(pool.key) or check_pool(pool, pools, farm)
        status = describe_pool(pool, ready, farm, now=now)
        if is_worth_writing(pool.status, status, now=now):
            orders.append(WriteStatus(pool, status))
    return tuple(orders)


def check_pool(pool: RenderPool, pools: Sequence[RenderPool], farm: FarmReport) -> Readiness:
    """Whether the farm has the pool that a RenderPool describes, and knows how many gangs there are."""
    state = farm.pool(pool.spec.pool) if pool.spec is not None else None
    mismatch = _mismatch(pool, pools, farm)
    if mismatch is not None or pool.spec is None or state is None:
        assert mismatch is not None
        return mismatch
    return _agrees(pool.spec, state)


def _mismatch(pool: RenderPool, pools: Sequence[RenderPool], farm: FarmReport) -> Readiness | None:
    """Why the farm cannot be told the terms of a RenderPool. What needs no answer of the farm comes first."""
    spec = pool.spec
    if spec is None:
        return Readiness("False", "InvalidSpec", pool.problem)
    owner = owner_of(spec.pool, pools)
    if owner is not None and owner.uid != pool.uid:
        return Readiness(
            "False", "PoolTaken", f"pool {spec.pool!r} belongs to RenderPool {owner.key}, which is older; delete one"
        )
    if farm.pools is None:
        return Readiness("Unknown", "FarmUnreachable", farm.problem)
    state = farm.pool(spec.pool)
    if state is None:
        names = [known.name for known in farm.pools]
        return Readiness("False", "PoolUnknown", f"the farm has no pool {spec.pool!r}{did_you_mean(spec.pool, names)}")
    return _differs(spec, state, farm.pools)


def owner_of(pool: str, pools: Iterable[RenderPool]) -> RenderPool | None:
    """The RenderPool that speaks for a pool of the farm: the oldest that can be understood."""
    claims = [found for found in pools if found.spec is not None and found.spec.pool == pool]
    return min(claims, key=lambda found: (found.created_at, found.key), default=None)


def _differs(spec: RenderPoolSpec, state: PoolState, known: Sequence[PoolState]) -> Readiness | None:
    if state.model != spec.model:
        others = [pool.name for pool in known if pool.model == spec.model]
        hint = (
            f"; pool {others[0]!r} serves that"
            if others
            else did_you_mean(spec.model, {pool.model for pool in known} - {state.model})
        )
        return Readiness(
            "False", "ModelDiffers", f"pool {state.name!r} serves {state.model!r}, not {spec.model!r}{hint}"
        )
    if not same_shape(spec.gang_shape, state.gang_shape):
        return Readiness(
            "False",
            "ShapeDiffers",
            f"gangs of pool {state.name!r} have the shape {state.gang_shape!r}, not {spec.gang_shape!r}",
        )
    return None


def _agrees(spec: RenderPoolSpec, state: PoolState) -> Readiness:
    if state.supply is None:
        return Readiness("False", "NotMeasured", "the farm has the pool, but nothing has counted its gangs yet")
    message = f"the farm has pool {state.name!r} with these terms"
    if spec.scaling == "native" and spec.replicas is not None:
        message += f"; replicas, {spec.replicas}, is ignored because scaling is native"
    if spec.scaling == "external" and spec.replicas is None:
        message += "; scaling is external, but nobody has written replicas yet"
    if spec.scaling == "external" and spec.replicas is not None:
        clamped = min(max(spec.replicas, spec.min_gangs), spec.max_gangs)
        if clamped != spec.replicas:
            message += f"; replicas, {spec.replicas}, counts as {clamped}, because of minGangs and maxGangs"
    return Readiness("True", "AsSpecified", message)


def _with(pool: PoolState, terms: Mapping[str, PoolTerms]) -> PoolState:
    return pool.model_copy(update={"terms": terms[pool.name]}) if pool.name in terms else pool
