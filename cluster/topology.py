"""What a Kubernetes node's labels say of its hardware and its place, and which Ray nodes are on it.

Pure. Labels: GPU Feature Discovery (product, count, memory, clique), well-known labels of Kubernetes (zone, instance
type), and those by which clouds and Karpenter mark spot nodes. What a label does not say is None, never guessed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.contract.pools_and_nodes import NodeState

Json = Mapping[str, Any]

PRODUCT = "nvidia.com/gpu.product"
COUNT = "nvidia.com/gpu.count"
MEMORY = "nvidia.com/gpu.memory"
CLIQUE = "nvidia.com/gpu.clique"
ZONE = "topology.kubernetes.io/zone"
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
GPU_RESOURCE = "nvidia.com/gpu"

RAY_NODE_TYPE = "ray.io/node-type"
"""KubeRay's label on pods: head or worker."""
RAY_CLUSTER = "ray.io/cluster"

SPOT_LABELS: Mapping[str, str] = {
    "karpenter.sh/capacity-type": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "cloud.google.com/gke-spot": "true",
    "cloud.google.com/gke-preemptible": "true",
    "cloud.google.com/gke-provisioning": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
"""Labels of spot nodes, with the value that says so."""

_ON_DEMAND_LABELS = (
    "karpenter.sh/capacity-type",
    "eks.amazonaws.com/capacityType",
    "cloud.google.com/gke-provisioning",
)
"""Of those, the ones that on-demand nodes carry as well, with another value."""


@dataclass(frozen=True)
class NodeTopology:
    """What is known of one Kubernetes node."""

    name: str
    product: str | None
    """Of its GPUs, such as NVIDIA-H100-80GB-HBM3."""
    gpus: int
    """That pods can be given; 0 if there are none, or no device plugin offers them."""
    gpu_memory_mib: int | None
    """Of each GPU."""
    island: str | None
    """GPUs of nodes with the same island reach each other by NVLink: the fabric's cluster and clique. None: only inside
    the node."""
    zone: str | None
    instance_type: str | None
    spot: bool | None
    """Whether the cloud may take it away at any time; None if nothing says."""
    labels: Mapping[str, str]

    def is_of(self, kind: Mapping[str, str]) -> bool:
        """Whether it carries all labels of a RenderPool's nodeKind."""
        return all(self.labels.get(name) == value for name, value in kind.items())


def read_topology(node: Json) -> NodeTopology:
    """What a Node object says."""
    meta = node["metadata"]
    labels: dict[str, str] = dict(meta.get("labels") or {})
    return NodeTopology(
        name=str(meta["name"]),
        product=labels.get(PRODUCT),
        gpus=_gpus(node, labels),
        gpu_memory_mib=_number(labels.get(MEMORY)),
        island=labels.get(CLIQUE),
        zone=labels.get(ZONE),
        instance_type=labels.get(INSTANCE_TYPE),
        spot=_is_spot(labels),
        labels=labels,
    )


@dataclass(frozen=True)
class Placement:
    """A pod of the Ray cluster, with the Ray node in it if Ray knows it."""

    pod: Json
    node: str
    """Name of the Kubernetes node."""
    ray_node: NodeState | None

    @property
    def is_head(self) -> bool:
        """Whether Ray's head runs in it: that cannot be drained, only moved with the whole cluster."""
        return (self.pod["metadata"].get("labels") or {}).get(RAY_NODE_TYPE) == "head"


def place_ray_nodes(pods: Iterable[Json], ray_nodes: Iterable[NodeState]) -> tuple[Placement, ...]:
    """Every living pod that has a node, with the Ray node of its address, by pod name.

    Addresses are used again: pods that ended do not count, and of Ray nodes with one address the living one does.
    """
    by_address: dict[str, NodeState] = {}
    for found in ray_nodes:
        if found.state != "dead":
            by_address[found.address] = found
    placed = []
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if node and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            known = (by_address[address] for address in pod_addresses(pod) if address in by_address)
            placed.append(Placement(pod, str(node), next(known, None)))
    return tuple(sorted(placed, key=lambda one: str(one.pod["metadata"]["name"])))


def pod_addresses(pod: Json) -> list[str]:
    """IP addresses of a pod; none before it has one."""
    status = pod.get("status") or {}
    listed = [str(one.get("ip")) for one in status.get("podIPs") or () if one.get("ip")]
    return listed or ([str(status["podIP"])] if status.get("podIP") else [])


def _gpus(node: Json, labels: Mapping[str, str]) -> int:
    """What the kubelet offers counts before what feature discovery found: a pod can only be given the former."""
    offered = ((node.get("status") or {}).get("allocatable") or {}).get(GPU_RESOURCE)
    return _number(labels.get(COUNT) if offered is None else offered) or 0


def _number(text: object) -> int | None:
    try:
        return int(str(text))
    except ValueError:
        return None


def _is_spot(labels: Mapping[str, str]) -> bool | None:
    if any(labels.get(name) == value for name, value in SPOT_LABELS.items()):
        return True
    return False if any(name in labels for name in _ON_DEMAND_LABELS) else None
