"""What a cluster has and lacks for Longtake, each with its fix. Reads only, and changes nothing.

Checks are independent: one that may not look says so, and the rest go on.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.commands.findings import Finding
from cluster.commands.permissions import check_permissions
from cluster.crd import CRD_NAME, RENDER_POOLS, render_pool_crd
from cluster.errors import ClusterError, did_you_mean
from cluster.farm_client import FarmClient
from cluster.kube.client import Kube
from cluster.kube.errors import Forbidden, KubeError, NotFound
from cluster.kube.resources import CRDS, DEPLOYMENTS, NODES, STORAGE_CLASSES
from cluster.render_pool import VERSION, read_render_pool
from cluster.topology import NodeTopology, read_topology

Json = Mapping[str, Any]

APPLY_CRD = "longtake cluster crd | kubectl apply --server-side --force-conflicts -f -"
"""Forced, because the fields of a definition that Helm installed belong to Helm."""

OLDEST_KUBERNETES = (1, 30)
"""As the chart's kubeVersion has it."""

RAY_SERVICE_CRD = "rayservices.ray.io"

HEADROOM = 1.2
"""What a model takes with all beside its weights, at least, as a factor: activations, CUDA's own memory."""

ONE_NODE_PROVISIONERS = frozenset(
    {"ebs.csi.aws.com", "pd.csi.storage.gke.io", "disk.csi.azure.com", "rancher.io/local-path", "kubernetes.io/aws-ebs"}
)
"""Whose volumes only one node can mount at a time."""

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


@dataclass(frozen=True)
class Requirements:
    """What to check the cluster for, beside what is always checked."""

    namespace: str
    lease_name: str = "longtake-controller"
    weights_gib: float | None = None
    """GiB of a model's weights."""
    shared_class: str | None = None
    """StorageClass of a volume that many nodes mount, such as the cache of weights."""


def check_cluster(kube: Kube, requirements: Requirements, farm: FarmClient | None = None) -> list[Finding]:
    """All findings, in the order in which one would fix them."""
    checks: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("Kubernetes", lambda: check_server(kube)),
        ("RenderPool CRD", lambda: check_crd(kube)),
        ("KubeRay", lambda: check_kuberay(kube)),
        ("GPUs", lambda: check_gpus(kube, requirements)),
        ("storage", lambda: check_storage(kube, requirements)),
        (
            "permissions",
            lambda: check_permissions(kube, namespace=requirements.namespace, lease_name=requirements.lease_name),
        ),
        ("farm", lambda: check_farm(farm)),
    )
    return [finding for name, check in checks for finding in _examine(name, check)]


def _examine(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Forbidden as error:
        return [Finding(name, "warn", f"not allowed to look: {error}", "run it as somebody who may, or check by hand")]
    except KubeError as error:
        return [Finding(name, "fail", str(error), "see that the API server can be reached: kubectl version")]


def check_server(kube: Kube) -> Iterator[Finding]:
    """The API server's version."""
    version = kube.server_version()
    found = re.match(r"v(\d+)\.(\d+)", version)
    if found is not None and (int(found[1]), int(found[2])) < OLDEST_KUBERNETES:
        yield Finding("Kubernetes", "fail", version, "upgrade to {}.{} or later".format(*OLDEST_KUBERNETES))
    else:
        yield Finding("Kubernetes", "ok", version)


def check_crd(kube: Kube) -> Iterator[Finding]:
    """Whether RenderPools are known, as this release has them."""
    try:
        found = kube.get(CRDS, CRD_NAME)
    except NotFound:
        yield Finding("RenderPool CRD", "fail", "not installed", APPLY_CRD)
        return
    served = {one["name"]: one for one in found["spec"]["versions"] if one.get("served")}
    (ours,) = render_pool_crd()["spec"]["versions"]
    if VERSION not in served:
        yield Finding("RenderPool CRD", "fail", f"serves {', '.join(served) or 'nothing'}, not {VERSION}", APPLY_CRD)
        return
    parts = ("schema", "subresources", "additionalPrinterColumns")
    other = [part for part in parts if served[VERSION].get(part) != ours[part]]
    if other:
        # Helm installs CRDs and never upgrades them.
        yield Finding("RenderPool CRD", "fail", f"of another release: {', '.join(other)} differ", APPLY_CRD)
    else:
        yield Finding("RenderPool CRD", "ok", f"{VERSION}, of this release")


def check_kuberay(kube: Kube) -> Iterator[Finding]:
    """KubeRay's CRD by what it can do, its operator by whether it runs."""
    install = "install KubeRay 1.7 or later: helm install kuberay-operator kuberay/kuberay-operator"
    try:
        crd = kube.get(CRDS, RAY_SERVICE_CRD)
    except NotFound:
        yield Finding("KubeRay CRD", "fail", "not installed", install)
        return
    lacks = [name for name in ("priority", "idleTimeoutSeconds", "labels") if name not in _worker_group(crd)]
    if lacks:
        yield Finding("KubeRay CRD", "fail", f"worker groups have no {', '.join(lacks)}", f"too old; {install}")
    else:
        yield Finding("KubeRay CRD", "ok", "has all that the chart uses")
    operators = kube.list_all(DEPLOYMENTS, label_selector="app.kubernetes.io/name=kuberay-operator").items
    if not operators:
        yield Finding("KubeRay operator", "fail", "none runs in this cluster", install)
    for operator in operators:
        where = f"{operator['metadata'].get('namespace')}/{operator['metadata']['name']}"
        ready = (operator.get("status") or {}).get("readyReplicas") or 0
        found = f"{where}, {_image(operator)}"
        if ready:
            yield Finding("KubeRay operator", "ok", found)
        else:
            yield Finding("KubeRay operator", "fail", f"{found}, not ready", f"kubectl describe deployment {where}")


def check_gpus(kube: Kube, requirements: Requirements) -> Iterator[Finding]:
    """GPUs that pods could be given, whether each RenderPool has nodes, and whether a model's weights fit."""
    nodes = [read_topology(node) for node in kube.list_all(NODES).items]
    yield from judge_gpus(nodes)
    try:
        found = kube.list_all(RENDER_POOLS, namespace=requirements.namespace).items
    except NotFound:
        found = ()
    for pool in (read_render_pool(one) for one in found):
        kind = dict(pool.spec.node_kind) if pool.spec is not None else {}
        if kind and not any(node.is_of(kind) for node in nodes):
            words = ", ".join(f"{name}={value}" for name, value in kind.items())
            fix = "fine if such nodes come with the first call; else correct nodeKind"
            yield Finding(f"nodes of {pool.key}", "warn", f"none has {words}", fix)
    if requirements.weights_gib is not None:
        yield from judge_memory(nodes, requirements.weights_gib)


def judge_gpus(nodes: Sequence[NodeTopology]) -> Iterator[Finding]:
    """What the nodes' GPUs are worth."""
    plugin = "install the GPU operator, or NVIDIA's device plugin and GPU feature discovery"
    hidden = [node.name for node in nodes if "nvidia.com/gpu.count" in node.labels and not node.gpus]
    if hidden:
        yield Finding("GPUs", "fail", f"{', '.join(hidden[:5])}: has GPUs, but no pod can be given one", plugin)
    offering = [node for node in nodes if node.gpus]
    if not offering and not hidden:
        fix = "fine for pools on cores, or if GPU nodes come with the first call; else " + plugin
        yield Finding("GPUs", "warn", f"none of {len(nodes)} nodes offers any", fix)
    nameless = [node.name for node in offering if node.product is None]
    if nameless:
        fix = "install GPU feature discovery: it labels nodes with nvidia.com/gpu.product and .memory"
        yield Finding("GPU labels", "warn", f"{', '.join(nameless[:5])}: nothing says which GPUs these are", fix)
    kinds: dict[str, int] = {}
    for node in offering:
        kinds[node.product or "unknown"] = kinds.get(node.product or "unknown", 0) + node.gpus
    for product, gpus in sorted(kinds.items()):
        yield Finding("GPUs", "ok", f"{gpus} x {product}")


def judge_memory(nodes: Sequence[NodeTopology], weights_gib: float) -> Iterator[Finding]:
    """Whether a model fits the GPUs. Its weights are whole on every rank, so a larger gang does not help."""
    memory = {node.product or "unknown": node.gpu_memory_mib / 1024 for node in nodes if node.gpu_memory_mib}
    if not memory:
        fix = "install GPU feature discovery, or compare by hand"
        yield Finding("memory", "warn", "no node says how much memory its GPUs have (nvidia.com/gpu.memory)", fix)
    for product, gib in sorted(memory.items()):
        found = f"{weights_gib:.0f} GiB of weights on {product} with {gib:.0f} GiB"
        if weights_gib > gib:
            fix = "choose larger GPUs or a smaller model; more ranks do not help, for each holds all weights"
            yield Finding("memory", "fail", found, fix)
        elif weights_gib * HEADROOM > gib:
            yield Finding(
                "memory", "warn", f"{found}: little is left for calls", "`longtake plan` says what a call takes"
            )
        else:
            yield Finding("memory", "ok", found)


def check_storage(kube: Kube, requirements: Requirements) -> Iterator[Finding]:
    """A default StorageClass, and, if requested, one whose volumes many nodes can mount."""
    classes = {one["metadata"]["name"]: one for one in kube.list_all(STORAGE_CLASSES).items}
    default = [name for name, one in classes.items() if _annotation(one, DEFAULT_CLASS) == "true"]
    if default:
        yield Finding("default StorageClass", "ok", ", ".join(sorted(default)))
    else:
        fix = "mark one as the default, or name one wherever values.yaml has storageClassName"
        yield Finding("default StorageClass", "warn", "none", fix)
    wanted = requirements.shared_class
    if wanted is None:
        return
    if wanted not in classes:
        yield Finding(
            "shared storage",
            "fail",
            f"no StorageClass {wanted!r}{did_you_mean(wanted, classes)}",
            "name one that is there",
        )
        return
    provisioner = str(classes[wanted].get("provisioner", ""))
    if provisioner in ONE_NODE_PROVISIONERS:
        fix = "use a file store (EFS, Filestore, Azure Files, CephFS, NFS): its volumes can be ReadWriteMany"
        yield Finding("shared storage", "fail", f"volumes of {wanted} ({provisioner}) are for one node", fix)
    else:
        yield Finding("shared storage", "ok", f"{wanted} ({provisioner})")


def check_farm(farm: FarmClient | None) -> Iterator[Finding]:
    """Whether the farm answers an administrator."""
    if farm is None:
        return
    try:
        pools = farm.pools()
        farm.nodes()
    except ClusterError as error:
        yield Finding(
            "farm", "warn", str(error), "right before it is installed; else set LONGTAKE_URL, LONGTAKE_API_KEY"
        )
    else:
        yield Finding("farm", "ok", f"{farm.url} has {len(pools)} pool{'' if len(pools) == 1 else 's'}")


def _worker_group(crd: Json) -> Mapping[str, Any]:
    """Fields of a worker group in the CRD of RayServices; none if it looks different."""
    versions = [one for one in crd["spec"]["versions"] if one.get("name") == "v1"]
    node: Any = versions[0].get("schema", {}).get("openAPIV3Schema", {}) if versions else {}
    for name in ("spec", "rayClusterConfig", "workerGroupSpecs"):
        node = node.get("properties", {}).get(name, {})
    found: Mapping[str, Any] = node.get("items", {}).get("properties", {})
    return found


def _image(deployment: Json) -> str:
    containers = deployment["spec"]["template"]["spec"].get("containers") or [{}]
    return str(containers[0].get("image", "unknown image"))


def _annotation(one: Json, name: str) -> str | None:
    value = (one["metadata"].get("annotations") or {}).get(name)
    return None if value is None else str(value)
