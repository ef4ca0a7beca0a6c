"""Decides which Ray nodes to drain now, until when, and which must wait.

Pure and stateless: what was requested before is in annotations of the pods, what is being drained in the farm's answer.
So it may be interrupted anywhere and decides the same again. No more than a share of a pool's gangs is drained at once,
unless the node goes anyway: no limit of ours stops a cloud.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster.contract.pools_and_nodes import MAX_DRAIN_S, DrainRequest, NodeState
from cluster.kube.timestamps import write_time
from cluster.signals import Notice

MIN_DEADLINE_S = 1.0

EARLIER_S = 5.0
"""Seconds by which an end must be earlier than the one requested before, to be requested again."""


@dataclass(frozen=True)
class DrainLimits:
    """How much may be drained at once."""

    max_share: float = 0.25
    """Of a pool's gangs, 0..1; one node always may."""
    least_s: float = 120.0
    """The least seconds that a drain needs: a node with no more time left does not wait, or all on it would be lost."""


@dataclass(frozen=True)
class Departure:
    """A Ray node on a Kubernetes node, or in a pod, that will go."""

    ray_node: NodeState
    node: str
    """Name of the Kubernetes node."""
    pod: str
    notice: Notice
    """The most urgent one, by which it is drained."""
    requested_until: float | None = None
    """The end of the drain that was requested before, in Unix seconds; None if we know of no such request."""


@dataclass(frozen=True)
class Drain:
    """Ask the farm to drain a Ray node."""

    departure: Departure
    request: DrainRequest
    until: float
    """Unix seconds."""
    exceeded: tuple[str, ...]
    """Pools of which more than their share is drained, because the node goes anyway."""

    @property
    def message(self) -> str:
        """For people; the same for the same drain."""
        gangs = ", ".join(self.departure.ray_node.gangs) or "no gang"
        more = (
            f"; that is more than the share of pool {', '.join(self.exceeded)}, but it goes anyway"
            if self.exceeded
            else ""
        )
        name = self.departure.notice.signal.name
        return f"{name}: draining {gangs} in pod {self.departure.pod} until {write_time(self.until)}{more}"


@dataclass(frozen=True)
class Wait:
    """A Ray node that is not drained yet."""

    departure: Departure
    pool: str
    """Its share of gangs is being drained already."""

    @property
    def message(self) -> str:
        """For people; the same as long as it waits."""
        departure = self.departure
        return (
            f"{departure.notice.signal.name}: the drain of pod {departure.pod} waits until fewer gangs of pool "
            f"{self.pool} are being drained"
        )


@dataclass(frozen=True)
class DrainPlan:
    """What to do now."""

    drains: tuple[Drain, ...] = ()
    """The most urgent first."""
    waits: tuple[Wait, ...] = ()


def plan_drains(
    departures: Iterable[Departure],
    ray_nodes: Sequence[NodeState],
    *,
    pools: Iterable[str],
    limits: DrainLimits,
    now: float,
) -> DrainPlan:
    """Which of the nodes that will go to drain now. `pools` are the names of the farm's pools."""
    leaving = _LeavingGangs(ray_nodes, tuple(pools), limits.max_share)
    drains: list[Drain] = []
    waits: list[Wait] = []
    for departure in sorted(
        departures, key=lambda one: (not one.notice.signal.forced, one.notice.left_s or 0.0, one.pod)
    ):
        left_s = departure.notice.left_s
        if left_s is None or not _is_news(departure, now + left_s):
            continue
        exceeded = leaving.exceeded_by(departure.ray_node)
        urgent = departure.notice.signal.forced or left_s <= limits.least_s or departure.ray_node.state == "draining"
        if exceeded and not urgent:
            waits.append(Wait(departure, exceeded[0]))
            continue
        leaving.drain(departure.ray_node)
        drains.append(_drain(departure, exceeded, now))
    return DrainPlan(tuple(drains), tuple(waits))


def pool_of(gang: str, pools: Iterable[str]) -> str | None:
    """The pool of a gang, by its name: `POOL-...`. The longest that fits, since names of pools may begin alike."""
    return max((pool for pool in pools if gang.startswith(f"{pool}-")), key=len, default=None)


def _is_news(departure: Departure, until: float) -> bool:
    """Whether the farm should be asked: it does not know of the drain, or not of so early an end."""
    if departure.ray_node.state == "dead":
        return False
    if departure.ray_node.state == "alive":
        return True
    if departure.requested_until is None:
        # Somebody else drains it, or we were interrupted; only a forced signal knows the true end.
        return departure.notice.signal.forced
    return until < departure.requested_until - EARLIER_S


def _drain(departure: Departure, exceeded: tuple[str, ...], now: float) -> Drain:
    assert departure.notice.left_s is not None
    until = now + departure.notice.left_s
    if departure.requested_until is not None:
        until = min(until, departure.requested_until)
    deadline_s = min(MAX_DRAIN_S, max(MIN_DEADLINE_S, until - now))
    signal = departure.notice.signal
    request = DrainRequest(
        cause=signal.cause, reason=f"node {departure.node}: {signal.name}"[:1000], deadline_s=deadline_s
    )
    return Drain(departure, request, now + deadline_s, exceeded)


class _LeavingGangs:
    """The gangs of every pool, and which of them are leaving."""

    def __init__(self, ray_nodes: Sequence[NodeState], pools: tuple[str, ...], max_share: float) -> None:
        self._pools, self._max_share = pools, max_share
        self._all: dict[str, set[str]] = {}
        self._leaving: dict[str, set[str]] = {}
        for node in ray_nodes:
            if node.state != "dead":
                self._count(self._all, node)
            if node.state == "draining":
                self._count(self._leaving, node)

    def exceeded_by(self, node: NodeState) -> tuple[str, ...]:
        """Pools that would exceed their share if the node were drained too. Never one with no gang leaving: a node with
        more gangs than the share would wait forever."""
        return tuple(pool for pool, gangs in sorted(self._by_pool(node).items()) if self._exceeds(pool, gangs))

    def drain(self, node: NodeState) -> None:
        """It will be drained."""
        self._count(self._leaving, node)

    def _exceeds(self, pool: str, gangs: set[str]) -> bool:
        leaving = self._leaving.get(pool, set())
        allowed = math.floor(self._max_share * len(self._all.get(pool, ())))
        return bool(leaving) and not gangs <= leaving and len(gangs | leaving) > allowed

    def _count(self, book: dict[str, set[str]], node: NodeState) -> None:
        for pool, gangs in self._by_pool(node).items():
            book.setdefault(pool, set()).update(gangs)

    def _by_pool(self, node: NodeState) -> Mapping[str, set[str]]:
        found: dict[str, set[str]] = {}
        for gang in node.gangs:
            pool = pool_of(gang, self._pools)
            if pool is not None:
                found.setdefault(pool, set()).add(gang)
        return found
