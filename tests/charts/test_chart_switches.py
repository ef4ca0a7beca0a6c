"""Every switch of the chart, on and off: what it adds is there, and away without it."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.charts.chart_rendering import (
    CHART,
    NAMESPACE,
    Manifest,
    changed,
    containers,
    groups,
    of_kind,
    only,
    pods,
    ray_service,
    render,
    values_of,
)

Look = Callable[[list[Manifest]], Any]


def kinds(kind: str) -> Look:
    """Names of the objects of a kind."""
    return lambda manifests: sorted(one["metadata"]["name"] for one in of_kind(manifests, kind))


SWITCHES: list[tuple[str, str, Any, Any, Look, Any, Any]] = [
    # values, path, on, off, what is looked at, what it is when on, when off
    ("minimal", "controller.enabled", True, False, kinds("Deployment"), ["longtake-controller"], []),
    ("minimal", "controller.enabled", True, False, kinds("RenderPool"), ["longtake-default"], []),
    ("minimal", "controller.enabled", True, False, kinds("Service"), ["longtake-controller"], []),
    ("minimal", "controller.watchNodes", True, False, kinds("ClusterRole"), ["films-longtake-controller"], []),
    (
        "minimal",
        "controller.watchNodes",
        True,
        False,
        kinds("Role"),
        ["films-longtake-controller-events", "longtake-controller"],
        ["longtake-controller"],
    ),
    ("minimal", "rbac.create", True, False, kinds("ClusterRoleBinding"), ["films-longtake-controller"], []),
    (
        "minimal",
        "serviceAccount.create",
        True,
        False,
        kinds("ServiceAccount"),
        ["longtake-controller", "longtake-head", "longtake-workers"],
        [],
    ),
    ("minimal", "migration.enabled", True, False, kinds("Job"), ["longtake-migration"], []),
    ("gpu", "ingress.enabled", True, False, kinds("Ingress"), ["longtake"], []),
    (
        "minimal",
        "networkPolicy.enabled",
        True,
        False,
        kinds("NetworkPolicy"),
        ["longtake-controller", "longtake-ray"],
        [],
    ),
    (
        "gpu",
        "podDisruptionBudget.enabled",
        True,
        False,
        kinds("PodDisruptionBudget"),
        ["longtake-control", "longtake-controller"],
        [],
    ),
    ("minimal", "controller.replicas", 2, 1, kinds("PodDisruptionBudget"), ["longtake-controller"], []),
    (
        "minimal",
        "monitoring.podMonitor.enabled",
        True,
        False,
        kinds("PodMonitor"),
        ["longtake-director", "longtake-ray"],
        [],
    ),
    ("minimal", "monitoring.serviceMonitor.enabled", True, False, kinds("ServiceMonitor"), ["longtake-controller"], []),
    ("gpu", "monitoring.prometheusRule.enabled", True, False, kinds("PrometheusRule"), ["longtake"], []),
    ("gpu", "externalScaling.kind", "keda", "none", kinds("ScaledObject"), ["longtake-wan-1b"], []),
    ("gpu", "externalScaling.kind", "hpa", "keda", kinds("HorizontalPodAutoscaler"), ["longtake-wan-1b"], []),
    ("gpu", "pools.1.scaling", "external", "native", kinds("ScaledObject"), ["longtake-wan-1b"], []),
    (
        "gpu",
        "weights.volume.existingClaim",
        "",
        "mine",
        kinds("PersistentVolumeClaim"),
        ["longtake-weights"],
        [],
    ),
    (
        "gpu",
        "networkPolicy.egress.enabled",
        True,
        False,
        lambda manifests: {tuple(one["spec"]["policyTypes"]) for one in of_kind(manifests, "NetworkPolicy")},
        {("Ingress", "Egress")},
        {("Ingress",)},
    ),
    (
        "minimal",
        "ray.control.replicas",
        1,
        0,
        lambda manifests: "control" in groups(manifests),
        True,
        False,
    ),
    (
        "minimal",
        "ray.auth",
        "token",
        "disabled",
        lambda manifests: ray_service(manifests)["rayClusterConfig"]["authOptions"],
        {"mode": "token"},
        {"mode": "disabled"},
    ),
    (
        "minimal",
        "service.type",
        "LoadBalancer",
        "ClusterIP",
        lambda manifests: ray_service(manifests).get("serveService", {}).get("spec", {}).get("type"),
        "LoadBalancer",
        None,
    ),
    (
        "minimal",
        "image.digest",
        f"sha256:{'a' * 64}",
        "",
        lambda manifests: ray_service(manifests)["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][
            0
        ]["image"],
        f"longtake@sha256:{'a' * 64}",
        "longtake:0.1.0",
    ),
    (
        "gpu",
        "ingress.tlsSecretName",
        "films-tls",
        "",
        lambda manifests: only(manifests, "Ingress")["spec"].get("tls"),
        [{"hosts": ["films.example"], "secretName": "films-tls"}],
        None,
    ),
]


@pytest.mark.parametrize(
    ("name", "path", "on", "off", "look", "when_on", "when_off"),
    SWITCHES,
    ids=[f"{path}-{number}" for number, (_, path, *_rest) in enumerate(SWITCHES)],
)
def test_a_switch_adds_and_takes_away(
    name: str, path: str, on: object, off: object, look: Look, when_on: object, when_off: object
) -> None:
    assert look(render(changed(values_of(name), path, on))) == when_on
    assert look(render(changed(values_of(name), path, off))) == when_off


def test_off_by_default_is_what_needs_something_else_in_the_cluster() -> None:
    found = {one["kind"] for one in render(values_of("minimal"))}
    assert found == {
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "Deployment",
        "Job",
        "Pod",
        "PodDisruptionBudget",
        "RayService",
        "RenderPool",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    }


@pytest.mark.parametrize("backend", ["redis", "rocksdb", "none"])
def test_rays_own_state_is_kept_as_the_values_say(backend: str) -> None:
    options = ray_service(render(changed(values_of("minimal"), "gcs.backend", backend)))["rayClusterConfig"].get(
        "gcsFaultToleranceOptions"
    )
    if backend == "none":
        assert options is None
        return
    assert options["backend"] == backend
    if backend == "redis":
        assert options["redisPassword"]["valueFrom"]["secretKeyRef"] == {"name": "longtake-redis", "key": "password"}
    else:
        assert options["storage"] == {"size": "2Gi"}


@pytest.mark.parametrize("kind", ["emptyDir", "persistentVolumeClaim", "hostPath"])
def test_weights_are_kept_where_the_values_say(kind: str) -> None:
    values = changed(changed(values_of("gpu"), "weights.volume.type", kind), "weights.volume.hostPath", "/var/weights")
    manifests = render(values)
    for pod in opening_models(manifests):
        (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == "weights")
        assert kind in volume
        (first,) = pod["spec"]["initContainers"]
        assert first["args"][0].startswith("Wan-AI/Wan2.1-T2V-14B-Diffusers@38ec498c")
    assert bool(of_kind(manifests, "PersistentVolumeClaim")) == (kind == "persistentVolumeClaim")


def test_without_models_from_the_hub_nothing_is_fetched() -> None:
    for _, pod in pods(render(values_of("minimal"))):
        assert "initContainers" not in pod["spec"]
        for container in containers(pod):
            assert not [variable for variable in container.get("env", ()) if variable["name"].startswith("HF_")]


def opening_models(manifests: list[Manifest]) -> list[Manifest]:
    """Pods of the Ray cluster in which models are opened: all but a head that holds nothing of the farm."""
    found = [(where, pod) for where, pod in pods(manifests) if where.startswith("RayService")]
    return [pod for where, pod in found if not where.endswith("/head") or "control" not in groups(manifests)]


def test_gangs_run_offline_on_what_was_fetched() -> None:
    for pod in opening_models(render(values_of("gpu"))):
        variables = {variable["name"]: variable.get("value") for variable in pod["spec"]["containers"][0]["env"]}
        assert (variables["HF_HUB_OFFLINE"], variables["HF_HOME"]) == ("1", "/weights")
        assert "HF_HUB_OFFLINE" not in {one["name"] for one in pod["spec"]["initContainers"][0]["env"]}


def head(manifests: list[Manifest]) -> Manifest:
    """The head's pod."""
    template: Manifest = ray_service(manifests)["rayClusterConfig"]["headGroupSpec"]["template"]
    return template


def test_a_head_that_opens_no_model_fetches_none_and_has_no_room_for_them() -> None:
    """KubeRay removes an old cluster's state from Redis with a Job of the head's pod, which may take five minutes."""
    spec = head(render(values_of("gpu")))["spec"]
    assert "initContainers" not in spec
    assert {"weights", "fetch"} & {volume["name"] for volume in spec["volumes"]} == set()
    assert not [one for one in spec["containers"][0]["env"] if one["name"].startswith("HF_")]


def test_a_head_with_the_director_fetches_the_models_that_are_opened_there() -> None:
    (fetching,) = head(render(changed(values_of("gpu"), "ray.control.replicas", 0)))["spec"]["initContainers"]
    assert fetching["name"] == "fetch-weights"


@pytest.mark.parametrize("control", [0, 1])
@pytest.mark.parametrize("name", ["minimal", "hpa", "gpu"])
def test_what_kuberays_cleanup_of_redis_needs_outlives_the_release(name: str, control: int) -> None:
    """The Job is made of the head's pod after Helm has deleted everything else of the release."""
    redis = {"address": "redis://redis.example:6379"}
    values = changed(
        changed(values_of(name), "gcs", {"backend": "redis", "redis": redis}), "ray.control.replicas", control
    )
    spec = head(render(values))["spec"]
    needed = {("ServiceAccount", spec["serviceAccountName"])}
    needed |= {("ConfigMap", one["configMap"]["name"]) for one in spec["volumes"] if "configMap" in one}
    claims = [one["persistentVolumeClaim"]["claimName"] for one in spec["volumes"] if "persistentVolumeClaim" in one]
    needed |= {("PersistentVolumeClaim", claim) for claim in claims}
    assert kept(render(values)) >= needed
    if control:
        assert {kind for kind, _ in needed} == {"ServiceAccount"}


def kept(manifests: list[Manifest]) -> set[tuple[str, str]]:
    """Kind and name of what Helm leaves in the cluster when it uninstalls the release."""
    return {
        (one["kind"], one["metadata"]["name"])
        for one in manifests
        if one["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
    }


def test_without_redis_no_account_outlives_the_release() -> None:
    for backend in ("rocksdb", "none"):
        assert kept(render(changed(values_of("minimal"), "gcs.backend", backend))) == set()
    accounts = of_kind(render(values_of("gpu")), "ServiceAccount")
    annotated = {one["metadata"]["name"]: set(one["metadata"].get("annotations", {})) for one in accounts}
    role = {"eks.amazonaws.com/role-arn"}
    assert annotated == {"longtake-head": role, "longtake-workers": role, "longtake-controller": set()}


def test_gpu_pools_have_the_gpu_image_and_ask_for_gpus() -> None:
    found = groups(render(values_of("gpu")))
    container = found["wan-14b-spot"]["template"]["spec"]["containers"][0]
    assert container["image"] == "longtake-cuda:0.1.0"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert found["control"]["template"]["spec"]["containers"][0]["image"] == "longtake:0.1.0"
    assert "nvidia.com/gpu" not in found["control"]["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_a_lost_prometheus_is_no_empty_backlog_for_keda() -> None:
    (scaled,) = of_kind(render(values_of("gpu")), "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert scaled["spec"]["fallback"]["replicas"] == 1
    assert 'pool="wan-1b"' in trigger["metadata"]["query"]


def test_an_autoscaler_points_at_a_pool_that_is_there() -> None:
    for name in ("gpu", "hpa"):
        manifests = render(values_of(name))
        known = kinds("RenderPool")(manifests)
        for one in [*of_kind(manifests, "ScaledObject"), *of_kind(manifests, "HorizontalPodAutoscaler")]:
            target = one["spec"]["scaleTargetRef"]
            assert target["name"] in known
            assert target["apiVersion"] == "longtake.dev/v1alpha1"


def test_the_metric_that_autoscalers_ask_for_is_one_of_the_farms() -> None:
    from serving.telemetry.metrics import FarmMetrics

    names = {metric.name for metric in FarmMetrics().registry.collect()}
    (hpa,) = of_kind(render(values_of("hpa")), "HorizontalPodAutoscaler")
    assert hpa["spec"]["metrics"][0]["external"]["metric"]["name"] in names
    (scaled,) = of_kind(render(values_of("gpu")), "ScaledObject")
    assert any(name + "{" in scaled["spec"]["triggers"][0]["metadata"]["query"] for name in names)


def test_the_migration_runs_before_anything_else_and_with_the_key() -> None:
    job = only(render(values_of("minimal")), "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert set(variables) == {"LONGTAKE_STORE_URL", "LONGTAKE_API_KEY", "PGPASSWORD"}
    # A hook before the installation must not need what only the installation brings.
    assert "serviceAccountName" not in job["spec"]["template"]["spec"]
    assert {next(iter(set(volume) - {"name"})) for volume in job["spec"]["template"]["spec"]["volumes"]} == {"emptyDir"}


def test_the_controller_is_told_what_it_understands() -> None:
    from cluster.controller.settings import load_settings

    deployment = only(render(values_of("hpa")), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    given = {variable["name"]: variable.get("value", "lt_x_y") for variable in container["env"]}
    found = load_settings(given)
    assert found.farm_url == "http://longtake-serve-svc:8000"
    assert found.watch_nodes is False
    assert found.max_drained_share == 0.25
    assert found.lease_name == "longtake-controller"
    assert found.port == container["ports"][0]["containerPort"]


def granted(manifests: list[Manifest]) -> set[tuple[str, str, str, str]]:
    """Where, API group, resource and verb of all that the controller may do."""
    return {
        ({"Role": one["metadata"].get("namespace"), "ClusterRole": "cluster"}[one["kind"]], group, resource, verb)
        for one in [*of_kind(manifests, "Role"), *of_kind(manifests, "ClusterRole")]
        for rule in one["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("watches_nodes", [True, False])
def test_the_controller_may_do_what_it_needs_and_no_more(watches_nodes: bool) -> None:
    from cluster.commands.permissions import PERMISSIONS

    needed = {
        ({"namespace": NAMESPACE}.get(one.where, one.where), one.resource.group, one.name, verb)
        for one in PERMISSIONS
        for verb in one.verbs
        if watches_nodes or one.where == "namespace"
    }
    assert granted(render(changed(values_of("minimal"), "controller.watchNodes", watches_nodes))) == needed


def test_the_controller_changes_no_lease_but_its_own() -> None:
    role = only(render(values_of("minimal")), "Role", "longtake-controller")
    (rule,) = (rule for rule in role["rules"] if "update" in rule["verbs"])
    deployment = only(render(values_of("minimal")), "Deployment")
    variables = {v["name"]: v.get("value") for v in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert rule["resourceNames"] == [variables["LONGTAKE_CONTROLLER_LEASE_NAME"]]


@pytest.fixture
def filled_chart(tmp_path: Path) -> Path:
    """The chart with a dashboard and rules in their slots."""
    chart = tmp_path / "longtake"
    shutil.copytree(CHART, chart)
    for slot in ("dashboards", "rules"):
        (chart / slot).mkdir(exist_ok=True)
    (chart / "dashboards" / "farm.json").write_text(json.dumps({"title": "Farm {{ pool }}"}))
    rules: Sequence[Any] = [
        {"alert": "Down", "expr": "up == 0", "annotations": {"summary": "{{ $labels.job }} is down."}}
    ]
    (chart / "rules" / "farm.yaml").write_text(json.dumps({"groups": [{"name": "farm", "rules": rules}]}))
    return chart


def test_dashboards_and_rules_in_their_slots_are_installed_as_they_are(filled_chart: Path) -> None:
    manifests = render(values_of("gpu"), chart=filled_chart)
    config = only(manifests, "ConfigMap", "longtake-dashboard-farm")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["farm.json"]) == {"title": "Farm {{ pool }}"}
    (rule,) = of_kind(manifests, "PrometheusRule")
    names = [group["name"] for group in rule["spec"]["groups"]]
    assert {"farm", "own"} <= set(names)
    (farm,) = (group for group in rule["spec"]["groups"] if group["name"] == "farm")
    assert farm["rules"][0]["annotations"]["summary"] == "{{ $labels.job }} is down."
    off = render(changed(values_of("gpu"), "monitoring.dashboards.enabled", False), chart=filled_chart)
    assert "longtake-dashboard-farm" not in kinds("ConfigMap")(off)
