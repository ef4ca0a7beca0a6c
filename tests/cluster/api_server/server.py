"""A Kubernetes API server for tests: real HTTP on loopback, everything in memory, faults to order.

What it promises is checked by test_fidelity.py, which runs against a real server as well. It has no scheduler,
kubelet or controllers but garbage collection: tests play their parts, and pods go at once when they are deleted. Not
served: admission webhooks, RBAC objects (see `deny`), conversion between versions, tables, protobuf, OpenAPI.

    with KubeServer() as server:
        kube = connect(kubeconfig=server.kubeconfig(tmp_path / "config"))
"""

import base64
import json
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Self

import yaml

from testkit.json_object import Json
from tests.cluster.api_server.api import Api
from tests.cluster.api_server.faulty_answers import Asked, Fault, Faults
from tests.cluster.api_server.http import TOKEN, HttpServer
from tests.cluster.api_server.refusals import Refusal
from tests.cluster.api_server.requests import Request, Target
from tests.cluster.api_server.store import Store
from tests.cluster.api_server.tls import Certificate, make_certificate


class KubeServer:
    """The server, started by `with` or start(). `bookmark_s`: seconds between bookmarks; a real server takes 60."""

    def __init__(
        self, *, bookmark_s: float = 60.0, gone_in_stream: bool = True, tls: bool = False, api: Api | None = None
    ) -> None:
        self.api = api or Api()
        self.needs_token = False
        """Whether requests without the kubeconfig's token are refused."""
        self._certificate: Certificate | None = make_certificate() if tls else None
        self.faults = Faults()
        self.asked: list[Asked] = []
        """Every request so far, oldest first."""
        self.bookmark_s = bookmark_s
        self.gone_in_stream = gone_in_stream
        """Whether a watch of a forgotten version is told so by an event, as real servers mostly do, or by a 410."""
        self.port = 0
        self._http: HttpServer | None = None

    # ------------------------------------------------------------------------------------------------ running

    def start(self) -> Self:
        """Listen, on the port of before if there was one, with the objects that there were."""
        assert self._http is None
        self._http = HttpServer(self, self.port, self._context())
        self.port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, args=(0.05,), name="kube-server", daemon=True).start()
        return self

    def stop(self) -> None:
        """Break all connections and stop listening. Objects stay."""
        if self._http is not None:
            http, self._http = self._http, None
            http.stopping.set()
            http.shutdown()
            http.server_close()
            with self.store.changed:
                self.store.changed.notify_all()
            http.break_connections(watches_only=False)

    def restart(self) -> None:
        """The same objects on the same port; every connection is broken."""
        self.stop()
        self.start()

    def beside(self) -> "KubeServer":
        """Another server of the same objects, on a port of its own, to be reached or not without this one."""
        tls = self._certificate is not None
        return KubeServer(bookmark_s=self.bookmark_s, gone_in_stream=self.gone_in_stream, tls=tls, api=self.api)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.faults.clear()
        self.stop()

    def _context(self) -> ssl.SSLContext | None:
        if self._certificate is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return self._certificate.server_context(Path(folder))

    @property
    def url(self) -> str:
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self.port}"

    def kubeconfig(self, path: Path, *, namespace: str = "default") -> Path:
        """Write a kubeconfig for this server; returns its path."""
        cluster = {"server": self.url}
        if self._certificate is not None:
            cluster["certificate-authority-data"] = base64.b64encode(self._certificate.certificate).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        }
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path

    # ------------------------------------------------------------------------------------------------ objects

    @property
    def store(self) -> Store:
        return self.api.store

    def put(self, one: Json) -> Json:
        """Make an object be, status and all, without asking over HTTP: for the parts that a test plays. Creates it, and
        then replaces spec, labels and status by what is given."""
        target = self._target(one)
        path, name = self._path(target), one["metadata"]["name"]
        body = json.dumps(one).encode()
        with self.store.changed:
            try:
                self.api.answer(Request("POST", path, body=body, agent="test"))
            except Refusal as refusal:
                if refusal.reason != "AlreadyExists":
                    raise
            merge = "application/merge-patch+json"
            stored = self.api.answer(
                Request("PATCH", f"{path}/{name}", body=body, content_type=merge, agent="test")
            ).body
            if target.kind.has_status and "status" in one:
                body = json.dumps({"status": one["status"]}).encode()
                path = f"{path}/{name}/status"
                stored = self.api.answer(Request("PATCH", path, body=body, content_type=merge, agent="test")).body
        return stored

    def get(self, plural: str, name: str, *, namespace: str = "", group: str = "") -> Json | None:
        """A copy of an object, or None, without asking over HTTP."""
        return self.store.get((group, plural, namespace, name))

    def all_of(self, plural: str, *, group: str = "") -> list[Json]:
        """Copies of all objects of a kind."""
        return self.store.of(group, plural)

    def _target(self, one: Json) -> Target:
        group, _, version = one["apiVersion"].rpartition("/")
        kinds = [kind for kind in self.api.kinds.of(group, version) if kind.kind == one["kind"]]
        assert kinds, f"no kind {one['apiVersion']} {one['kind']}"
        namespace = one["metadata"].get("namespace", "default") if kinds[0].namespaced else None
        return Target(kinds[0], namespace, one["metadata"]["name"], None)

    @staticmethod
    def _path(target: Target) -> str:
        kind = target.kind
        head = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        return head + (f"/namespaces/{target.namespace}" if target.namespace else "") + f"/{kind.plural}"

    # ------------------------------------------------------------------------------------------------ faults

    def drop_watches(self) -> int:
        """Break the connections of all watches, without a word; returns how many there were."""
        return self._http.break_connections(watches_only=True) if self._http is not None else 0

    @property
    def watches(self) -> int:
        """Watches that are open now."""
        return self._http.count_watches() if self._http is not None else 0

    def expire(self) -> None:
        """Forget all versions but the newest, as etcd's compaction does. Watches that are up to date go on."""
        self.store.forget()

    def refuse(self, pattern: str, *, times: int = 1, code: int = 500, retry_after_s: int | None = None) -> None:
        """Answer the next requests whose "METHOD /path?query" the pattern finds with an error, and do nothing."""
        self.faults.add(Fault("refuse", pattern, times, code, retry_after_s))

    def hang(self, pattern: str, *, times: int = 1) -> None:
        """Never answer them, and do nothing; until faults.clear() breaks their connections."""
        self.faults.add(Fault("hang", pattern, times))

    def delay(self, pattern: str, delay_s: float, *, times: int = 1) -> None:
        """Answer them later."""
        self.faults.add(Fault("delay", pattern, times, delay_s=delay_s))

    def lose_request(self, pattern: str, *, times: int = 1) -> None:
        """Break their connections before anything is done."""
        self.faults.add(Fault("lose_request", pattern, times))

    def lose_answer(self, pattern: str, *, times: int = 1) -> None:
        """Do what they ask, and break their connections instead of answering."""
        self.faults.add(Fault("lose_answer", pattern, times))

    def end_watch(self, pattern: str, *, times: int = 1) -> None:
        """End watches as soon as they have begun, in all form."""
        self.faults.add(Fault("end_watch", pattern, times))

    def deny(self, verb: str, plural: str) -> None:
        """Forbid something: both may hold wildcards, subresources are named as `pods/status`. allow_all() ends it."""
        self.api.denied.append((verb, plural))

    def allow_all(self) -> None:
        self.api.denied.clear()

    def writes(self, *, plural: str = "") -> list[Asked]:
        """What was asked that is no mere question, and was carried out."""
        return [
            one
            for one in list(self.asked)
            if one.method != "GET" and 200 <= one.code < 300 and f"/{plural}" in one.path and "reviews" not in one.path
        ]
