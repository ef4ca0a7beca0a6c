"""The kinds of object that the fake API server serves: some built in, others registered by their CRD."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from testkit.json_object import Json
from tests.cluster.api_server.refusals import Refusal, invalid
from tests.cluster.api_server.schema import Schema

CRD_GROUP = "apiextensions.k8s.io"


@dataclass(frozen=True)
class Scale:
    """Where a kind keeps what its scale subresource shows."""

    spec_replicas: str
    status_replicas: str
    selector: str = ""


@dataclass(frozen=True)
class Kind:
    """One kind in one version."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    has_status: bool = False
    counts_generations: bool = False
    scale: Scale | None = None
    schema: Schema | None = None
    """Of a custom resource; None for kinds that are built in, whose fields are hardly checked."""
    selectable: frozenset[str] = frozenset()
    """Fields for field selectors, beside name and namespace."""
    short_names: tuple[str, ...] = ()
    needs_version: bool = False
    """Whether a PUT must name a resourceVersion."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def title(self) -> tuple[str, str]:
        """As refusals name it."""
        return self.plural, self.group

    def discovery(self) -> Iterator[Json]:
        verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        about = {"name": self.plural, "singularName": self.kind.lower(), "namespaced": self.namespaced}
        yield about | {"kind": self.kind, "verbs": verbs, "shortNames": list(self.short_names)}
        for name in (["status"] if self.has_status else []) + (["scale"] if self.scale else []):
            kind = (
                {"kind": "Scale", "group": "autoscaling", "version": "v1"} if name == "scale" else {"kind": self.kind}
            )
            verbs = ["get", "patch", "update"]
            yield {**about, **kind, "name": f"{self.plural}/{name}", "singularName": "", "verbs": verbs}


_REPLICAS = Scale(".spec.replicas", ".status.replicas")
_POD_FIELDS = frozenset(
    {"spec.nodeName", "status.phase", "spec.schedulerName", "spec.serviceAccountName", "status.podIP"}
)
_EVENT_FIELDS = frozenset(f"involvedObject.{name}" for name in ("kind", "name", "namespace", "uid")) | {
    "reason",
    "type",
}

BUILT_IN = (
    Kind("", "v1", "namespaces", "Namespace", False, True, selectable=frozenset({"status.phase"}), short_names=("ns",)),
    Kind("", "v1", "nodes", "Node", False, True, selectable=frozenset({"spec.unschedulable"}), short_names=("no",)),
    Kind("", "v1", "pods", "Pod", True, True, True, selectable=_POD_FIELDS, short_names=("po",)),
    Kind("", "v1", "configmaps", "ConfigMap", short_names=("cm",)),
    Kind("", "v1", "secrets", "Secret", selectable=frozenset({"type"})),
    Kind("", "v1", "services", "Service", True, True),
    Kind("", "v1", "serviceaccounts", "ServiceAccount"),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, True),
    Kind("", "v1", "events", "Event", selectable=_EVENT_FIELDS, short_names=("ev",)),
    Kind("apps", "v1", "deployments", "Deployment", True, True, True, _REPLICAS),
    Kind("apps", "v1", "replicasets", "ReplicaSet", True, True, True, _REPLICAS),
    Kind("apps", "v1", "statefulsets", "StatefulSet", True, True, True, _REPLICAS),
    Kind("apps", "v1", "daemonsets", "DaemonSet", True, True, True),
    Kind("batch", "v1", "jobs", "Job", True, True, True),
    Kind("coordination.k8s.io", "v1", "leases", "Lease", needs_version=True),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, True, True),
    Kind("storage.k8s.io", "v1", "storageclasses", "StorageClass", False),
    Kind(
        CRD_GROUP,
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        namespaced=False,
        has_status=True,
        counts_generations=True,
        short_names=("crd", "crds"),
        needs_version=True,
    ),
)


@dataclass
class Kinds:
    """All kinds that are served now."""

    _kinds: dict[tuple[str, str, str], Kind] = field(
        default_factory=lambda: {(one.group, one.version, one.plural): one for one in BUILT_IN}
    )

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return self._kinds.get((group, version, plural))

    def groups(self) -> dict[str, list[str]]:
        """Versions by group, the core group left out."""
        found: dict[str, list[str]] = {}
        for group, version, _ in self._kinds:
            if group and version not in found.setdefault(group, []):
                found[group].append(version)
        return found

    def of(self, group: str, version: str) -> list[Kind]:
        return [kind for kind in self._kinds.values() if (kind.group, kind.version) == (group, version)]

    def register(self, crd: Json) -> None:
        """Serve what a CRD declares, in place of what it declared before."""
        spec = crd["spec"]
        self.unregister(crd)
        for version in spec["versions"]:
            if version.get("served"):
                kind = _custom_kind(spec, version)
                self._kinds[kind.group, kind.version, kind.plural] = kind

    def unregister(self, crd: Json) -> None:
        group, plural = crd["spec"]["group"], crd["spec"]["names"]["plural"]
        for key in [key for key in self._kinds if (key[0], key[2]) == (group, plural)]:
            del self._kinds[key]


def _custom_kind(spec: Json, version: Json) -> Kind:
    names, subresources = spec["names"], version.get("subresources") or {}
    scale = subresources.get("scale")
    return Kind(
        group=spec["group"],
        version=version["name"],
        plural=names["plural"],
        kind=names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        has_status="status" in subresources,
        counts_generations=True,
        scale=Scale(scale["specReplicasPath"], scale["statusReplicasPath"], scale.get("labelSelectorPath", ""))
        if scale
        else None,
        schema=Schema(version["schema"]["openAPIV3Schema"]),
        selectable=frozenset(one["jsonPath"].strip(".") for one in version.get("selectableFields") or []),
        short_names=tuple(names.get("shortNames") or ()),
        needs_version=True,
    )


def check_crd(crd: Json) -> None:
    """Raises a Refusal for a CRD that a real server would not take."""
    problems: list[tuple[str, str]] = []
    spec, name = crd.get("spec") or {}, crd["metadata"].get("name", "")
    names, versions = spec.get("names") or {}, spec.get("versions") or []
    for path, value in (
        ("group", spec.get("group")),
        ("names.plural", names.get("plural")),
        ("names.kind", names.get("kind")),
    ):
        if not value:
            problems.append((f"spec.{path}", "Required value"))
    if name != f"{names.get('plural')}.{spec.get('group')}":
        problems.append(("metadata.name", 'Invalid value: must be spec.names.plural+"."+spec.group'))
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        problems.append(("spec.scope", 'Unsupported value: supported values: "Cluster", "Namespaced"'))
    if [bool(one.get("storage")) for one in versions].count(True) != 1:
        problems.append(("spec.versions", "Invalid value: must have exactly one version marked as storage version"))
    for index, version in enumerate(versions):
        problems += _version_problems(version, f"spec.versions[{index}]")
    if problems:
        raise invalid("CustomResourceDefinition", CRD_GROUP, name, problems)


def _version_problems(version: Json, path: str) -> Iterator[tuple[str, str]]:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if not schema:
        yield f"{path}.schema.openAPIV3Schema", "Required value: schemas are required"
        return
    if schema.get("type") != "object":
        yield f"{path}.schema.openAPIV3Schema.type", "Invalid value: must be object at the root"
    meta = (schema.get("properties") or {}).get("metadata") or {}
    if set(meta.get("properties") or {}) - {"name", "generateName"}:
        yield f"{path}.schema.openAPIV3Schema.properties[metadata]", "Forbidden: must not specify anything but name"
    try:
        Schema(schema)
    except ValueError as error:
        yield f"{path}.schema", f"Invalid value: {error}"
    scale = (version.get("subresources") or {}).get("scale") or {}
    for name, top in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")) if scale else ():
        if not str(scale.get(name, "")).startswith(top):
            yield f"{path}.subresources.scale.{name}", f"Invalid value: should be a json path under {top.rstrip('.')}"


def established(crd: Json, now: str) -> Json:
    """The status that the server gives to a CRD which it serves."""
    conditions = [
        {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
        for kind, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]
    names = {"singular": crd["spec"]["names"]["kind"].lower(), "listKind": crd["spec"]["names"]["kind"] + "List"}
    stored = [one["name"] for one in crd["spec"]["versions"] if one.get("storage")]
    return {"conditions": conditions, "acceptedNames": {**names, **crd["spec"]["names"]}, "storedVersions": stored}


def check_built_in(kind: Kind, one: Json) -> None:
    """The few rules about built-in kinds that a controller meets. Raises a Refusal."""
    problems = []
    spec = one.get("spec") or {}
    if kind.plural == "pods" and not spec.get("containers"):
        problems.append(("spec.containers", "Required value"))
    if kind.plural == "leases" and (duration := spec.get("leaseDurationSeconds")) is not None and duration <= 0:
        problems.append(("spec.leaseDurationSeconds", f"Invalid value: {duration}: must be greater than 0"))
    if kind.plural == "leases" and (turns := spec.get("leaseTransitions")) is not None and turns < 0:
        problems.append(("spec.leaseTransitions", f"Invalid value: {turns}: must be greater than or equal to 0"))
    if kind.plural == "events":
        problems += _event_problems(one)
    if kind.plural == "configmaps" and any(not isinstance(text, str) for text in (one.get("data") or {}).values()):
        raise Refusal(400, "BadRequest", 'ConfigMap in version "v1" cannot be handled: data must hold strings')
    if problems:
        raise invalid(kind.kind, kind.group, one["metadata"]["name"], problems)


def _event_problems(one: Json) -> Iterator[tuple[str, str]]:
    about, namespace = one.get("involvedObject") or {}, one["metadata"].get("namespace")
    if about.get("namespace", "") != namespace and not (not about.get("namespace") and namespace == "default"):
        yield "involvedObject.namespace", f"Invalid value: {about.get('namespace')!r}: does not match event.namespace"
    if len(one.get("reason") or "") > 128:
        yield "reason", "Invalid value: can have at most 128 characters"
    if len(one.get("message") or "") > 1024:
        yield "message", "Invalid value: can have at most 1024 characters"
