"""Upgrades of a running farm: what the chart looks up in the cluster, to refuse a change before anything is applied or
to print the commands that do what KubeRay does not."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.crd import RENDER_POOLS, render_pool_crd
from cluster.kube.client import Kube, PatchKind, connect
from cluster.kube.resources import Resource
from tests.charts.chart_rendering import (
    HELMS,
    NAMESPACE,
    Manifest,
    Ran,
    changed,
    groups,
    notes,
    of_kind,
    only,
    ray_service,
    read_documents,
    render,
    try_upgrade,
    values_of,
    with_notes,
)
from tests.cluster.api_server.server import KubeServer

CLUSTER = "longtake-abcde"

RAY_CLUSTERS = Resource("ray.io", "v1", "rayclusters", "RayCluster")
SERVICES = Resource("", "v1", "services", "Service")
KINDS = {"raycluster": RAY_CLUSTERS, "service": SERVICES}


def open_crd(group: str, plural: str, kind: str) -> Manifest:
    """The definition of a kind that may hold anything."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": anything, "status": anything}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": plural, "kind": kind, "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": names,
            "scope": "Namespaced",
            "versions": [version | {"subresources": {"status": {}}}],
        },
    }


@pytest.fixture
def server() -> Iterator[KubeServer]:
    """An API server that knows the kinds of KubeRay and of Longtake."""
    with KubeServer() as server:
        server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        for crd in (
            render_pool_crd(),
            open_crd("ray.io", "rayservices", "RayService"),
            open_crd("ray.io", "rayclusters", "RayCluster"),
        ):
            server.put(crd)
        yield server


@pytest.fixture
def kubeconfig(server: KubeServer, tmp_path: Path) -> Path:
    return server.kubeconfig(tmp_path / "kubeconfig")


def run_farm(server: KubeServer, values: dict[str, Any]) -> None:
    """As Helm and KubeRay leave the objects that matter here."""
    manifests = render(values)
    for pool in of_kind(manifests, "RenderPool"):
        server.put(pool)
    status = {"activeServiceStatus": {"rayClusterName": CLUSTER}}
    service = only(manifests, "RayService")
    server.put({**service, "status": status})
    spec = ray_service(manifests)
    meta = {"name": CLUSTER, "namespace": NAMESPACE}
    server.put({"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": meta, "spec": spec["rayClusterConfig"]})
    serve = spec.get("serveService", {})
    meta = {"name": "longtake-serve-svc", "namespace": NAMESPACE, **serve.get("metadata", {})}
    server.put({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": serve.get("spec", {})})


@pytest.mark.parametrize("helm_name", HELMS)
@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("pools.0.gangShape", "cfg=2", 'pools[0].gangShape: is "cfg=2", and cannot change from "cfg=2 x ulysses=4"'),
        ("pools.1.model", "pocket", 'pools[1].model: is "pocket", and cannot change from "Wan-AI/'),
        ("pools.0.nodeKind", {"gpu": "L4"}, 'pools[0].nodeKind: is {"gpu":"L4"}, and cannot change from {"nvidia.com'),
        ("pools.1.nodeKind", {"gpu": "L4"}, 'pools[1].nodeKind: is {"gpu":"L4"}, and cannot change from {} while'),
    ],
)
def test_what_a_pool_can_never_change_is_refused_before_anything_is_applied(
    server: KubeServer, kubeconfig: Path, path: str, value: object, told: str, helm_name: str
) -> None:
    run_farm(server, values_of("gpu"))
    ran = try_upgrade(changed(values_of("gpu"), path, value), kubeconfig, helm_name=helm_name)
    assert ran.code != 0
    assert told in ran.err
    name = f"longtake-{values_of('gpu')['pools'][int(path.split('.')[1])]['name']}"
    assert f"first run: kubectl -n {NAMESPACE} delete renderpool {name}" in ran.err


def test_a_pool_whose_render_pool_is_gone_may_change(server: KubeServer, kubeconfig: Path) -> None:
    run_farm(server, values_of("gpu"))
    connect(kubeconfig=kubeconfig).delete(RENDER_POOLS, "longtake-wan-14b", namespace=NAMESPACE)
    ran = try_upgrade(changed(values_of("gpu"), "pools.0.gangShape", "cfg=2"), kubeconfig, helm_name="helm3")
    assert ran.code == 0, ran.err


def test_an_unchanged_pool_and_a_first_installation_are_not_refused(server: KubeServer, kubeconfig: Path) -> None:
    assert try_upgrade(values_of("gpu"), kubeconfig, helm_name="helm3").code == 0
    run_farm(server, values_of("gpu"))
    assert try_upgrade(values_of("gpu"), kubeconfig, helm_name="helm3").code == 0


def told_by(ran: Ran) -> str:
    assert ran.code == 0, ran.err
    return notes(read_documents(ran.out))


def patches(text: str) -> Iterator[tuple[str, str, PatchKind, Any]]:
    """Kind, name, type and body of every `kubectl patch` in the notes."""
    for line in re.findall(r"^  (kubectl .* patch .*)$", text, flags=re.MULTILINE):
        match shlex.split(line):
            case [
                "kubectl",
                "-n",
                "films",
                "patch",
                kind,
                name,
                "--type=json" | "--type=merge" as how,
                "--patch",
                body,
            ]:
                yield kind, name, "json" if how == "--type=json" else "merge", json.loads(body)
            case words:
                raise AssertionError(words)


def follow(text: str, kube: Kube) -> None:
    """Do what the notes say."""
    for kind, name, how, body in patches(text):
        kube.patch(KINDS[kind], name, body, namespace=NAMESPACE, kind=how)


TOLERATION = [{"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("pools.0.workers.0.maxReplicas", 12),
        ("pools.0.workers.1.minReplicas", 0),
        ("pools.1.workers.0.tolerations", TOLERATION),
        ("pools.0.workers.0.tolerations", []),
        ("ray.head.tolerations", TOLERATION),
        ("ray.control.replicas", 3),
    ],
)
def test_the_notes_give_the_running_cluster_what_kuberay_does_not(
    server: KubeServer, kubeconfig: Path, tmp_path: Path, path: str, value: object
) -> None:
    run_farm(server, values_of("gpu"))
    values = changed(values_of("gpu"), path, value)
    text = told_by(try_upgrade(values, kubeconfig, helm_name="helm3", chart=with_notes(tmp_path)))
    assert "KubeRay gives numbers of nodes and tolerations only to a new Ray cluster" in text
    kube = connect(kubeconfig=kubeconfig)
    follow(text, kube)
    running = kube.get(RAY_CLUSTERS, CLUSTER, namespace=NAMESPACE)["spec"]
    wanted = ray_service(render(values))["rayClusterConfig"]
    for group in running["workerGroupSpecs"]:
        new = groups(render(values))[group["groupName"]]
        group.pop("replicas", None), new.pop("replicas", None)
        assert without_empty(group) == without_empty(new)
    assert without_empty(running["headGroupSpec"]) == without_empty(wanted["headGroupSpec"])


def without_empty(spec: Manifest) -> Manifest:
    """A pod's group without an empty list of tolerations, which is none."""
    copy: Manifest = json.loads(json.dumps(spec))
    if copy["template"]["spec"].get("tolerations") == []:
        del copy["template"]["spec"]["tolerations"]
    return copy


def test_the_notes_change_the_service_that_kuberay_leaves_alone(
    server: KubeServer, kubeconfig: Path, tmp_path: Path
) -> None:
    run_farm(server, changed(values_of("gpu"), "service.annotations", {"a": "1", "old": "x"}))
    values = changed(values_of("gpu"), "service", {"type": "NodePort", "annotations": {"a": "it's 2", "b": "3"}})
    text = told_by(try_upgrade(values, kubeconfig, helm_name="helm3", chart=with_notes(tmp_path)))
    kube = connect(kubeconfig=kubeconfig)
    follow(text, kube)
    service = kube.get(SERVICES, "longtake-serve-svc", namespace=NAMESPACE)
    assert service["spec"]["type"] == "NodePort"
    assert service["metadata"]["annotations"] == {"a": "it's 2", "b": "3"}


def test_the_notes_are_silent_where_nothing_is_left_behind(
    server: KubeServer, kubeconfig: Path, tmp_path: Path
) -> None:
    chart = with_notes(tmp_path)
    assert list(patches(told_by(try_upgrade(values_of("gpu"), kubeconfig, helm_name="helm3", chart=chart)))) == []
    run_farm(server, values_of("gpu"))
    values = changed(values_of("gpu"), "pools.0.maxGangs", 13)
    assert list(patches(told_by(try_upgrade(values, kubeconfig, helm_name="helm3", chart=chart)))) == []
