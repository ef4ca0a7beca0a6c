"""Which Ray nodes will go, by what Kubernetes says of nodes and pods and the farm of its Ray nodes.

Pure. What the farm was asked before is in annotations of the pod, our only memory of it: for the next leader, and for
people who run `kubectl describe pod`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.contract.pools_and_nodes import NodeState
from cluster.controller.drain_plan import Departure
from cluster.kube.timestamps import read_time, write_time
from cluster.render_pool import GROUP
from cluster.signals import Notice, read_notices, read_pod_notices
from cluster.topology import Placement, place_ray_nodes

Json = Mapping[str, Any]

DRAINED_NODE = f"{GROUP}/drained-ray-node"
"""Annotation of a pod: the Ray node in it that the farm was asked to drain. Another may live in the same pod later."""
DRAINED_UNTIL = f"{GROUP}/drained-until"
"""Annotation of a pod: until when."""
DRAINED_FOR = f"{GROUP}/drained-for"
"""Annotation of a pod: the signal, for people."""


@dataclass(frozen=True)
class Departures:
    """All that will go."""

    departures: tuple[Departure, ...]
    """Ray nodes that can be drained."""
    heads: tuple[Placement, ...]
    """Pods of Ray's head on nodes that will go. They cannot be drained; people are told."""


def find_departures(
    nodes: Iterable[Json], pods: Iterable[Json], ray_nodes: Sequence[NodeState], *, heed_cordons: bool, now: float
) -> Departures:
    """Which Ray nodes are on Kubernetes nodes, or in pods, that will go."""
    notices = {str(node["metadata"]["name"]): read_notices(node, now=now, heed_cordons=heed_cordons) for node in nodes}
    departures, heads = [], []
    for placed in place_ray_nodes(pods, ray_nodes):
        notice = most_urgent((*notices.get(placed.node, ()), *read_pod_notices(placed.pod, now=now)))
        if notice is None:
            continue
        if placed.is_head:
            heads.append(placed)
        elif placed.ray_node is not None and placed.ray_node.state != "dead":
            name = str(placed.pod["metadata"]["name"])
            requested_until = _requested_until(placed.pod, placed.ray_node.id)
            departures.append(Departure(placed.ray_node, placed.node, name, notice, requested_until))
    return Departures(tuple(departures), tuple(heads))


def most_urgent(notices: Iterable[Notice]) -> Notice | None:
    """The one that leaves the least time, forced ones first, of those for which something is drained."""
    acting = [notice for notice in notices if notice.left_s is not None]
    return min(acting, key=lambda one: (not one.signal.forced, one.left_s), default=None)


def drain_annotations(departure: Departure, until: float) -> dict[str, str]:
    """What is written into the pod after the farm was asked."""
    return {
        DRAINED_NODE: departure.ray_node.id,
        DRAINED_UNTIL: write_time(until),
        DRAINED_FOR: departure.notice.signal.name,
    }


def _requested_until(pod: Json, ray_node: str) -> float | None:
    notes = pod["metadata"].get("annotations") or {}
    return read_time(notes.get(DRAINED_UNTIL)) if notes.get(DRAINED_NODE) == ray_node else None
