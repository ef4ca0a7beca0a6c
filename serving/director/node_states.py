"""Nodes as others see them: which gangs and timeline hosts are on each. Pure."""

import difflib
from collections.abc import Mapping, Sequence

from cluster.contract.pools_and_nodes import NodeState
from serving.director.pools.gangs import Gangs
from serving.director.ports import ClusterNode
from serving.errors import NotFound, WrongState


def host_name(index: int) -> str:
    """What a timeline host is called."""
    return f"timeline-host-{index}"


def describe_node(node: ClusterNode, *, gangs: Gangs, places: Mapping[int, str]) -> NodeState:
    """A node with what is on it; `places` are the nodes of timeline hosts by their index."""
    there = gangs.on_node(node.id)
    return NodeState(
        id=node.id,
        address=node.address,
        name=node.name,
        labels=dict(node.labels),
        state=node.state,
        gangs=tuple(there),
        timeline_hosts=tuple(host_name(host) for host, place in sorted(places.items()) if place == node.id),
        calls=sum(there.values()),
    )


def find_node(nodes: Sequence[ClusterNode], node_id: str) -> ClusterNode:
    """The node of that id, which may be drained. Raises NotFound with the nearest match, WrongState for the head."""
    found = next((node for node in nodes if node.id == node_id), None)
    if found is None:
        living = [node.id for node in nodes if node.state != "dead"]
        nearest = difflib.get_close_matches(node_id, living, n=1, cutoff=0.8)
        meant = f"; did you mean {nearest[0]}?" if nearest else "; GET /v1/nodes lists them"
        raise NotFound(f"there is no node {node_id[:100]}{meant}")
    if found.is_head:
        raise WrongState(f"node {node_id} is the head, with which the farm would end: it cannot be drained")
    return found
