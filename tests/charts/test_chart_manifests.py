"""Every object that the chart makes is one that Kubernetes, KubeRay, KEDA and the Prometheus operator know."""

import copy
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.charts.chart_rendering import (
    CHART,
    CI,
    NAMESPACE,
    containers,
    of_kind,
    only,
    pods,
    ray_service,
    render,
    values_of,
)
from tests.charts.crd_checking import find_schemas, problems_of

OLDEST = "1.30"
NEWEST = "1.37"

CUSTOM = {"RayService", "RenderPool", "ScaledObject", "PodMonitor", "ServiceMonitor", "PrometheusRule"}

CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding"}

SELECTING = {"Service", "PodDisruptionBudget", "Deployment", "ServiceMonitor", "PodMonitor"}


def test_the_oldest_version_is_that_of_the_chart() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={OLDEST}.0-0"


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", CI)
def test_kubernetes_knows_every_object(name: str, version: str) -> None:
    for one in render(values_of(name)):
        if one["kind"] not in CUSTOM:  # an unknown kind raises
            kubernetes_validate.validate(one, version, strict=True)


def test_what_kubernetes_does_not_know_is_noticed() -> None:
    (job,) = of_kind(render(values_of("minimal")), "Job")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**job, "spec": {**job["spec"], "retries": 3}}, NEWEST, strict=True)
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_validate.validate({**job, "kind": "Jobb"}, NEWEST, strict=True)


@pytest.mark.parametrize("name", CI)
def test_custom_resources_are_as_their_definitions_say(name: str) -> None:
    schemas = find_schemas()
    custom = [one for one in render(values_of(name)) if one["kind"] in CUSTOM]
    assert {one["kind"] for one in custom} >= {"RayService"}
    assert [problem for one in custom for problem in problems_of(one, schemas[one["apiVersion"], one["kind"]])] == []


def test_every_custom_kind_is_looked_at() -> None:
    assert {one["kind"] for name in CI for one in render(values_of(name))} >= CUSTOM


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("serveConfigV3",), "x"),
        (("rayClusterConfig", "headGroupSpec", "rayStartParam"), {}),
        (("rayClusterConfig", "workerGroupSpecs", 0, "maxReplicas"), "8"),
        (("rayClusterConfig", "autoscalerOptions", "version"), "v3"),
        (("rayClusterConfig", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "resource"), {}),
    ],
)
def test_a_misspelt_field_of_a_custom_resource_is_noticed(place: tuple[Any, ...], value: object) -> None:
    validator = find_schemas()["ray.io/v1", "RayService"]
    broken = copy.deepcopy(only(render(values_of("minimal")), "RayService"))
    part = broken["spec"]
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    assert len(problems_of(broken, validator)) == 1


@pytest.mark.parametrize("name", CI)
def test_every_object_has_its_labels_namespace_and_a_name_of_its_own(name: str) -> None:
    manifests = render(values_of(name))
    places = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in manifests]
    assert len(set(places)) == len(places)
    for one in manifests:
        labels = one["metadata"]["labels"]
        for label in ("name", "instance", "version", "component", "part-of", "managed-by"):
            assert labels[f"app.kubernetes.io/{label}"], one["kind"]
        assert labels["helm.sh/chart"].startswith("longtake-")
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", one["metadata"]["name"])
        if one["kind"] in CLUSTER_WIDE:
            assert "namespace" not in one["metadata"]
            assert one["metadata"]["name"].startswith(f"{NAMESPACE}-"), "two releases must not share it"
        elif "-events" not in one["metadata"]["name"]:
            assert one["metadata"]["namespace"] == NAMESPACE


@pytest.mark.parametrize("name", CI)
def test_every_pod_keeps_to_the_restricted_pod_security_standard(name: str) -> None:
    allowed_volumes = {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected", "name"}
    if name == "hpa":
        allowed_volumes.add("hostPath")  # asked for, and the values say that the standard forbids it
    for where, pod in pods(render(values_of(name))):
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True, where
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"]), where
        assert {key for volume in pod["spec"].get("volumes", ()) for key in volume} <= allowed_volumes, where
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["capabilities"] == {"drop": ["ALL"]}, where
            assert context["readOnlyRootFilesystem"] is True, where


def test_the_autoscaler_beside_the_head_is_restricted_as_well() -> None:
    options = ray_service(render(values_of("minimal")))["rayClusterConfig"]["autoscalerOptions"]
    assert options["securityContext"]["readOnlyRootFilesystem"] is True
    assert options["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    volumes = {
        volume["name"]
        for volume in ray_service(render(values_of("minimal")))["rayClusterConfig"]["headGroupSpec"]["template"][
            "spec"
        ]["volumes"]
    }
    assert {mount["name"] for mount in options["volumeMounts"]} <= volumes


@pytest.mark.parametrize("name", CI)
def test_every_container_asks_for_cpu_and_memory_and_has_no_limit_of_cpu(name: str) -> None:
    for where, pod in pods(render(values_of(name))):
        for container in containers(pod):
            assert set(container["resources"]["requests"]) >= {"cpu", "memory"}, where
            assert "cpu" not in container["resources"]["limits"], where
            assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"], where


@pytest.mark.parametrize("name", CI)
def test_no_pod_gets_variables_made_of_the_names_of_services(name: str) -> None:
    """A Service called longtake would set LONGTAKE_PORT=tcp://..., which the farm would take for its port."""
    for where, pod in pods(render(values_of(name))):
        assert pod["spec"]["enableServiceLinks"] is False, where


@pytest.mark.parametrize("name", CI)
def test_only_the_head_and_the_controller_have_a_token_of_the_api_server(name: str) -> None:
    with_token = {
        where for where, pod in pods(render(values_of(name))) if pod["spec"]["automountServiceAccountToken"] is True
    }
    controller = values_of(name).get("controller", {}).get("enabled", True)
    assert {where.rpartition("/")[2].removeprefix("longtake-") for where in with_token} == (
        {"head", "controller"} if controller else {"head"}
    )


@pytest.mark.parametrize("name", CI)
def test_every_mount_has_its_volume(name: str) -> None:
    for where, pod in pods(render(values_of(name))):
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", ())}
        for container in containers(pod):
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes, where


@pytest.mark.parametrize("name", CI)
def test_selectors_find_the_pods_that_they_are_meant_for(name: str) -> None:
    manifests = render(values_of(name))
    labels = [pod["metadata"]["labels"] for _, pod in pods(manifests)]
    for one in manifests:
        match = one.get("spec", {}).get("selector", {}) if one["kind"] in SELECTING else None
        if match is None:
            continue
        wanted = match.get("matchLabels", match if one["kind"] == "Service" else {})
        assert "app.kubernetes.io/version" not in wanted
        if one["kind"] == "ServiceMonitor":  # finds Services
            found = [service["metadata"]["labels"] for service in of_kind(manifests, "Service")]
        else:
            found = labels
        assert any(wanted.items() <= has.items() for has in found), f"{one['kind']}/{one['metadata']['name']}"


@pytest.mark.parametrize("name", CI)
def test_ports_that_monitors_name_exist(name: str) -> None:
    manifests = render(values_of(name))
    for monitor in of_kind(manifests, "PodMonitor"):
        expected = {port["port"] for port in monitor["spec"]["podMetricsEndpoints"]}
        component = monitor["spec"]["selector"].get("matchLabels", {}).get("app.kubernetes.io/component")
        for _, pod in pods(manifests):
            if component in (None, pod["metadata"]["labels"]["app.kubernetes.io/component"]):
                ports = {port["name"] for container in containers(pod) for port in container.get("ports", ())}
                if component is not None or "metrics" in ports:
                    assert expected <= ports


def test_a_short_or_strange_release_name_still_gives_good_names() -> None:
    manifests = render(values_of("minimal"), release="a" * 53)
    roles = CLUSTER_WIDE | {"Role", "RoleBinding"}  # theirs may be longer
    assert max(len(one["metadata"]["name"]) for one in manifests if one["kind"] not in roles) <= 63
    service = only(render(values_of("minimal"), release="a" * 53), "RayService")
    assert len(service["metadata"]["name"]) <= 47, "KubeRay refuses longer ones"
