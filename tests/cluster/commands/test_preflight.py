"""What preflight finds in clusters that lack this or that, each with the way to mend it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster.commands.findings import Finding
from cluster.commands.permissions import PERMISSIONS
from cluster.commands.preflight import (
    APPLY_CRD,
    OLDEST_KUBERNETES,
    Requirements,
    check_cluster,
    check_crd,
    check_kuberay,
    judge_gpus,
    judge_memory,
)
from cluster.crd import CRD_NAME, RENDER_POOLS, render_pool_crd
from cluster.farm_client import FarmClient
from cluster.kube.client import Kube, connect
from cluster.kube.errors import Conflict
from cluster.kube.resources import CRDS
from cluster.topology import read_topology
from testkit.json_object import Json
from tests.cluster.api_server.server import KubeServer
from tests.cluster.controller.farm_double import KEY
from tests.cluster.controller.world import World

pytest_plugins = ["tests.cluster.fixtures"]

ROOT = Path(__file__).parents[3]
PAGES = [
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / name for name in ("helm/longtake/README.md", "README.md", "cluster/commands/cli.py")),
]

REQUIREMENTS = Requirements("default")


def ray_service_crd(*fields: str) -> Json:
    """KubeRay's CRD, as far as it is looked at."""
    group = {"type": "object", "properties": {name: {"type": "string"} for name in fields}}
    config = {"type": "object", "properties": {"workerGroupSpecs": {"type": "array", "items": group}}}
    spec = {"type": "object", "properties": {"rayClusterConfig": config}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "rayservices.ray.io"},
        "spec": {
            "group": "ray.io",
            "names": {
                "kind": "RayService",
                "plural": "rayservices",
                "listKind": "RayServiceList",
                "singular": "rayservice",
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
                }
            ],
        },
    }


def operator(ready: int) -> Json:
    labels = {"app.kubernetes.io/name": "kuberay-operator"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "o", "image": "kuberay/operator:v1.7.0"}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kuberay-operator", "namespace": "default", "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
        "status": {"readyReplicas": ready},
    }


def storage_class(name: str, provisioner: str, *, default: bool = False) -> Json:
    notes = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": notes},
        "provisioner": provisioner,
    }


def gpu_node(name: str, *, offered: str | None = "8", **labels: str) -> Json:
    allocatable = {} if offered is None else {"nvidia.com/gpu": offered}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {name.replace("_", "/"): value for name, value in labels.items()}},
        "status": {"allocatable": allocatable},
    }


H100 = {
    "nvidia.com_gpu.product": "NVIDIA-H100-80GB-HBM3",
    "nvidia.com_gpu.memory": "81559",
    "nvidia.com_gpu.count": "8",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KubeServer]:
    with KubeServer() as opened:
        opened.kubeconfig(tmp_path / "config")
        yield opened


@pytest.fixture
def kube(server: KubeServer, tmp_path: Path) -> Kube:
    return connect(kubeconfig=tmp_path / "config")


def of(findings: list[Finding], name: str) -> list[tuple[str, str]]:
    return [(one.state, one.found) for one in findings if one.name == name]


def furnish(server: KubeServer, kube: Kube) -> None:
    """All that a cluster needs."""
    kube.apply(CRDS, render_pool_crd())
    server.put(ray_service_crd("priority", "idleTimeoutSeconds", "labels"))
    server.put(operator(1))
    server.put(gpu_node("g1", **H100))
    server.put(storage_class("gp3", "ebs.csi.aws.com", default=True))
    server.put(storage_class("efs", "efs.csi.aws.com"))


def test_a_cluster_that_has_everything_passes(server: KubeServer, kube: Kube) -> None:
    furnish(server, kube)
    findings = check_cluster(kube, Requirements("default", weights_gib=28.0, shared_class="efs"))
    assert {one.state for one in findings} == {"ok"}, [one for one in findings if one.state != "ok"]
    assert all(not one.fix for one in findings)
    assert of(findings, "GPUs") == [("ok", "8 x NVIDIA-H100-80GB-HBM3")]
    assert len(of(findings, "permissions")) == len(PERMISSIONS)


def test_an_empty_cluster_fails_with_a_fix_for_everything(kube: Kube) -> None:
    findings = check_cluster(kube, REQUIREMENTS)
    states = {one.name: one.state for one in findings}
    assert states["RenderPool CRD"] == states["KubeRay CRD"] == "fail"
    assert states["default StorageClass"] == states["GPUs"] == "warn"
    assert all(one.fix for one in findings if one.state != "ok")


def test_a_crd_of_another_release_fails(server: KubeServer, kube: Kube) -> None:
    crd = render_pool_crd()
    del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["spotPolicy"]
    kube.apply(CRDS, crd)
    (finding,) = check_crd(kube)
    assert (finding.state, finding.found, finding.fix) == ("fail", "of another release: schema differ", APPLY_CRD)
    kube.apply(CRDS, render_pool_crd(), force=True)
    assert [one.state for one in check_crd(kube)] == ["ok"]
    assert kube.get(CRDS, CRD_NAME)


def test_a_kuberay_that_is_too_old_or_does_not_run_fails(server: KubeServer, kube: Kube) -> None:
    server.put(ray_service_crd("labels"))
    crd, running = check_kuberay(kube)
    assert (crd.state, crd.found) == ("fail", "worker groups have no priority, idleTimeoutSeconds")
    assert (running.state, running.found) == ("fail", "none runs in this cluster")
    server.put(operator(0))
    _, running = check_kuberay(kube)
    assert running.found == "default/kuberay-operator, kuberay/operator:v1.7.0, not ready"


@pytest.mark.skipif("LONGTAKE_CRDS" not in os.environ, reason="set LONGTAKE_CRDS to a folder with KubeRay's CRDs")
def test_the_real_crd_of_kuberay_has_what_is_looked_for(server: KubeServer, kube: Kube) -> None:
    folder = Path(os.environ["LONGTAKE_CRDS"])
    server.put(yaml.load((folder / "ray.io_rayservices.yaml").read_text(), yaml.CSafeLoader))
    assert next(iter(check_kuberay(kube))).state == "ok"


def test_gpus_that_no_pod_can_be_given_fail() -> None:
    (finding,) = judge_gpus([read_topology(gpu_node("g1", offered="0", **H100))])
    assert (finding.state, finding.found) == ("fail", "g1: has GPUs, but no pod can be given one")


def test_gpus_without_labels_and_nodes_without_gpus_warn() -> None:
    nameless, known = judge_gpus([read_topology(gpu_node("g1"))])
    assert (nameless.state, known.found) == ("warn", "8 x unknown")
    (none,) = judge_gpus([read_topology(gpu_node("c1", offered=None))])
    assert (none.state, none.found) == ("warn", "none of 1 nodes offers any")


@pytest.mark.parametrize(("weights_gib", "state"), [(28, "ok"), (70, "warn"), (81, "fail")])
def test_weights_are_compared_with_the_memory_of_the_gpus(weights_gib: float, state: str) -> None:
    (finding,) = judge_memory([read_topology(gpu_node("g1", **H100))], weights_gib)
    assert finding.state == state
    assert bool(finding.fix) == (state != "ok")


def test_a_pool_without_nodes_of_its_kind_is_told(server: KubeServer, kube: Kube) -> None:
    furnish(server, kube)
    spec = {"pool": "wan", "model": "m", "nodeKind": {"nvidia.com/gpu.product": "NVIDIA-L4"}}
    kube.create(RENDER_POOLS, {"metadata": {"name": "wan", "namespace": "default"}, "spec": spec})
    findings = check_cluster(kube, REQUIREMENTS)
    assert of(findings, "nodes of default/wan") == [("warn", "none has nvidia.com/gpu.product=NVIDIA-L4")]


def test_shared_storage_is_checked_by_who_provides_it(server: KubeServer, kube: Kube) -> None:
    furnish(server, kube)
    (finding,) = of(check_cluster(kube, Requirements("default", shared_class="gp3")), "shared storage")
    assert finding == ("fail", "volumes of gp3 (ebs.csi.aws.com) are for one node")
    (finding,) = of(check_cluster(kube, Requirements("default", shared_class="gp4")), "shared storage")
    assert finding == ("fail", "no StorageClass 'gp4'; did you mean 'gp3'?")


def test_what_may_not_be_done_is_named_verb_by_verb(server: KubeServer, kube: Kube) -> None:
    furnish(server, kube)
    server.deny("patch", "renderpools/status")
    server.deny("watch", "nodes")
    findings = check_cluster(kube, REQUIREMENTS)
    assert ("fail", "not allowed in default: patch renderpools/status") in of(findings, "permissions")
    assert ("warn", "not allowed in the cluster: watch nodes") in of(findings, "permissions")


def test_what_may_not_be_looked_at_does_not_end_the_rest(server: KubeServer, kube: Kube) -> None:
    furnish(server, kube)
    server.deny("list", "nodes")
    findings = check_cluster(kube, REQUIREMENTS)
    ((state, found),) = of(findings, "GPUs")
    assert state == "warn"
    assert "not allowed to look" in found
    assert of(findings, "default StorageClass")


def test_the_farm_is_asked_where_it_is_named(world: World) -> None:
    with FarmClient(world.farm.url, api_key=KEY, timeout_s=2) as farm:
        assert of(check_cluster(world.kube, REQUIREMENTS, farm), "farm") == [("ok", f"{world.farm.url} has 1 pool")]
    with FarmClient(world.farm.url, api_key="wrong", timeout_s=2) as farm:
        assert of(check_cluster(world.kube, REQUIREMENTS, farm), "farm") == [("warn", "an API key is needed")]


def test_the_oldest_kubernetes_is_the_charts() -> None:
    chart = yaml.safe_load((ROOT / "helm/longtake/Chart.yaml").read_text())
    assert chart["kubeVersion"] == ">={}.{}.0-0".format(*OLDEST_KUBERNETES)


def test_every_command_that_applies_the_definition_takes_it_over_from_helm(kube: Kube) -> None:
    """Helm owns the fields of a definition that it installed, and of them a newer release changes some."""
    kube.connection.ask(
        "POST",
        CRDS.path(),
        body=render_pool_crd() | {"apiVersion": CRDS.api_version, "kind": CRDS.kind},
        query={"fieldManager": "helm"},
        timeout_s=10.0,
    )
    newer = render_pool_crd()
    newer["spec"]["versions"][0]["additionalPrinterColumns"].pop()
    with pytest.raises(Conflict, match="helm"):
        kube.apply(CRDS, newer)
    kube.apply(CRDS, newer, force=True)
    told = [APPLY_CRD, *(line for page in PAGES for line in page.read_text().splitlines())]
    commands = [line for line in told if "kubectl apply --server-side" in line]
    assert len(commands) >= 5
    assert [line for line in commands if "--force-conflicts" not in line] == []


def test_the_documentation_names_every_permission() -> None:
    page = (ROOT / "docs/controller.md").read_text()
    for permission in PERMISSIONS:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{permission.name}`"))
        assert ", ".join(permission.verbs) in row
