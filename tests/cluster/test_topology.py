"""What labels say of a node, and which Ray node is on which Kubernetes node."""

import pytest

from cluster.topology import SPOT_LABELS, place_ray_nodes, read_topology
from testkit.json_object import Json
from tests.cluster.controller.farm_double import node_state

LABELS = {
    "nvidia.com/gpu.product": "NVIDIA-GB200",
    "nvidia.com/gpu.count": "4",
    "nvidia.com/gpu.memory": "189471",
    "nvidia.com/gpu.clique": "7b968a6d-c8aa-45e1-9e07-e1e51be99c31.32766",
    "topology.kubernetes.io/zone": "us-east-2a",
    "node.kubernetes.io/instance-type": "p6e-gb200.36xlarge",
}


def node(labels: dict[str, str], allocatable: dict[str, str] | None = None) -> Json:
    return {"metadata": {"name": "n1", "labels": labels}, "status": {"allocatable": allocatable or {}}}


def pod(name: str, *, on: str | None, ip: str | None, phase: str = "Running", **labels: str) -> Json:
    spec = {"nodeName": on} if on else {}
    status: Json = {"phase": phase} | ({"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {})
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}


def test_labels_say_what_the_hardware_is() -> None:
    found = read_topology(node(LABELS))
    assert (found.product, found.gpus, found.gpu_memory_mib) == ("NVIDIA-GB200", 4, 189_471)
    assert found.island == "7b968a6d-c8aa-45e1-9e07-e1e51be99c31.32766"
    assert (found.zone, found.instance_type, found.spot) == ("us-east-2a", "p6e-gb200.36xlarge", None)
    assert found.is_of({"nvidia.com/gpu.product": "NVIDIA-GB200"})
    assert not found.is_of({"nvidia.com/gpu.product": "NVIDIA-L4"})


def test_a_node_without_labels_is_known_by_name_alone() -> None:
    found = read_topology({"metadata": {"name": "n1"}})
    assert (found.product, found.gpus, found.island, found.spot) == (None, 0, None, None)


def test_what_the_kubelet_offers_counts_before_what_labels_say() -> None:
    assert read_topology(node(LABELS, {"nvidia.com/gpu": "3"})).gpus == 3
    assert read_topology(node(LABELS, {"nvidia.com/gpu": "0"})).gpus == 0, "its device plugin is gone"


@pytest.mark.parametrize(("label", "value"), SPOT_LABELS.items())
def test_every_cloud_marks_spot_nodes_its_own_way(label: str, value: str) -> None:
    assert read_topology(node({label: value})).spot is True


@pytest.mark.parametrize(
    "labels", [{"karpenter.sh/capacity-type": "on-demand"}, {"eks.amazonaws.com/capacityType": "ON_DEMAND"}]
)
def test_some_say_that_a_node_is_none(labels: dict[str, str]) -> None:
    assert read_topology(node(labels)).spot is False


def test_ray_nodes_are_found_by_the_address_of_their_pod() -> None:
    rays = [node_state("a", address="10.0.0.1"), node_state("b", address="10.0.0.2")]
    pods = [pod("p2", on="n2", ip="10.0.0.2"), pod("p1", on="n1", ip="10.0.0.1"), pod("p3", on="n3", ip="10.0.0.3")]
    placed = place_ray_nodes(pods, rays)
    assert [(one.node, one.ray_node and one.ray_node.name) for one in placed] == [
        ("n1", "a"),
        ("n2", "b"),
        ("n3", None),
    ]


def test_pods_that_ended_or_have_no_node_do_not_count() -> None:
    rays = [node_state("a", address="10.0.0.1")]
    pods = [pod("old", on="n1", ip="10.0.0.1", phase="Failed"), pod("new", on="n2", ip="10.0.0.1")]
    assert [one.node for one in place_ray_nodes([*pods, pod("waits", on=None, ip=None)], rays)] == ["n2"]


def test_of_ray_nodes_with_one_address_the_living_one_counts() -> None:
    rays = [
        node_state("b", address="10.0.0.1"),
        node_state("a", address="10.0.0.1", state="dead"),
    ]
    (placed,) = place_ray_nodes([pod("p", on="n", ip="10.0.0.1")], rays)
    assert placed.ray_node is not None
    assert placed.ray_node.name == "b"


def test_the_head_is_known_by_kuberays_label() -> None:
    (head,) = place_ray_nodes([pod("h", on="n", ip="10.0.0.1", **{"ray.io/node-type": "head"})], [])
    assert head.is_head
