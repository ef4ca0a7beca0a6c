"""The fake API server without its sockets: which request does what, who may ask it, and lists.

What is written is writing.py's matter, what is kept store.py's.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import unquote

from testkit.json_object import Json
from tests.cluster.api_server import discovery
from tests.cluster.api_server.deleting import Deletions
from tests.cluster.api_server.kinds import Kinds
from tests.cluster.api_server.refusals import Refusal, bad_request, forbidden, no_such_path
from tests.cluster.api_server.requests import Answer, Request, Target, is_watch, selector, shown
from tests.cluster.api_server.store import Store, read_version
from tests.cluster.api_server.writing import MERGES, Writing, existing, to_scale

_PATH = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>status|scale))?$"
)
APPLY = "application/apply-patch+yaml"


@dataclass
class Api:
    """The server without its sockets. `now` in Unix seconds."""

    now: Callable[[], float] = time.time
    store: Store = field(default_factory=Store)
    kinds: Kinds = field(default_factory=Kinds)
    denied: list[tuple[str, str]] = field(default_factory=list)
    """Verb and plural, with the subresource if there is one, that are not allowed; both may hold wildcards."""

    def __post_init__(self) -> None:
        self._writing = Writing(self.store, self.kinds, Deletions(self.store, self.kinds, self.time), self.time)
        for name in ("default", "kube-system"):
            body = json.dumps({"metadata": {"name": name}}).encode()
            self.answer(Request("POST", "/api/v1/namespaces", body=body))

    def time(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.now()))

    def answer(self, request: Request) -> Answer:
        """Raises a Refusal. Not for watches."""
        found = discovery.answer(request.path, self.kinds) if request.method == "GET" else None
        if found is not None:
            return Answer(200, found)
        if request.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" and request.method == "POST":
            return Answer(201, self._review(request.read()))
        target = self.target(request.path)
        self.check_allowed(request, target)
        with self.store.changed:
            return self._verb(request, target)

    def target(self, path: str) -> Target:
        """Raises a Refusal for what is not served."""
        parts = re.fullmatch(r"/api/v1/namespaces(?:/([^/]+))?(?:/(status))?", path)
        if parts:
            kind = self.kinds.find("", "v1", "namespaces")
            assert kind is not None
            return Target(kind, None, parts[1] and unquote(parts[1]), parts[2])
        found = _PATH.match(path)
        kind = found and self.kinds.find(found["group"] or "", found["core"] or found["version"], found["plural"])
        if not found or not kind:
            raise no_such_path()
        namespace, name, sub = found["namespace"], found["name"], found["sub"]
        if (sub == "status" and not kind.has_status) or (sub == "scale" and not kind.scale):
            raise no_such_path()
        if bool(namespace) > kind.namespaced or (name and kind.namespaced and not namespace):
            raise no_such_path()
        return Target(kind, namespace and unquote(namespace), name and unquote(name), sub)

    def check_allowed(self, request: Request, target: Target) -> None:
        verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get"}
        verb = verbs.get(request.method, "")
        if target.name is None and request.method in ("GET", "DELETE"):
            verb = "watch" if is_watch(request) else "list" if request.method == "GET" else "deletecollection"
        plural = f"{target.kind.plural}/{target.sub}" if target.sub else target.kind.plural
        if self._is_denied(verb, plural):
            raise forbidden(verb, plural, target.kind.group, target.name or "")

    def _is_denied(self, verb: str, plural: str) -> bool:
        return any(fnmatchcase(verb, one) and fnmatchcase(plural, other) for one, other in self.denied)

    def _review(self, body: Json) -> Json:
        about = (body.get("spec") or {}).get("resourceAttributes") or {}
        plural = about.get("resource", "") + (f"/{about['subresource']}" if about.get("subresource") else "")
        allowed = not self._is_denied(about.get("verb", ""), plural)
        status = {"allowed": allowed, "reason": "" if allowed else "denied by the test"}
        head = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}}
        return {**head, "spec": body.get("spec") or {}, "status": status}

    def _verb(self, request: Request, target: Target) -> Answer:
        method, write = request.method, self._writing
        if method == "GET":
            return Answer(200, self._get(target) if target.name else self._list(request, target))
        if method == "POST" and target.name is None:
            return write.create(target, write.body(request, target), request)
        if method == "DELETE":
            return write.delete(request, target)
        if target.name is None or method not in ("PUT", "PATCH"):
            raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        if target.sub == "scale":
            return Answer(200, write.scale(request, target))
        if method == "PUT":
            return write.put(request, target)
        if request.content_type == APPLY:
            return write.apply(request, target)
        if request.content_type not in MERGES or (target.kind.schema and "strategic" in request.content_type):
            told = f"the body of the request was in an unknown format - {request.content_type!r}"
            raise Refusal(415, "UnsupportedMediaType", told)
        return write.patch(request, target)

    def _get(self, target: Target) -> Json:
        one = existing(self.store, target)
        return to_scale(target.kind, one) if target.sub == "scale" else shown(target.kind, one)

    def _list(self, request: Request, target: Target) -> Json:
        query, kind = request.query, target.kind
        version, match = read_version(query.get("resourceVersion")), query.get("resourceVersionMatch")
        if match and (version is None or (match == "Exact" and version == 0)):
            raise bad_request(
                "resourceVersionMatch is forbidden unless resourceVersion is provided and not 0 for Exact"
            )
        if version is not None and version > self.store.version:
            message = f"Too large resource version: {version}, current: {self.store.version}"
            causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
            raise Refusal(504, "Timeout", message, causes=causes, retry_after_s=1)
        exact = version if match == "Exact" else None
        items, about = self.store.page(
            selector(target, query), version=exact, limit=int(query.get("limit") or 0), token=query.get("continue")
        )
        items = [shown(kind, one) for one in items]
        if kind.schema is None:  # lists of built-in kinds do not repeat what their items are
            items = [{key: one[key] for key in one if key not in ("apiVersion", "kind")} for one in items]
        else:  # lists of custom resources have it even if nothing follows
            about = {"continue": "", **about}
        return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": about, "items": items}
