"""The nodes of the Ray cluster that the farm runs on: which there are, which are about to go, and how to have one go.

Ray has no public way to ask for draining nodes or to drain one (2.60); Serve and `ray drain-node` do it in this way.
Everything here blocks for one answer of Ray's control service; call it in a thread where others wait.
"""

import time
from typing import Any

import ray
from ray.core.generated import autoscaler_pb2

from serving.director.ports import ClusterNode
from serving.errors import Fault
from serving.settings import CONTROL_RESOURCE

_HEAD_RESOURCE = "node:__internal_head__"

_REASON = "DRAIN_NODE_REASON_PREEMPTION"
"""For every cause: the other reason that Ray knows is for idle nodes alone, which it refuses for others."""


def draining_nodes() -> dict[str, float]:
    """Ray's ids of the nodes that are about to go, and the Unix seconds until which each stays; 0 if Ray was told
    none."""
    nodes = _control_service().get_draining_nodes()
    return {node if isinstance(node, str) else node.hex(): until_ms / 1000 for node, until_ms in nodes.items()}


class RayNodes:
    """The nodes as the Director asks for them."""

    def nodes(self) -> list[ClusterNode]:
        """Every node that Ray remembers, those that are gone too."""
        draining = draining_nodes()
        return [_node(found, draining) for found in ray.nodes()]

    def draining(self) -> dict[str, float]:
        """See draining_nodes."""
        return draining_nodes()

    def drain(self, node: str, *, reason: str, until: float) -> None:
        """Have a node go: nothing new is put there, and by `until`, in Unix seconds, it may be gone. Raises Fault if
        Ray refuses."""
        protocol: Any = autoscaler_pb2  # it has no types
        kind = protocol.DrainNodeReason.Value(_REASON)
        until_ms = int(max(until, time.time() + 1) * 1000)  # Ray takes a time that is over for none at all
        accepted, why = _control_service().drain_node(node, kind, reason, until_ms)
        if not accepted:
            raise Fault(f"Ray does not drain node {node}: {why}")


def _node(found: Any, draining: dict[str, float]) -> ClusterNode:
    alive, node = bool(found["Alive"]), str(found["NodeID"])
    resources = found["Resources"]
    return ClusterNode(
        id=node,
        address=found["NodeManagerAddress"],
        name=found["NodeManagerHostname"],
        labels=dict(found.get("Labels") or {}),
        state="dead" if not alive else "draining" if node in draining else "alive",
        is_head=_HEAD_RESOURCE in resources,
        takes_hosts=CONTROL_RESOURCE in resources,
        until=draining.get(node) if alive else None,
    )


def _control_service() -> Any:
    from ray._private import worker

    return vars(worker.global_worker)["gcs_client"]
