"""Decides which Ray nodes to drain now, until when, and which must wait.

Pure, and it remembers nothing: what was asked before stands in annotations of the pods, what is being drained in the
farm's answer. So it may be interrupted anywhere and decides the same again. Not more than a share of a pool's gangs is
drained at once, except where the node goes anyway: a limit of ours does not hold a cloud up.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster.contract.pools_and_nodes import MAX_DRAIN_S, DrainRequest, NodeState
from cluster.kube.timestamps import write_time
from cluster.signals import Notice

MIN_DEADLINE_S = 1.0

EARLIER_S = 5.0
"""Seconds by which a deadline must be earlier than the one that was asked for before, to be asked for again."""


@dataclass(frozen=True)
class DrainLimits:
    """How much may be drained at once."""

    max_share: float = 0.25
    """Of a pool's gangs, 0..1; one node always may."""
    least_s: float = 120.0
    """Seconds that a drain needs at least: a node that has no more time left is not kept waiting, or it would be lost
    with what it has."""


@dataclass(frozen=True)
class Danger:
    """A Ray node on a Kubernetes node, or in a pod, that will go."""

    ray_node: NodeState
    node: str
    """Name of the Kubernetes node."""
    pod: str
    notice: Notice
    """The most urgent one; it acts."""
    asked_until: float | None = None
    """Until when the farm was asked before to drain it, Unix seconds; None if we know of no such request."""


@dataclass(frozen=True)
class Drain:
    """Ask the farm to drain a Ray node."""

    danger: Danger
    request: DrainRequest
    until: float
    """Unix seconds."""
    over: tuple[str, ...]
    """Pools of which more is drained than their share, because the node goes anyway."""

    @property
    def words(self) -> str:
        """For people; the same for the same drain."""
        gangs = ", ".join(self.danger.ray_node.gangs) or "no gang"
        more = f"; that is more than the share of pool {', '.join(self.over)}, but it goes anyway" if self.over else ""
        name = self.danger.notice.signal.name
        return f"{name}: draining {gangs} in pod {self.danger.pod} until {write_time(self.until)}{more}"


@dataclass(frozen=True)
class Wait:
    """A Ray node that is not drained yet."""

    danger: Danger
    pool: str
    """Of which as many gangs as may be are being drained already."""

    @property
    def words(self) -> str:
        """For people; the same for as long as it waits."""
        danger = self.danger
        return (
            f"{danger.notice.signal.name}: the drain of pod {danger.pod} waits until fewer gangs of pool {self.pool} "
            "are being drained"
        )


@dataclass(frozen=True)
class DrainPlan:
    """What to do now."""

    drains: tuple[Drain, ...] = ()
    """The most urgent first."""
    waits: tuple[Wait, ...] = ()


def plan_drains(
    dangers: Iterable[Danger],
    ray_nodes: Sequence[NodeState],
    *,
    pools: Iterable[str],
    limits: DrainLimits,
    now: float,
) -> DrainPlan:
    """Which of the nodes in danger to drain now. `pools` are the names of the farm's pools."""
    books = _Books(ray_nodes, tuple(pools), limits.max_share)
    drains: list[Drain] = []
    waits: list[Wait] = []
    for danger in sorted(dangers, key=lambda one: (not one.notice.signal.forced, one.notice.left_s or 0.0, one.pod)):
        left_s = danger.notice.left_s
        if left_s is None or not _is_news(danger, now + left_s):
            continue
        over = books.over_with(danger.ray_node)
        must = danger.notice.signal.forced or left_s <= limits.least_s or danger.ray_node.state == "draining"
        if over and not must:
            waits.append(Wait(danger, over[0]))
            continue
        books.drain(danger.ray_node)
        drains.append(_drain(danger, over, now))
    return DrainPlan(tuple(drains), tuple(waits))


def pool_of(gang: str, pools: Iterable[str]) -> str | None:
    """The pool of a gang, by its name: `POOL-...`. The longest that fits, since names of pools may begin alike."""
    return max((pool for pool in pools if gang.startswith(f"{pool}-")), key=len, default=None)


def _is_news(danger: Danger, until: float) -> bool:
    """Whether the farm should be asked: it does not know, or not of so early a deadline."""
    if danger.ray_node.state == "dead":
        return False
    if danger.ray_node.state == "alive":
        return True
    if danger.asked_until is None:
        # Somebody else drains it, or we were interrupted; only one who knows the true end has something to say.
        return danger.notice.signal.forced
    return until < danger.asked_until - EARLIER_S


def _drain(danger: Danger, over: tuple[str, ...], now: float) -> Drain:
    assert danger.notice.left_s is not None
    until = now + danger.notice.left_s
    if danger.asked_until is not None:
        until = min(until, danger.asked_until)
    deadline_s = min(MAX_DRAIN_S, max(MIN_DEADLINE_S, until - now))
    signal = danger.notice.signal
    request = DrainRequest(
        cause=signal.cause, reason=f"node {danger.node}: {signal.name}"[:1000], deadline_s=deadline_s
    )
    return Drain(danger, request, now + deadline_s, over)


class _Books:
    """The gangs of every pool, and those of them that are leaving."""

    def __init__(self, ray_nodes: Sequence[NodeState], pools: tuple[str, ...], max_share: float) -> None:
        self._pools, self._max_share = pools, max_share
        self._all: dict[str, set[str]] = {}
        self._leaving: dict[str, set[str]] = {}
        for node in ray_nodes:
            if node.state != "dead":
                self._note(self._all, node)
            if node.state == "draining":
                self._note(self._leaving, node)

    def over_with(self, node: NodeState) -> tuple[str, ...]:
        """Pools that would have more gangs leaving than may, if the node were drained too. Never one of which none is
        leaving: a node with more gangs than that would wait for ever."""
        return tuple(pool for pool, gangs in sorted(self._by_pool(node).items()) if self._is_over(pool, gangs))

    def drain(self, node: NodeState) -> None:
        """It will be drained."""
        self._note(self._leaving, node)

    def _is_over(self, pool: str, gangs: set[str]) -> bool:
        leaving = self._leaving.get(pool, set())
        allowed = math.floor(self._max_share * len(self._all.get(pool, ())))
        return bool(leaving) and not gangs <= leaving and len(gangs | leaving) > allowed

    def _note(self, book: dict[str, set[str]], node: NodeState) -> None:
        for pool, gangs in self._by_pool(node).items():
            book.setdefault(pool, set()).update(gangs)

    def _by_pool(self, node: NodeState) -> Mapping[str, set[str]]:
        found: dict[str, set[str]] = {}
        for gang in node.gangs:
            pool = pool_of(gang, self._pools)
            if pool is not None:
                found.setdefault(pool, set()).add(gang)
        return found
