"""Puts together what Kubernetes says of nodes and pods and what the farm says of its Ray nodes: which of these will go.

Pure. What the farm was asked before is written into annotations of the pod, our only memory of it: it is there for
whoever takes over, and for whoever looks with `kubectl describe pod`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.contract.pools_and_nodes import NodeState
from cluster.controller.drain_plan import Danger
from cluster.kube.timestamps import read_time, write_time
from cluster.render_pool import GROUP
from cluster.signals import Notice, read_notices, read_pod_notices
from cluster.topology import Placement, place_ray_nodes

Json = Mapping[str, Any]

DRAINED_NODE = f"{GROUP}/drained-ray-node"
"""Annotation of a pod: the Ray node in it that the farm was asked to drain. Later another may live in the same pod."""
DRAINED_UNTIL = f"{GROUP}/drained-until"
"""Annotation of a pod: until when."""
DRAINED_FOR = f"{GROUP}/drained-for"
"""Annotation of a pod: the signal, for people."""


@dataclass(frozen=True)
class Outlook:
    """What will go."""

    dangers: tuple[Danger, ...]
    """Ray nodes that can be drained."""
    heads: tuple[Placement, ...]
    """Pods of Ray's head on nodes that will go. Nothing can be done but to tell people."""


def look_out(
    nodes: Iterable[Json], pods: Iterable[Json], ray_nodes: Sequence[NodeState], *, heed_cordons: bool, now: float
) -> Outlook:
    """Which Ray nodes are on Kubernetes nodes, or in pods, that will go."""
    notices = {str(node["metadata"]["name"]): read_notices(node, now=now, heed_cordons=heed_cordons) for node in nodes}
    dangers, heads = [], []
    for placed in place_ray_nodes(pods, ray_nodes):
        notice = most_urgent((*notices.get(placed.node, ()), *read_pod_notices(placed.pod, now=now)))
        if notice is None:
            continue
        if placed.is_head:
            heads.append(placed)
        elif placed.ray_node is not None and placed.ray_node.state != "dead":
            name = str(placed.pod["metadata"]["name"])
            asked_until = _asked_until(placed.pod, placed.ray_node.id)
            dangers.append(Danger(placed.ray_node, placed.node, name, notice, asked_until))
    return Outlook(tuple(dangers), tuple(heads))


def most_urgent(notices: Iterable[Notice]) -> Notice | None:
    """The one that leaves the least time, of those for which something is to be drained. Of two alike the one that is
    certain."""
    acting = [notice for notice in notices if notice.left_s is not None]
    return min(acting, key=lambda one: (not one.signal.forced, one.left_s), default=None)


def drain_annotations(danger: Danger, until: float) -> dict[str, str]:
    """What is written into the pod after the farm was asked."""
    return {
        DRAINED_NODE: danger.ray_node.id,
        DRAINED_UNTIL: write_time(until),
        DRAINED_FOR: danger.notice.signal.name,
    }


def _asked_until(pod: Json, ray_node: str) -> float | None:
    notes = pod["metadata"].get("annotations") or {}
    return read_time(notes.get(DRAINED_UNTIL)) if notes.get(DRAINED_NODE) == ray_node else None
