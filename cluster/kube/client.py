"""What the controller may ask of the Kubernetes API.

Objects are plain dicts, as JSON has them. Every call has a timeout, none is tried again here, and every failure is one
of kube/errors.py. Knows nothing of pools.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cluster.kube.connection import Connection, open_connection
from cluster.kube.errors import Invalid, NotFound
from cluster.kube.resources import ACCESS_REVIEWS, Resource
from cluster.kube.stream import WatchStream

FIELD_MANAGER = "longtake-controller"
"""Our name in the managedFields of what we write."""

REQUEST_TIMEOUT_S = 10.0
"""Seconds that an answer may take, unless a caller says otherwise."""

STREAM_GRACE_S = 5.0
"""Seconds that the end of a watch may come late before its connection counts as dead."""

PAGE_SIZE = 500
"""Objects of one page of a list, as kubectl has it."""

MAX_PAGES = 1000

Json = dict[str, Any]
PatchKind = Literal["merge", "json", "strategic"]

_PATCH_TYPES: Mapping[str, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


@dataclass(frozen=True)
class Listing:
    """All objects of a list, and the version of the whole from which a watch may go on."""

    items: tuple[Json, ...]
    version: str


@dataclass(frozen=True)
class Access:
    """Whether we may do something, and what the server says about it."""

    allowed: bool
    reason: str


@dataclass(frozen=True)
class Kube:
    """A connection to an API server; any number of threads may share it."""

    connection: Connection
    timeout_s: float = REQUEST_TIMEOUT_S

    def within(self, timeout_s: float) -> "Kube":
        """The same connection with another timeout."""
        return replace(self, timeout_s=timeout_s)

    # ------------------------------------------------------------------------------------------------ reading

    def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        """One object. Raises NotFound and other KubeErrors."""
        return self._ask("GET", resource.path(namespace=namespace, name=name))

    def list_all(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Listing:
        """All objects of a namespace, or of all namespaces, in pages that show one moment, the newest there is.
        Raises Gone if that moment was forgotten between two pages, and other KubeErrors."""
        query = {"labelSelector": label_selector, "fieldSelector": field_selector, "limit": str(PAGE_SIZE)}
        items: list[Json] = []
        for _ in range(MAX_PAGES):
            page = self._ask("GET", resource.path(namespace=namespace), query=query)
            about = page.get("metadata") or {}
            # Items of a list come without these two; callers expect an object like any other.
            names = {"apiVersion": resource.api_version, "kind": resource.kind}
            items += [{**names, **item} for item in page.get("items") or []]
            if not about.get("continue"):
                return Listing(tuple(items), str(about.get("resourceVersion", "")))
            query["continue"] = about["continue"]
        raise Invalid(f"list {resource.plural}: more than {MAX_PAGES * PAGE_SIZE} objects")

    def watch(
        self,
        resource: Resource,
        *,
        since: str,
        watch_s: float,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> WatchStream:
        """Changes after the version `since`, with bookmarks, for `watch_s` seconds at most. Raises Gone if the
        server has forgotten that version (it may also say so in the stream), and other KubeErrors."""
        query = {
            "watch": "true",
            "resourceVersion": since,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(watch_s))),
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
        }
        what = f"watch {resource.plural}"
        idle_s = max(1.0, watch_s) + STREAM_GRACE_S
        response = self.connection.send(
            "GET", resource.path(namespace=namespace), query=query, read_s=idle_s, what=what
        )
        return WatchStream(response, what=what)

    def server_version(self) -> str:
        """Such as v1.36.3."""
        return str(self._ask("GET", "/version").get("gitVersion", ""))

    def serves(self, resource: Resource) -> bool:
        """Whether the server knows the kind, in this version."""
        group = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
        try:
            known = self._ask("GET", group)
        except NotFound:
            return False
        return any(one.get("name") == resource.plural for one in known.get("resources") or [])

    def may(
        self,
        verb: str,
        resource: Resource,
        *,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
    ) -> Access:
        """Whether we may do it, as the server would decide now."""
        attributes = {
            "verb": verb,
            "group": resource.group,
            "version": resource.version,
            "resource": resource.plural,
            "namespace": namespace,
            "name": name,
            "subresource": subresource,
        }
        attributes = {key: value for key, value in attributes.items() if value is not None}
        answer = self.create(ACCESS_REVIEWS, {"spec": {"resourceAttributes": attributes}})
        status = answer.get("status") or {}
        reason = str(status.get("reason") or status.get("evaluationError") or "")
        return Access(bool(status.get("allowed")) and not status.get("denied"), reason)

    # ------------------------------------------------------------------------------------------------ writing

    def create(self, resource: Resource, body: Json, *, namespace: str | None = None, dry_run: bool = False) -> Json:
        """A new object, as stored. Raises AlreadyExists and other KubeErrors."""
        path = resource.path(namespace=namespace or _namespace(body))
        return self._ask("POST", path, body=_typed(resource, body), query=_writing(dry_run))

    def replace(self, resource: Resource, body: Json, *, subresource: str | None = None) -> Json:
        """Replace the object that `body` names. Raises Conflict if its metadata.resourceVersion is
        not the newest, NotFound, and other KubeErrors."""
        path = resource.path(namespace=_namespace(body), name=_name(body), subresource=subresource)
        return self._ask("PUT", path, body=_typed(resource, body), query=_writing(False))

    def apply(
        self,
        resource: Resource,
        body: Json,
        *,
        subresource: str | None = None,
        force: bool = False,
        dry_run: bool = False,
    ) -> Json:
        """Server-side apply: after it the fields in `body` are ours and as in `body`, those that we applied before and
        left out now are gone, and the object exists. Raises Conflict, which names the fields that others own, unless
        `force` takes them over."""
        query = {**_writing(dry_run), "force": "true" if force else "false"}
        path = resource.path(namespace=_namespace(body), name=_name(body), subresource=subresource)
        media_type = "application/apply-patch+yaml"  # JSON is YAML
        return self._ask("PATCH", path, body=_typed(resource, body), query=query, media_type=media_type)

    def patch(
        self,
        resource: Resource,
        name: str,
        patch: Json | list[Json],
        *,
        namespace: str | None = None,
        kind: PatchKind = "merge",
        subresource: str | None = None,
    ) -> Json:
        """Change some fields, regardless of their owner. Raises NotFound; Conflict if `patch` names another
        metadata.resourceVersion than the newest; Invalid, also if a json patch's test fails."""
        path = resource.path(namespace=namespace, name=name, subresource=subresource)
        return self._ask("PATCH", path, body=patch, query=_writing(False), media_type=_PATCH_TYPES[kind])

    def patch_status(
        self, resource: Resource, name: str, status: Json, *, namespace: str | None = None, version: str | None = None
    ) -> Json:
        """Merge `status` into an object's status: lists are replaced, None removes. With `version` only if the
        object still has it, Conflict otherwise."""
        body: Json = {"status": status} | ({"metadata": {"resourceVersion": version}} if version else {})
        return self.patch(resource, name, body, namespace=namespace, subresource="status")

    def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
        version: str | None = None,
    ) -> None:
        """Delete in the background; an object with finalizers stays until they are gone. Raises NotFound; Conflict
        if there is now another object of that name than `uid` says, or it is not in `version` any more."""
        conditions = {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value is not None}
        body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if conditions:
            body["preconditions"] = conditions
        self._ask("DELETE", resource.path(namespace=namespace, name=name), body=body)

    def _ask(self, method: str, path: str, **what: Any) -> Json:
        return self.connection.ask(method, path, timeout_s=self.timeout_s, **what)


def connect(*, kubeconfig: Path | None = None, context: str | None = None) -> Kube:
    """The cluster that `kubeconfig` names; without it the cluster around us; outside of any, the kubeconfig where
    kubectl looks. Asks nobody yet. Raises NoCluster."""
    return Kube(open_connection(kubeconfig=kubeconfig, context=context))


def _typed(resource: Resource, body: Json) -> Json:
    """`body` with the two fields that say what it is."""
    return {**body, "apiVersion": resource.api_version, "kind": resource.kind}


def _name(body: Json) -> str:
    return str(body["metadata"]["name"])


def _namespace(body: Json) -> str | None:
    namespace = (body.get("metadata") or {}).get("namespace")
    return None if namespace is None else str(namespace)


def _writing(dry_run: bool) -> dict[str, str | None]:
    return {"fieldManager": FIELD_MANAGER, "dryRun": "All" if dry_run else None}
