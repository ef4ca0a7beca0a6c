"""What the fake API server does with objects that it is sent: create, replace, patch, apply, scale, delete.

Generations, optimistic concurrency, subresources, ownership of fields and dry runs are here; what follows from a
deletion is in deleting.py.
"""

import copy
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from testkit.json_object import Json
from tests.cluster.api_server.deleting import Deletions
from tests.cluster.api_server.kinds import CRD_GROUP, Kind, Kinds, check_built_in, check_crd, established
from tests.cluster.api_server.managed_fields import Owners
from tests.cluster.api_server.managed_fields import apply as server_side_apply
from tests.cluster.api_server.patching import json_patch, merge_patch, strategic_patch
from tests.cluster.api_server.refusals import Refusal, bad_request, conflict, invalid, no_such_path, not_found
from tests.cluster.api_server.requests import Answer, Request, Target, selector, shown
from tests.cluster.api_server.selectors import set_at, value_at
from tests.cluster.api_server.store import Store

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_KEPT = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
"""Metadata that only the server writes."""

_SHOWN_WHEN_DELETED = {"pods", "services", "serviceaccounts", "persistentvolumeclaims", "storageclasses"}
"""Kinds of which a deletion is answered with the object; else with a Status."""

MERGES: Mapping[str, Callable[[Any, Any], Any]] = {
    "application/merge-patch+json": merge_patch,
    "application/strategic-merge-patch+json": strategic_patch,
    "application/json-patch+json": json_patch,
}


@dataclass(frozen=True)
class Writing:
    """Its caller holds the store's lock from the first read of a request to its last write."""

    store: Store
    kinds: Kinds
    deletions: Deletions
    time: Callable[[], str]

    def body(self, request: Request, target: Target) -> Json:
        """The object in a request's body, as far as it fits the path. Raises a Refusal."""
        one, kind = request.read(), target.kind
        if not isinstance(one, dict):
            raise bad_request("the body is no object")
        for name, wanted in (("kind", kind.kind), ("apiVersion", kind.api_version)):
            if one.get(name) not in (None, wanted) or (kind.schema and one.get(name) is None):
                raise bad_request(
                    f"the {name} in the data ({one.get(name)}) does not match the expected one ({wanted})"
                )
        meta = one.get("metadata")
        if not isinstance(meta, dict | None):
            raise bad_request("metadata must be an object")
        one = {**one, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": dict(meta or {})}
        meta = one["metadata"]
        for name in ("labels", "annotations"):
            if any(not isinstance(value, str) for value in (meta.get(name) or {}).values()):
                raise bad_request(f"unable to decode: metadata.{name}: Go value of type string expected")
        if target.namespace is not None and meta.setdefault("namespace", target.namespace) != target.namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        if target.name is not None and meta.setdefault("name", target.name) != target.name:
            raise bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({target.name})"
            )
        return one

    def create(self, target: Target, one: Json, request: Request, owners: list[Json] | None = None) -> Answer:
        kind, meta = target.kind, one["metadata"]
        if kind.namespaced and target.namespace is None:
            raise no_such_path()
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        self._check_name(kind, str(meta.get("name") or ""))
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        target = replace(target, name=meta["name"])
        self._check_namespace(target)
        if self.store.get(target.key) is not None:
            details = {"name": meta["name"], "group": kind.group, "kind": kind.plural}
            raise Refusal(409, "AlreadyExists", f'{kind.plural} "{meta["name"]}" already exists', details=details)
        for name in (*_KEPT[2:], "managedFields", "resourceVersion"):
            meta.pop(name, None)
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": self.time()}
        if kind.counts_generations:
            meta["generation"] = 1
        if kind.has_status and kind.plural != "nodes":
            one.pop("status", None)
        if kind.plural in ("pods", "namespaces"):
            one["status"] = {"phase": "Pending" if kind.plural == "pods" else "Active"}
        warnings = self._unknown(kind, one, request)
        one = self._admitted(kind, one, None)
        if owners is not None:
            one["metadata"]["managedFields"] = owners
        else:
            self._own(one, {"metadata": {}}, kind, request, "")
        return Answer(201, shown(kind, self._store(target, one, request)), warnings)

    def _check_name(self, kind: Kind, name: str) -> None:
        if not name:
            raise invalid(
                kind.kind, kind.group, "", [("metadata.name", "Required value: name or generateName is required")]
            )
        if len(name) > 253 or not _NAME.fullmatch(name):
            told = f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case characters'
            raise invalid(kind.kind, kind.group, name, [("metadata.name", told)])

    def _check_namespace(self, target: Target) -> None:
        if not target.kind.namespaced:
            return
        namespace = self.store.get(("", "namespaces", "", target.namespace or ""))
        if namespace is None:
            raise not_found("namespaces", "", target.namespace or "")
        if namespace["metadata"].get("deletionTimestamp"):
            message = f"unable to create new content in namespace {target.namespace} because it is being terminated"
            raise Refusal(403, "Forbidden", message, causes=[{"reason": "NamespaceTerminating", "message": message}])

    def put(self, request: Request, target: Target) -> Answer:
        one, old = self.body(request, target), existing(self.store, target)
        if not one["metadata"].get("resourceVersion") and target.kind.needs_version:
            told = "Invalid value: 0: must be specified for an update"
            raise invalid(target.kind.kind, target.kind.group, target.name or "", [("metadata.resourceVersion", told)])
        warnings = self._unknown(target.kind, one, request)
        return Answer(200, self._update(target, old, one, request), warnings)

    def patch(self, request: Request, target: Target) -> Answer:
        patch, old = request.read(), existing(self.store, target)
        if isinstance(patch, list) != (request.content_type == "application/json-patch+json"):
            raise bad_request(f"error decoding patch: cannot unmarshal {type(patch).__name__}")
        if "force" in request.query:
            raise invalid(
                "PatchOptions", "meta.k8s.io", "", [("force", "Forbidden: may not be specified for non-apply patch")]
            )
        before = shown(target.kind, old)
        one = MERGES[request.content_type](before, patch)
        if not isinstance(one, dict) or not isinstance(one.get("metadata"), dict):
            raise bad_request("the patched body is no object")
        for name in ("apiVersion", "kind"):
            if one.get(name) != before[name]:
                raise bad_request(f"a patch may not change {name}")
        if one["metadata"].get("name") != target.name:
            raise bad_request("a patch may not change the name")
        warnings = self._unknown(target.kind, one, request)
        return Answer(200, self._update(target, old, one, request), warnings)

    def apply(self, request: Request, target: Target) -> Answer:
        if "fieldManager" not in request.query:
            told = "Required value: is required for apply patch"
            raise invalid("PatchOptions", "meta.k8s.io", "", [("fieldManager", told)])
        config, kind = self.body(request, target), target.kind
        if config["metadata"].get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        old = self.store.get(target.key)
        if old is None and target.sub:
            raise not_found(*kind.title, target.name or "")
        self._check_version(target, old, config)
        warnings = self._unknown(kind, config, request)
        config["metadata"].pop("resourceVersion", None)
        config = _only(config, target.sub) if kind.has_status else config
        schema = kind.schema.raw if kind.schema else None
        if kind.schema:  # what is not known is not owned
            config = kind.schema.pruned(config)
        live = old if old is not None else {"metadata": {}}
        force = request.query.get("force") == "true"
        one, owners = server_side_apply(
            live,
            config,
            manager=request.manager,
            subresource=target.sub or "",
            force=force,
            schema=schema,
            now=self.time(),
        )
        if old is None:
            return replace(self.create(replace(target, name=None), one, request, owners), warnings=warnings)
        return Answer(200, self._update(target, old, one, request, owners), warnings)

    def _check_version(self, target: Target, old: Json | None, one: Json) -> None:
        """Whether the object that `one` means is the one that is there. Raises a Refusal."""
        for name in ("resourceVersion", "uid"):
            wanted = one["metadata"].get(name)
            if wanted and (old is None or wanted != old["metadata"][name]):
                why = "" if name == "resourceVersion" else f"Precondition failed: UID in precondition: {wanted}"
                raise conflict(*target.kind.title, target.name or "", why)

    def _update(self, target: Target, old: Json, one: Json, request: Request, owners: list[Json] | None = None) -> Json:
        """Store `one` in the place of `old`, as far as this subresource may change it."""
        kind, before = target.kind, old["metadata"]
        self._check_version(target, old, one)
        one = copy.deepcopy(one)
        if target.sub == "status":
            one = {**copy.deepcopy(old), **({"status": one["status"]} if "status" in one else {})}
        elif kind.has_status:
            one.pop("status", None)
            if "status" in old:
                one["status"] = copy.deepcopy(old["status"])
        meta = one["metadata"]
        for name in _KEPT:
            meta.pop(name, None)
            if name in before:
                meta[name] = before[name]
        if before.get("deletionTimestamp") and set(meta.get("finalizers") or []) - set(before.get("finalizers") or []):
            told = "Forbidden: no new finalizers can be added if the object is being deleted"
            raise invalid(kind.kind, kind.group, target.name or "", [("metadata.finalizers", told)])
        meta["managedFields"] = copy.deepcopy(before.get("managedFields") or [])
        one = self._admitted(kind, one, old)
        if owners is not None:
            one["metadata"]["managedFields"] = owners
        else:
            self._own(one, old, kind, request, target.sub or "")
        if kind.counts_generations and _counted(one, kind) != _counted(old, kind):
            one["metadata"]["generation"] = before.get("generation", 0) + 1
        one["metadata"]["resourceVersion"] = before["resourceVersion"]
        if shown(kind, one) == shown(kind, old):
            return shown(kind, old)
        return shown(kind, self._store(target, one, request))

    def _store(self, target: Target, one: Json, request: Request) -> Json:
        if request.dry:
            return one
        kind = target.kind
        is_crd = kind.group == CRD_GROUP
        if is_crd:
            self.kinds.register(one)
            one["status"] = (one.get("status") or {}) | established(one, self.time())
        one = self.store.put(target.key, one)
        return self.deletions.after_write(target.key, one)

    def _admitted(self, kind: Kind, one: Json, old: Json | None) -> Json:
        """As it is to be stored. Raises a Refusal for what may not be."""
        if kind.group == CRD_GROUP:
            check_crd(one)
        if kind.schema is None:
            check_built_in(kind, one)
            return one
        one = kind.schema.admit(one)
        if problems := kind.schema.problems(one, None if old is None else kind.schema.admit(old)):
            raise invalid(kind.kind, kind.group, one["metadata"]["name"], problems)
        return one

    def _unknown(self, kind: Kind, one: Json, request: Request) -> tuple[str, ...]:
        """Warnings about fields that the schema does not know. Raises a Refusal if they were asked to be errors."""
        mode = request.query.get("fieldValidation") or "Warn"
        if kind.schema is None or mode == "Ignore":
            return ()
        told = [f'unknown field "{path}"' for path in kind.schema.unknown(one)]
        if told and mode == "Strict":
            raise bad_request(f"strict decoding error: {', '.join(told)}")
        return tuple(told)

    def _own(self, one: Json, old: Json, kind: Kind, request: Request, sub: str) -> None:
        """Account for who set which fields."""
        owners = Owners(old["metadata"].get("managedFields") or [])
        schema = kind.schema.raw if kind.schema else None
        named = {**_only(one, sub), "apiVersion": kind.api_version} if kind.has_status else one
        before = _only(old, sub) if kind.has_status else old
        owners.wrote(request.manager, sub, before, named, schema, self.time())
        one["metadata"]["managedFields"] = owners.entries()

    def delete(self, request: Request, target: Target) -> Answer:
        options = request.read() or {}
        if target.name is None:
            chosen = selector(target, request.query)
            for key in [key for key, one in self.store.view().items() if chosen(key, one)]:
                self.deletions.delete(key, "Background")
            return Answer(200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        old = existing(self.store, target)
        for name, wanted in (options.get("preconditions") or {}).items():
            if wanted and old["metadata"].get(name) != wanted:
                raise conflict(*target.kind.title, target.name, f"Precondition failed: {name}: {wanted}")
        policy = options.get("propagationPolicy") or request.query.get("propagationPolicy") or "Background"
        if request.dry:
            return Answer(200, shown(target.kind, old))
        rest = self.deletions.delete(target.key, policy)
        if rest is not None:
            return Answer(200, shown(target.kind, rest))
        if target.kind.plural in _SHOWN_WHEN_DELETED:
            return Answer(200, shown(target.kind, old))
        details = {"name": target.name, "group": target.kind.group, "kind": target.kind.plural}
        details["uid"] = old["metadata"]["uid"]
        return Answer(
            200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )

    def scale(self, request: Request, target: Target) -> Json:
        kind, old = target.kind, existing(self.store, target)
        assert kind.scale is not None
        before = to_scale(kind, old, may_be_unset=True)
        sent = request.read()
        if request.method == "PATCH":
            merge = MERGES.get(request.content_type)
            if merge is None:
                raise Refusal(415, "UnsupportedMediaType", f"unknown patch {request.content_type!r}")
            sent = merge(before, sent)
        version = (sent.get("metadata") or {}).get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            raise conflict(*kind.title, target.name or "")
        replicas = (sent.get("spec") or {}).get("replicas", 0)
        if "replicas" not in before["spec"] and "replicas" not in (sent.get("spec") or {}):
            raise bad_request(f'the spec replicas field "{kind.scale.spec_replicas}" cannot be empty')
        if not isinstance(replicas, int) or replicas < 0:
            told = f"Invalid value: {replicas}: should be a non-negative integer"
            raise invalid("Scale", "autoscaling", target.name or "", [("spec.replicas", told)])
        one = copy.deepcopy(old)
        set_at(one, kind.scale.spec_replicas, replicas)
        stored = self._update(replace(target, sub=None), old, one, request)
        return to_scale(kind, stored)


def existing(store: Store, target: Target) -> Json:
    one = store.get(target.key)
    if one is None:
        raise not_found(*target.kind.title, target.name or "")
    return one


def _counted(one: Json, kind: Kind) -> Json:
    """What a generation counts the changes of."""
    left_out = {"metadata", "apiVersion", "kind"} | ({"status"} if kind.has_status else set())
    return {name: value for name, value in one.items() if name not in left_out}


def _only(one: Json, sub: str | None) -> Json:
    """The part of an object that a subresource, or none, may write."""
    if sub == "status":
        return {name: one[name] for name in ("apiVersion", "kind", "status") if name in one} | {"metadata": {}}
    return {name: value for name, value in one.items() if name != "status"}


def to_scale(kind: Kind, one: Json, *, may_be_unset: bool = False) -> Json:
    assert kind.scale is not None
    replicas = value_at(one, kind.scale.spec_replicas)
    if replicas is None and not may_be_unset:
        # As a real server: an object that says nothing of replicas has no scale that could be read.
        raise Refusal(500, "InternalError", f'the spec replicas field "{kind.scale.spec_replicas}" does not exist')
    status: Json = {"replicas": value_at(one, kind.scale.status_replicas) or 0}
    if kind.scale.selector and (selector := value_at(one, kind.scale.selector)):
        status["selector"] = selector
    meta = {
        name: one["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    }
    head = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta}
    return {**head, "spec": {} if replicas is None else {"replicas": replicas}, "status": status}
