"""Decides what the farm must be told and what RenderPools must say, from what both say now.

Pure, and without memory: given the same RenderPools and the same answer of the farm it decides the same, so it may be
interrupted anywhere and begun again. Whoever carries it out is process.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cluster.contract.pools_and_nodes import PoolState, PoolTerms
from cluster.controller.pool_status import READY, FarmReport, Verdict, describe_pool, is_worth_writing
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
class BeginReplicas:
    """Write the first `replicas` of a RenderPool that an autoscaler is to take over from there: one that finds none, or
    0, leaves them alone for ever."""

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
    """What the farm must be told: terms that differ, of pools that it has as they are described. Nothing where it does
    not answer."""
    orders = []
    for pool in pools:
        state = farm.pool(pool.spec.pool) if pool.spec is not None else None
        if pool.spec is None or state is None or _objection(pool, pools, farm) is not None:
            continue
        if state.terms != pool.spec.terms:
            orders.append(PutTerms(pool, state.name, pool.spec.terms, state.terms))
    return tuple(orders)


def plan_first_replicas(pools: Sequence[RenderPool], farm: FarmReport) -> tuple[BeginReplicas, ...]:
    """RenderPools in external mode for which nobody has written replicas: they begin with the gangs that there are."""
    orders = []
    for pool in pools:
        if pool.spec is None or pool.spec.scaling != "external" or pool.spec.replicas is not None:
            continue
        state = farm.pool(pool.spec.pool)
        if state is not None and state.supply is not None and judge(pool, pools, farm).truth == "True":
            now = max(1, pool.spec.min_gangs, state.supply.ready + state.supply.starting)
            orders.append(BeginReplicas(pool, min(pool.spec.max_gangs, now)))
    return tuple(orders)


def with_terms(farm: FarmReport, told: Iterable[PutTerms]) -> FarmReport:
    """What the farm would answer after it was told."""
    terms = {order.pool: order.terms for order in told}
    known = None if farm.pools is None else tuple(_with(pool, terms) for pool in farm.pools)
    return replace(farm, pools=known)


def plan_statuses(
    pools: Sequence[RenderPool], farm: FarmReport, *, untold: Mapping[str, Verdict], now: float
) -> tuple[WriteStatus, ...]:
    """The statuses that must be written. `untold`: by key of a RenderPool, why the farm could not be told its terms."""
    orders = []
    for pool in pools:
        verdict = untold.get(pool.key) or judge(pool, pools, farm)
        status = describe_pool(pool, verdict, farm, now=now)
        if is_worth_writing(pool.status, status, now=now):
            orders.append(WriteStatus(pool, status))
    return tuple(orders)


def judge(pool: RenderPool, pools: Sequence[RenderPool], farm: FarmReport) -> Verdict:
    """Whether the farm has the pool that a RenderPool describes, and knows how many gangs there are."""
    state = farm.pool(pool.spec.pool) if pool.spec is not None else None
    objection = _objection(pool, pools, farm)
    if objection is not None or pool.spec is None or state is None:
        assert objection is not None
        return objection
    return _agrees(pool.spec, state)


def _objection(pool: RenderPool, pools: Sequence[RenderPool], farm: FarmReport) -> Verdict | None:
    """Why the farm cannot be told the terms of a RenderPool. What can be said without the farm is said first."""
    spec = pool.spec
    if spec is None:
        return Verdict("False", "InvalidSpec", pool.problem)
    owner = owner_of(spec.pool, pools)
    if owner is not None and owner.uid != pool.uid:
        return Verdict(
            "False", "PoolTaken", f"pool {spec.pool!r} belongs to RenderPool {owner.key}, which is older; delete one"
        )
    if farm.pools is None:
        return Verdict("Unknown", "FarmUnreachable", farm.problem)
    state = farm.pool(spec.pool)
    if state is None:
        names = [known.name for known in farm.pools]
        return Verdict("False", "PoolUnknown", f"the farm has no pool {spec.pool!r}{did_you_mean(spec.pool, names)}")
    return _differs(spec, state, farm.pools)


def owner_of(pool: str, pools: Iterable[RenderPool]) -> RenderPool | None:
    """The RenderPool that speaks for a pool of the farm: the oldest that can be understood."""
    claims = [found for found in pools if found.spec is not None and found.spec.pool == pool]
    return min(claims, key=lambda found: (found.created_at, found.key), default=None)


def _differs(spec: RenderPoolSpec, state: PoolState, known: Sequence[PoolState]) -> Verdict | None:
    if state.model != spec.model:
        others = [pool.name for pool in known if pool.model == spec.model]
        hint = (
            f"; pool {others[0]!r} serves that"
            if others
            else did_you_mean(spec.model, {pool.model for pool in known} - {state.model})
        )
        return Verdict("False", "ModelDiffers", f"pool {state.name!r} serves {state.model!r}, not {spec.model!r}{hint}")
    if not same_shape(spec.gang_shape, state.gang_shape):
        return Verdict(
            "False",
            "ShapeDiffers",
            f"gangs of pool {state.name!r} have the shape {state.gang_shape!r}, not {spec.gang_shape!r}",
        )
    return None


def _agrees(spec: RenderPoolSpec, state: PoolState) -> Verdict:
    if state.supply is None:
        return Verdict("False", "NotMeasured", "the farm has the pool, but nothing has counted its gangs yet")
    told = f"the farm has pool {state.name!r} with these terms"
    if spec.scaling == "native" and spec.replicas is not None:
        told += f"; replicas, {spec.replicas}, is ignored because scaling is native"
    if spec.scaling == "external" and spec.replicas is None:
        told += "; scaling is external, but nobody has written replicas yet"
    if spec.scaling == "external" and spec.replicas is not None:
        clamped = min(max(spec.replicas, spec.min_gangs), spec.max_gangs)
        if clamped != spec.replicas:
            told += f"; replicas, {spec.replicas}, counts as {clamped}, because of minGangs and maxGangs"
    return Verdict("True", "AsSpecified", told)


def _with(pool: PoolState, terms: Mapping[str, PoolTerms]) -> PoolState:
    return pool.model_copy(update={"terms": terms[pool.name]}) if pool.name in terms else pool
