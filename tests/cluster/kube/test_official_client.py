"""The official client's own classes work on the fake API server unchanged, models, watches and all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

from tests.cluster.api_server.server import KubeServer
from tests.cluster.clusters import WIDGET_CRD

pytest_plugins = ["tests.cluster.fixtures"]

GROUP, VERSION, PLURAL = "test.longtake.dev", "v1", "widgets"


@pytest.fixture
def api(kube_server: KubeServer, tmp_path: Path) -> Iterator[client.ApiClient]:
    path = kube_server.kubeconfig(tmp_path / "official")
    with config.new_client_from_config(config_file=str(path)) as api:
        yield api


def widget(name: str, **spec: Any) -> dict[str, Any]:
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Widget", "metadata": {"name": name}}
    return {**body, "spec": {"model": "wan", **spec}}


def test_core_objects_come_as_models(api: client.ApiClient, kube_server: KubeServer) -> None:
    core: Any = client.CoreV1Api(api)
    taint = client.V1Taint(key="spot", effect="NoSchedule")
    core.create_node(client.V1Node(metadata=client.V1ObjectMeta(name="n1"), spec=client.V1NodeSpec(taints=[taint])))
    patched = core.patch_node("n1", {"spec": {"taints": [{"key": "more", "effect": "NoSchedule"}]}})
    assert {one.key for one in patched.spec.taints} == {"spot", "more"}
    container = client.V1Container(name="c", image="i")
    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(name="p", labels={"x": "1"}),
        spec=client.V1PodSpec(containers=[container], node_name="n1"),
    )
    core.create_namespaced_pod("default", pod)
    kube_server.put({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"podIP": "10.0.0.1"}})
    (found,) = core.list_pod_for_all_namespaces(label_selector="x=1", field_selector="spec.nodeName=n1").items
    assert (found.status.pod_ip, found.metadata.namespace) == ("10.0.0.1", "default")
    core.delete_namespaced_pod("p", "default")
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_pod("p", "default")
    assert gone.value.status == 404
    assert {one.metadata.name for one in core.list_namespace().items} == {"default", "kube-system"}


def test_custom_objects_are_patched_in_every_way(api: client.ApiClient) -> None:
    custom: Any = client.CustomObjectsApi(api)
    where = {"group": GROUP, "version": VERSION, "namespace": "default", "plural": PLURAL}
    custom.create_namespaced_custom_object(**where, body=widget("a", size=1))
    custom.patch_namespaced_custom_object(**where, name="a", body={"spec": {"size": 2}})
    change = [{"op": "replace", "path": "/spec/size", "value": 3}]
    how = {"_content_type": "application/json-patch+json"}
    assert custom.patch_namespaced_custom_object(**where, name="a", body=change, **how)["spec"]["size"] == 3
    custom.patch_namespaced_custom_object_status(**where, name="a", body={"status": {"size": 4}})
    scale = custom.get_namespaced_custom_object_scale(**where, name="a")
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (3, 4)
    custom.patch_namespaced_custom_object_scale(**where, name="a", body={"spec": {"replicas": 5}})
    one = custom.get_namespaced_custom_object(**where, name="a")
    assert one["spec"]["size"] == 5
    assert [found["metadata"]["name"] for found in custom.list_namespaced_custom_object(**where)["items"]] == ["a"]
    custom.delete_namespaced_custom_object(**where, name="a")


def test_leases_are_renewed_by_models(api: client.ApiClient) -> None:
    leases: Any = client.CoordinationV1Api(api)
    spec = client.V1LeaseSpec(holder_identity="a", lease_duration_seconds=15)
    stored = leases.create_namespaced_lease(
        "default", client.V1Lease(metadata=client.V1ObjectMeta(name="l"), spec=spec)
    )
    stored.spec.holder_identity = "b"
    leases.replace_namespaced_lease("l", "default", stored)
    with pytest.raises(ApiException) as refused:
        leases.replace_namespaced_lease("l", "default", stored)
    assert refused.value.status == 409


def test_access_reviews_answer(api: client.ApiClient, kube_server: KubeServer) -> None:
    kube_server.deny("delete", "nodes")

    def may(verb: str) -> bool:
        attributes = client.V1ResourceAttributes(verb=verb, resource="nodes")
        spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        review = client.V1SelfSubjectAccessReview(spec=spec)
        answer: Any = client.AuthorizationV1Api(api).create_self_subject_access_review(review)
        return bool(answer.status.allowed)

    assert may("list")
    assert not may("delete")


def test_crds_are_models_and_are_served_when_applied(api: client.ApiClient, kube_server: KubeServer) -> None:
    extensions: Any = client.ApiextensionsV1Api(api)
    (crd,) = extensions.list_custom_resource_definition().items
    assert crd.spec.names.plural == PLURAL
    assert {one.type for one in crd.status.conditions} == {"Established", "NamesAccepted"}
    extensions.delete_custom_resource_definition(WIDGET_CRD["metadata"]["name"])
    with pytest.raises(ApiException):
        client.CustomObjectsApi(api).list_cluster_custom_object(GROUP, VERSION, PLURAL)


def test_discovery_names_groups_and_kinds(api: client.ApiClient) -> None:
    assert client.VersionApi(api).get_code().git_version.startswith("v1.")
    assert client.CoreApi(api).get_api_versions().versions == ["v1"]
    groups = {group.name for group in client.ApisApi(api).get_api_versions().groups}
    assert {"apps", "coordination.k8s.io", "authorization.k8s.io", GROUP} <= groups
    assert "pods" in {one.name for one in client.CoreV1Api(api).get_api_resources().resources}


def test_the_clients_own_watch_gets_every_event(api: client.ApiClient, kube_server: KubeServer) -> None:
    core: Any = client.CoreV1Api(api)
    version = core.list_namespaced_config_map("default").metadata.resource_version
    for name in "abc":
        kube_server.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
    found = []
    stream = watch.Watch()
    for event in stream.stream(
        core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=20
    ):
        found.append((event["type"], event["object"].metadata.name))
        if len(found) == 3:
            stream.stop()
    assert found == [("ADDED", name) for name in "abc"]
