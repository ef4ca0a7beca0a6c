"""A drain that somebody asks for by hand: which Ray nodes a name means, and waiting until they are empty."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from cluster.contract.pools_and_nodes import NodeState
from cluster.errors import FarmUnavailable, UserMistake, did_you_mean
from cluster.topology import place_ray_nodes


class NodesFarm(Protocol):
    """Knows its nodes; FarmClient is one."""

    def nodes(self) -> tuple[NodeState, ...]:
        """Raises FarmRefused, FarmUnavailable."""


def find_ray_nodes(name: str, pods: Iterable[Mapping[str, Any]], ray_nodes: Sequence[NodeState]) -> list[NodeState]:
    """The living Ray nodes that a name means: all on a Kubernetes node of that name, or the one whose id, name, address
    or pod it is. Raises UserMistake if there is none, and for Ray's head."""
    living = [one for one in ray_nodes if one.state != "dead"]
    placed = [one for one in place_ray_nodes(pods, living) if one.ray_node is not None]
    matching = [one for one in placed if name in (one.node, one.pod["metadata"]["name"])]
    if any(one.is_head for one in matching):
        raise UserMistake(f"NODE: Ray's head runs on {name}, which cannot be drained; move the farm instead")
    found = [one.ray_node for one in matching if one.ray_node is not None]
    found += [one for one in living if name in (one.id, one.name, one.address) and one not in found]
    if not found:
        known = {one.node for one in placed} | {one.name for one in living}
        raise UserMistake(f"NODE: no Ray node is on or called {name!r}{did_you_mean(name, known)}")
    return found


def wait_for_drain(
    farm: NodesFarm,
    ray_nodes: Sequence[NodeState],
    *,
    within_s: float,
    poll_s: float,
    report: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until nothing is left on the nodes, reporting progress. False if that takes longer than `within_s`; a
    farm that is away for a moment is waited for."""
    wanted, end, shown = {one.id for one in ray_nodes}, clock() + within_s, ""
    while True:
        try:
            left = [one for one in farm.nodes() if one.id in wanted and _holds_something(one)]
            line = "; ".join(_describe(one) for one in left)
        except FarmUnavailable as error:
            left, line = list(ray_nodes), str(error)
        if not left:
            report("drained")
            return True
        if line != shown:
            report(line)
            shown = line
        if clock() >= end:
            report(f"not empty after {within_s:.0f} s")
            return False
        sleep(poll_s)


def _holds_something(node: NodeState) -> bool:
    return node.state != "dead" and bool(node.gangs or node.timeline_hosts or node.calls)


def _describe(node: NodeState) -> str:
    parts = [f"{len(node.gangs)} gangs", f"{node.calls} calls", f"{len(node.timeline_hosts)} timeline hosts"]
    return f"{node.name or node.id}: {', '.join(parts)} left"
