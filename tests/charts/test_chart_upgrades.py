"""What an upgrade does to the running farm, for every single value: most values must not touch it at all.

The rules are those of KubeRay 1.7, read from its source:

- It compares hashes of rayClusterConfig that leave out the numbers of workers and all tolerations
  (GenerateHashWithoutReplicasAndWorkersToDelete in utils/util.go). If the hashes are equal it leaves the RayCluster,
  which the autoscaler reads, as it is (shouldUpdateCluster in rayservice_controller.go); if only groups were added at
  the end it copies the new spec into the RayCluster; otherwise it starts a second cluster.
- It updates the spec of the API's Service when it switches to another RayCluster, and never its annotations
  (reconcileServices).

Serve replaces all of an application whose arguments change: the farm's front, or one pool, whose gangs then go one
after the other. The API server refuses changes of what a RenderPool fixes. The README tells operators the same list,
and is held to it here.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.crd import FIXED_FIELDS
from tests.charts.chart_rendering import (
    CHART,
    DEFAULTS,
    Manifest,
    changed,
    groups,
    of_kind,
    ray_service,
    render,
    serve_config,
    values_of,
)

NOTHING = "nothing"
NEVER = "never"
NEXT = "next"
OPERATOR = "operator"
FRONT = "front"
GANGS = "gangs"
CLUSTER = "cluster"
REFUSED = "refused"
"""From the mildest to the strongest. never: KubeRay reads it only when it makes the object. next: a new Ray cluster has
it, but none is started for it. operator: KubeRay acts on it. front: all but the gangs restarts. gangs: those of one
pool are replaced one after the other as well. cluster: a new Ray cluster takes over. refused: nothing is changed."""

TOUCHING: dict[str, str] = {
    "nameOverride": CLUSTER,
    "fullnameOverride": CLUSTER,
    "imagePullSecrets": CLUSTER,
    "image": CLUSTER,
    "gpuImage": CLUSTER,
    "store.url": FRONT,
    "store.passwordSecret": CLUSTER,
    "artifacts.url": FRONT,
    "artifacts.credentialsSecret": CLUSTER,
    "farm": FRONT,
    "pools.model": REFUSED,
    "pools.gangShape": REFUSED,
    "pools.nodeKind": REFUSED,
    "pools.ranksPerNode": GANGS,
    "pools.planner": FRONT,
    "pools.spotPolicy": GANGS,
    "pools.pricePerGpuSecond": FRONT,
    "pools.drainSeconds": GANGS,
    "pools.slots": FRONT,
    "pools.name": CLUSTER,
    "pools.workers": CLUSTER,
    "pools.workers.minReplicas": NEXT,
    "pools.workers.maxReplicas": NEXT,
    "pools.workers.tolerations": NEXT,
    "weights": CLUSTER,
    "ray": CLUSTER,
    "ray.clusterDeletionDelaySeconds": OPERATOR,
    "ray.control.replicas": NEXT,
    "ray.control.tolerations": NEXT,
    "ray.head.tolerations": NEXT,
    "gcs": CLUSTER,
    "controller.enabled": FRONT,
    "podSecurityContext": CLUSTER,
    "containerSecurityContext": CLUSTER,
    "service.type": NEXT,
    "service.annotations": NEVER,
}
"""Every value that concerns the running farm, with all below it unless listed itself. All others leave it alone."""

UNTOUCHED_BELOW = {"weights.volume.storageClassName"}
"""Of the above, what is for a new claim alone."""

OTHERS: dict[str, Any] = {
    "imagePullSecrets": [{"name": "other"}],
    "image.digest": f"sha256:{'b' * 64}",
    "image.pullPolicy": "Always",
    "gpuImage.digest": f"sha256:{'c' * 64}",
    "gpuImage.pullPolicy": "Always",
    "store.url": "postgresql://longtake@other.example/longtake",
    "artifacts.url": "s3://other",
    "farm.auth": "off",
    "farm.lease_s": 20,
    "farm.poll_s": 1,
    "farm.webhooks_allow_private": True,
    "pools.0.model": "/models/other",
    "pools.0.slots": 3,
    "pools.0.workers.0.name": "cheap",
    "pools.0.workers.0.minReplicas": 1,
    "pools.0.gangShape": "ulysses=8",
    "pools.0.ranksPerNode": 4,
    "pools.0.planner": {"drain_within_s": 300},
    "pools.0.spotPolicy": "avoid",
    "pools.0.scaling": "external",
    "pools.0.workers.0.cpu": 40,
    "pools.0.workers.0.gpus": 16,
    "pools.0.workers.0.memory": "600Gi",
    "pools.0.workers.0.spot": False,
    "pools.0.workers.0.tolerations": [{"operator": "Exists"}],
    "pools.0.workers.0.affinity": {"nodeAffinity": {}},
    "pools.0.workers.0.runtimeClassName": "nvidia",
    "weights.models": [
        {"name": "Wan-AI/Wan2.1-T2V-14B-Diffusers", "revision": "0" * 40},
        {"name": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "revision": "0" * 40},
    ],
    "weights.endpoint": "https://hub.example",
    "weights.volume.type": "emptyDir",
    "weights.volume.size": "100Gi",
    "weights.volume.hostPath": "/var/weights",
    "ray.version": "2.60.1",
    "ray.auth": "disabled",
    "ray.extraEnv": [{"name": "A", "value": "b"}],
    "gcs.backend": "none",
    "gcs.redis.address": "redis://other:6379",
    "gcs.rocksdb.size": "3Gi",
    "controller.tolerations": [{"operator": "Exists"}],
    "ingress.host": "other.example",
    "networkPolicy.apiFrom": [{"podSelector": {}}],
    "networkPolicy.egress.rules": [{"ports": [{"port": 443}]}],
    "monitoring.podMonitor.interval": "30s",
    "monitoring.serviceMonitor.interval": "30s",
    "monitoring.prometheusRule.extraGroups": [],
    "externalScaling.kind": "hpa",
    "externalScaling.keda.prometheusUrl": "http://other:9090",
    "service.type": "NodePort",
    "controller.maxDrainedShare": 0.5,
    "ray.terminationGracePeriodSeconds": 200,
}
"""Another value for paths whose values cannot be derived from the old ones."""

POOL_LEAVES = (
    *("model", "gangShape", "ranksPerNode", "minGangs", "maxGangs", "scaling", "planner", "spotPolicy", "nodeKind"),
    *("pricePerGpuSecond", "drainSeconds", "slots", "name"),
)
WORKER_LEAVES = (
    *("name", "spot", "minReplicas", "maxReplicas", "gpus", "cpu", "memory", "acceleratorType", "priority"),
    *("idleTimeoutSeconds", "labels", "nodeSelector", "tolerations", "affinity", "priorityClassName"),
    "runtimeClassName",
)
FARM_LEAVES = {
    "timeline_hosts": 2,
    "takes_per_host": 3,
    "decoders": 4,
    "checkpoint_every_s": 60,
    "checkpoint_every_steps": 8,
    "lease_s": 20,
    "poll_s": 1,
    "auth": "off",
    "webhooks_allow_private": True,
    "retention": {"films_days": 1},
    "limits": {"active_jobs": 2},
}


def leaves(values: Any, before: str = "") -> Iterator[str]:
    """Dotted paths of all values; a map of labels, or a list, is one."""
    for name, value in values.items():
        path = f"{before}{name}"
        if isinstance(value, dict) and value and path not in MAPS:
            yield from leaves(value, f"{path}.")
        else:
            yield path


MAPS = {
    *("podSecurityContext", "containerSecurityContext", "networkPolicy.operatorNamespace"),
    *("networkPolicy.monitoringNamespace", "monitoring.dashboards.labels"),
}

PATHS = [
    *(path for path in leaves(DEFAULTS) if path not in ("farm", "pools")),
    *(f"farm.{name}" for name in FARM_LEAVES),
    *(f"pools.0.{name}" for name in POOL_LEAVES),
    *(f"pools.0.workers.0.{name}" for name in WORKER_LEAVES),
]


def another(path: str, value: Any) -> Any:
    """A value that is allowed in place of this one."""
    if path in OTHERS:
        return OTHERS[path]
    if path.startswith("farm."):
        return FARM_LEAVES[path.removeprefix("farm.")]
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * 2
        case str() if re.fullmatch(r"[0-9.]+(Mi|Gi|m)?", value):
            return re.sub(r"^[0-9.]+", lambda found: str(int(found[0]) + 1), value)
        case str():
            return value + "x"
        case None if path.rpartition(".")[2] in (
            "idleTimeoutSeconds",
            "priority",
            "drainSeconds",
            "minReplicas",
            "slots",
        ):
            return 30
        case None if path.rpartition(".")[2] in ("priorityClassName", "acceleratorType"):
            return "x"
        case dict() | None:
            return {**(value or {}), "a": "b"}
        case list():
            return [*value, *(value[:1] or [{"name": "x"}])]
    raise AssertionError(path)


def found_at(values: Any, path: str) -> Any:
    """The value at a path; None if there is none."""
    for part in path.split("."):
        if isinstance(values, list):
            values = values[int(part)]
        elif isinstance(values, dict):
            values = values.get(part)
        else:
            return None
    return values


def merged(base: Any, over: Any) -> Any:
    """As Helm lays values over the chart's own."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {key: merged(base.get(key), over[key]) if key in over else base[key] for key in {**base, **over}}
    return over


def hashed(config: Manifest) -> Manifest:
    """What KubeRay's hash of rayClusterConfig is made of."""
    copy: Manifest = json.loads(json.dumps(config))
    for group in (copy["headGroupSpec"], *copy["workerGroupSpecs"]):
        for field in ("replicas", "minReplicas", "maxReplicas"):
            group.pop(field, None)
        group["template"]["spec"].pop("tolerations", None)
    return copy


def is_updated(old: Manifest, new: Manifest) -> bool:
    """Whether KubeRay copies a new rayClusterConfig into the running RayCluster."""
    known, wanted = hashed(old), hashed(new)
    added = len(wanted["workerGroupSpecs"]) - len(known["workerGroupSpecs"])
    first = wanted["workerGroupSpecs"][: len(known["workerGroupSpecs"])]
    return added > 0 and {**wanted, "workerGroupSpecs": first} == known


def refused_pools(before: list[Manifest], after: list[Manifest]) -> list[str]:
    """RenderPools that the API server would not take, as their definition's rules say."""
    old = {one["metadata"]["name"]: one["spec"] for one in of_kind(before, "RenderPool")}
    new = {one["metadata"]["name"]: one["spec"] for one in of_kind(after, "RenderPool")}
    fixed = [field for field in FIXED_FIELDS if field != "pool"]  # it is part of the name
    return [name for name in old.keys() & new.keys() if any(old[name].get(f) != new[name].get(f) for f in fixed)]


def service_type(service: Manifest) -> str:
    """Of the API's Service that KubeRay makes."""
    found: str = service.get("serveService", {}).get("spec", {}).get("type", "ClusterIP")
    return found


def effect(before: list[Manifest], after: list[Manifest]) -> str:
    """What the upgrade from one rendering to the other does to the running farm."""
    (old,), (new,) = of_kind(before, "RayService"), of_kind(after, "RayService")
    if old["metadata"]["name"] != new["metadata"]["name"]:
        return CLUSTER
    if refused_pools(before, after):
        return REFUSED
    old, new = old["spec"], new["spec"]
    configs = old["rayClusterConfig"], new["rayClusterConfig"]
    if hashed(configs[0]) != hashed(configs[1]) and not is_updated(*configs):
        return CLUSTER
    if old["serveConfigV2"] != new["serveConfigV2"]:
        (_, *old_pools), (_, *new_pools) = (serve_config(one)["applications"] for one in (before, after))
        return FRONT if old_pools == new_pools else GANGS
    rest = {key for key in {**old, **new} if old.get(key) != new.get(key)} - {"rayClusterConfig", "serveService"}
    if rest:
        return OPERATOR
    if configs[0] != configs[1] or service_type(old) != service_type(new):
        return NEXT
    return NEVER if old != new else NOTHING


def expected(path: str) -> str:
    """What TOUCHING says of a path: the longest entry that it begins with."""
    if path in UNTOUCHED_BELOW:
        return NOTHING
    plain = re.sub(r"\.\d+", "", path)
    fitting = [known for known in TOUCHING if f"{plain}.".startswith(f"{known}.")]
    return TOUCHING[max(fitting, key=len)] if fitting else NOTHING


BASE = merged(DEFAULTS, values_of("gpu"))

FIRST = {
    "gcs.redis": {"gcs.backend": "redis", "gcs.redis.address": "redis://redis.example:6379"},
    "gcs.redis.passwordSecret.key": {
        "gcs.backend": "redis",
        "gcs.redis.address": "redis://redis.example:6379",
        "gcs.redis.passwordSecret.name": "longtake-redis",
    },
    "artifacts.credentialsSecret": {"artifacts.credentialsSecret.name": "longtake-artifacts"},
    "weights.volume.size": {"weights.volume.type": "emptyDir"},
    "weights.volume.hostPath": {"weights.volume.type": "hostPath", "weights.volume.hostPath": "/var/other"},
    "controller.enabled": {"externalScaling.kind": "none"},
}
"""What must stand in the values before a change of these can do anything."""


def changed_all(values: Any, changes: dict[str, Any]) -> Any:
    """The values with several others."""
    for path, value in changes.items():
        values = changed(values, path, value)
    return values


@pytest.mark.parametrize("path", PATHS)
def test_a_value_touches_the_running_farm_only_where_the_list_says_so(path: str) -> None:
    known = max((name for name in FIRST if f"{path}.".startswith(f"{name}.")), key=len, default="")
    before = changed_all(BASE, FIRST.get(known, {}))
    after = changed(before, path, another(path, found_at(before, path)))
    assert before != after
    assert effect(render(before), render(after)) == expected(path)


def test_every_entry_of_the_list_is_tried() -> None:
    plain = {re.sub(r"\.\d+", "", path) for path in PATHS}
    assert [known for known in TOUCHING if not any(f"{path}.".startswith(f"{known}.") for path in plain)] == []


def test_an_unrelated_change_is_told_from_one_that_matters() -> None:
    before = render(values_of("gpu"))
    assert effect(before, render(changed(values_of("gpu"), "pools.0.maxGangs", 13))) == NOTHING
    assert effect(before, render(changed(values_of("gpu"), "pools.0.workers.0.maxReplicas", 9))) == NEXT
    assert effect(before, render(changed(values_of("gpu"), "ray.head.memory", "9Gi"))) == CLUSTER


def test_a_new_chart_with_the_same_images_touches_nothing(tmp_path: Path) -> None:
    chart = tmp_path / "longtake"
    shutil.copytree(CHART, chart)
    about = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(about.replace("ersion: 0.1.0", "ersion: 0.2.0"))
    values = changed(changed(values_of("gpu"), "image.tag", "1.0"), "gpuImage.tag", "1.0")
    before, after = render(values), render(values, chart=chart)
    assert before != after
    assert effect(before, after) == NOTHING


def test_a_pool_that_is_added_at_the_end_leaves_the_others_where_they_are() -> None:
    values = values_of("gpu")
    new = {"name": "new", "model": "pocket", "workers": [{"name": "a", "maxReplicas": 1, "cpu": 4, "memory": "8Gi"}]}
    before, after = render(values), render({**values, "pools": [*values["pools"], new]})
    assert is_updated(*(ray_service(one)["rayClusterConfig"] for one in (before, after)))
    first = render({**values, "pools": [new, *values["pools"]]})
    assert effect(before, first) == CLUSTER, "KubeRay adds groups to a running cluster only at the end"
    there, now = (serve_config(one)["applications"][1:] for one in (before, after))
    assert now[: len(there)] == there, "Serve leaves applications alone that did not change"


def test_a_value_of_one_pool_replaces_the_gangs_of_no_other() -> None:
    values = values_of("gpu")
    before, after = render(values), render(changed(values, "pools.0.drainSeconds", 80))
    (_, old_first, *old_others), (_, new_first, *new_others) = (
        serve_config(one)["applications"] for one in (before, after)
    )
    assert old_first != new_first
    assert old_others == new_others != []


def test_replicas_of_pools_are_never_written_by_an_upgrade() -> None:
    for name in ("gpu", "hpa"):
        for pool in of_kind(render(values_of(name)), "RenderPool"):
            assert "replicas" not in pool["spec"]
        assert not [
            group
            for group, spec in groups(render(values_of(name))).items()
            if "replicas" in spec and group != "control"
        ]


def test_the_readme_tells_operators_the_same_list() -> None:
    text = (CHART / "README.md").read_text()
    table = text[text.index("## What an upgrade touches") :]
    told = dict(re.findall(r"^\| `([^`]+)` \| (\w+) \|", table, flags=re.MULTILINE))
    assert told == TOUCHING
