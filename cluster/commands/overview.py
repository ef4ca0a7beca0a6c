"""What `longtake cluster status` shows: pools, nodes and drains, from what Kubernetes and the farm say.

Pure. Either may be missing; what it would have said is then left out, and why is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.contract.pools_and_nodes import NodeState, PoolState
from cluster.controller.departures import DRAINED_FOR, DRAINED_NODE, DRAINED_UNTIL
from cluster.controller.drain_plan import pool_of
from cluster.render_pool import RenderPool
from cluster.signals import read_notices, read_pod_notices
from cluster.topology import NodeTopology, Placement, place_ray_nodes, pod_addresses, read_topology

Json = dict[str, Any]


@dataclass(frozen=True)
class ClusterState:
    """What could be found out."""

    render_pools: Sequence[RenderPool] = ()
    nodes: Sequence[Mapping[str, Any]] = ()
    """Of Kubernetes."""
    pods: Sequence[Mapping[str, Any]] = ()
    """Of the farm's Ray cluster."""
    pools: Sequence[PoolState] = ()
    ray_nodes: Sequence[NodeState] = ()


def describe_cluster(cluster: ClusterState, *, now: float) -> Json:
    """As JSON: `pools`, `nodes` (of Ray, with what is known of their Kubernetes node) and `drains`."""
    topology = {one.name: one for one in map(read_topology, cluster.nodes)}
    notices = {str(one["metadata"]["name"]): read_notices(one, now=now) for one in cluster.nodes}
    placed = [_with_dead(one, cluster.ray_nodes) for one in place_ray_nodes(cluster.pods, cluster.ray_nodes)]
    names = [pool.name for pool in cluster.pools]
    shown = [_node(one, topology.get(one.node), names) for one in placed]
    known = {one.ray_node.id for one in placed if one.ray_node is not None}
    shown += [_ray_node(one, names) for one in cluster.ray_nodes if one.id not in known and one.state != "dead"]
    drains = [
        {
            "node": one.node,
            "pod": one.pod["metadata"]["name"],
            "ray_state": one.ray_node.state if one.ray_node is not None else None,
            "signals": [
                notice.signal.name for notice in (*notices.get(one.node, ()), *read_pod_notices(one.pod, now=now))
            ],
            "asked_for": _note(one, DRAINED_FOR),
            "asked_until": _note(one, DRAINED_UNTIL),
            "gangs": list(one.ray_node.gangs) if one.ray_node is not None else [],
            "calls": one.ray_node.calls if one.ray_node is not None else 0,
        }
        for one in placed
    ]
    return {
        "pools": [_pool(one, cluster.pools) for one in cluster.render_pools]
        + _unclaimed(cluster.render_pools, cluster.pools),
        "nodes": shown,
        "drains": [one for one in drains if one["signals"] or one["ray_state"] == "draining"],
    }


def _pool(pool: RenderPool, known: Sequence[PoolState]) -> Json:
    ready = pool.status.condition("Ready")
    return {
        "render_pool": pool.key,
        "pool": pool.spec.pool if pool.spec is not None else None,
        "shape": pool.spec.gang_shape if pool.spec is not None else None,
        "scaling": pool.spec.scaling if pool.spec is not None else None,
        "min_gangs": pool.spec.min_gangs if pool.spec is not None else None,
        "max_gangs": pool.spec.max_gangs if pool.spec is not None else None,
        **_gangs(next((one for one in known if pool.spec is not None and one.name == pool.spec.pool), None)),
        "ready": ready.status if ready is not None else "Unknown",
        "message": ready.message if ready is not None else "the controller has not looked at it yet",
    }


def _unclaimed(render_pools: Sequence[RenderPool], known: Sequence[PoolState]) -> list[Json]:
    """Pools of the farm without a RenderPool."""
    claimed = {pool.spec.pool for pool in render_pools if pool.spec is not None}
    return [
        {
            "render_pool": None,
            "pool": one.name,
            "shape": one.gang_shape,
            "scaling": one.terms.mode,
            "min_gangs": one.terms.min_gangs,
            "max_gangs": one.terms.max_gangs,
            **_gangs(one),
            "ready": "Unknown",
            "message": "no RenderPool speaks for it",
        }
        for one in known
        if one.name not in claimed
    ]


def _gangs(state: PoolState | None) -> Json:
    supply = state.supply if state is not None else None
    demand = state.demand if state is not None else None
    decision = state.decision if state is not None else None
    return {
        "gangs_wanted": decision.gangs if decision is not None else None,
        "gangs_ready": supply.ready if supply is not None else None,
        "gangs_starting": supply.starting if supply is not None else None,
        "gangs_draining": supply.draining if supply is not None else None,
        "backlog_gpu_s": round(demand.backlog_gpu_s, 1) if demand is not None else None,
        "reason": decision.reason if decision is not None else None,
    }


def _node(placed: Placement, topology: NodeTopology | None, pools: Sequence[str]) -> Json:
    known: Json = _ray_node(placed.ray_node, pools) if placed.ray_node is not None else dict(_NO_RAY_NODE)
    known |= {"node": placed.node, "pod": placed.pod["metadata"]["name"], "head": placed.is_head}
    if topology is not None:
        known |= {
            "product": topology.product,
            "gpus": topology.gpus,
            "nvlink_island": topology.island,
            "zone": topology.zone,
            "spot": topology.spot,
        }
    return known


def _with_dead(placed: Placement, ray_nodes: Sequence[NodeState]) -> Placement:
    """With the dead Ray node of a pod that has no living one: the one that was drained there, or that had its address.
    Only if the pod runs: one that starts may have been given an address that was used before."""
    if placed.ray_node is not None or (placed.pod.get("status") or {}).get("phase") != "Running":
        return placed
    drained, addresses = _note(placed, DRAINED_NODE), pod_addresses(placed.pod)
    dead = [one for one in ray_nodes if one.state == "dead" and (one.id == drained or one.address in addresses)]
    return replace(placed, ray_node=dead[-1] if dead else None)


_NO_RAY_NODE: Json = {"ray_node": None, "state": "starting", "gangs": [], "pools": [], "timeline_hosts": [], "calls": 0}


def _ray_node(node: NodeState, pools: Sequence[str]) -> Json:
    return {
        "ray_node": node.id,
        "state": node.state,
        "gangs": list(node.gangs),
        "pools": sorted({pool for gang in node.gangs if (pool := pool_of(gang, pools)) is not None}),
        "timeline_hosts": list(node.timeline_hosts),
        "calls": node.calls,
    }


def _note(placed: Placement, name: str) -> str | None:
    value = (placed.pod["metadata"].get("annotations") or {}).get(name)
    return None if value is None else str(value)
