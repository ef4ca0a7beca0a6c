"""The sockets of the fake API server: HTTP/1.1 on loopback, a thread for each connection, watches as chunks.

Carries out the faults that befall connections.
"""

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from testkit.json_object import Json
from tests.cluster.api_server.faulty_answers import Asked, FaultKind, request_line
from tests.cluster.api_server.refusals import Refusal, not_found
from tests.cluster.api_server.requests import Request, Target, is_watch, selector, shown
from tests.cluster.api_server.store import Entry, read_version

if TYPE_CHECKING:
    from tests.cluster.api_server.server import KubeServer

WATCH_S = 300.0
"""Seconds of a watch that names no end."""

HANDSHAKE_S = 10.0

TOKEN = "test-token"


class HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server: "KubeServer", port: int, tls: ssl.SSLContext | None) -> None:
        self.kube, self.stopping, self._tls = server, threading.Event(), tls
        self._lock = threading.Lock()
        self._open: dict[socket.socket, bool] = {}
        super().__init__(("127.0.0.1", port), Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: so is the handshake."""
        if self._tls is not None:
            request.settimeout(HANDSHAKE_S)
            request = self._tls.wrap_socket(request, server_side=True)
            request.settimeout(None)
        try:
            super().finish_request(request, client_address)
        finally:
            if self._tls is not None:  # wrapping took the socket away from who would close it
                request.close()

    def note(self, connection: socket.socket, *, is_watch: bool) -> None:
        with self._lock:
            self._open[connection] = is_watch

    def forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.pop(connection, None)

    def count_watches(self) -> int:
        with self._lock:
            return sum(self._open.values())

    def break_connections(self, *, watches_only: bool) -> int:
        with self._lock:
            broken = [connection for connection, watch in self._open.items() if watch or not watches_only]
            for connection in broken:
                self._open.pop(connection)
        for connection in broken:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        return len(broken)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away as they like."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpServer

    def setup(self) -> None:
        super().setup()
        self.server.note(self.connection, is_watch=False)

    def finish(self) -> None:
        self.server.forget(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        """Tests have `asked`."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def _answer(self) -> None:
        where = urlsplit(self.path)
        query = dict(parse_qsl(where.query, keep_blank_values=True))
        request = Request(
            self.command,
            where.path,
            query,
            self.rfile.read(int(self.headers.get("Content-Length") or 0)),
            self.headers.get("Content-Type", "application/json").split(";")[0].strip(),
            self.headers.get("User-Agent", "unknown"),
        )
        kube, code = self.server.kube, 0
        fault = kube.faults.take(request_line(request.method, unquote(request.path), query))
        try:
            if kube.needs_token and not self._is_known():
                raise Refusal(401, "Unauthorized", "Unauthorized")
            if fault is not None:
                kube.faults.before(fault, self.server.stopping.is_set)
            if self.server.stopping.is_set():
                raise ConnectionError("stopped")
            if is_watch(request):
                code = 200
                self._watch(request, fault.kind if fault is not None else None)
                return
            answer = kube.api.answer(request)
            code, body, warnings = answer.code, answer.body, answer.warnings
            if fault is not None and fault.kind == "lose_answer":
                raise ConnectionError("a fault of the test")
            self._note(request, code)
            self._send(code, body, {"Warning": f'299 - "{warnings[0]}"'} if warnings else {})
        except Refusal as refusal:
            self._note(request, refusal.code)
            headers = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
            self._send(refusal.code, refusal.status(), headers)
        except ConnectionError:
            if not is_watch(request):
                self._note(request, code)
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _is_known(self) -> bool:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and token == TOKEN

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def _note(self, request: Request, code: int) -> None:
        self.server.kube.asked.append(Asked(request.method, unquote(request.path), dict(request.query), code))

    def _send(self, code: int, body: Json, headers: dict[str, str]) -> None:
        content = _compact(body)
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        buffer: list[bytes] = vars(self)["_headers_buffer"]
        buffer += (b"\r\n", content)  # headers and body in one packet
        self.flush_headers()

    # ------------------------------------------------------------------------------------------------ watches

    def _watch(self, request: Request, fault: FaultKind | None) -> None:
        kube = self.server.kube
        target = kube.api.target(request.path)
        kube.api.check_allowed(request, target)
        events = Watch(kube, request, target, self.server.stopping)
        if not kube.gone_in_stream:
            events.check()
        self._note(request, 200)
        if fault == "lose_answer":
            raise ConnectionError("a fault of the test")
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.server.note(self.connection, is_watch=True)
        for event in events if fault != "end_watch" else ():
            line = _compact(event) + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        if self.server.stopping.is_set():
            raise ConnectionError("stopped")
        self.wfile.write(b"0\r\n\r\n")
        self.server.note(self.connection, is_watch=False)


def _compact(one: Json) -> bytes:
    return json.dumps(one, separators=(",", ":")).encode()


class Watch:
    """The events of one watch, as they happen."""

    def __init__(self, kube: "KubeServer", request: Request, target: Target, stopping: threading.Event) -> None:
        query = request.query
        self._kube, self._kind, self._stopping = kube, target.kind, stopping
        if target.name:
            raise not_found(*target.kind.title, target.name)
        self._chosen = selector(target, query)
        self._version = read_version(query.get("resourceVersion")) or 0
        self._initial = query.get("sendInitialEvents") == "true"
        self._bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        self._end = time.monotonic() + float(query.get("timeoutSeconds") or WATCH_S)

    def check(self) -> None:
        """Raises a Refusal if the version to begin at is forgotten."""
        if self._version and not self._initial:
            self._kube.store.since(self._version)

    def __iter__(self) -> Iterator[Json]:
        try:
            yield from self._events()
        except Refusal as refusal:
            yield {"type": "ERROR", "object": refusal.status()}

    def _events(self) -> Iterator[Json]:
        store = self._kube.store
        if self._initial or not self._version:
            with store.changed:
                self._version = store.version
                present = [one for key, one in sorted(store.at(self._version).items()) if self._chosen(key, one)]
            for one in present:
                yield self._event("ADDED", one)
            if self._initial:
                yield self._bookmark(**{"k8s.io/initial-events-end": "true"})
        mark_at = time.monotonic() + self._kube.bookmark_s
        while True:
            entries = self._wait(min(self._end, mark_at))
            for entry in entries:
                self._version = entry.version
                if event := self._shown(entry):
                    yield event
            if self._stopping.is_set() or time.monotonic() >= self._end:
                break
            if time.monotonic() >= mark_at:
                mark_at = time.monotonic() + self._kube.bookmark_s
                if self._bookmarks:
                    yield self._bookmark()
        if self._bookmarks and not self._stopping.is_set():
            yield self._bookmark()

    def _wait(self, until: float) -> list[Entry]:
        """Writes after the version so far; waits for one until then."""
        store = self._kube.store
        with store.changed:
            while not (entries := store.since(self._version)) and not self._stopping.is_set():
                left_s = until - time.monotonic()
                if left_s <= 0:
                    break
                store.changed.wait(min(left_s, 0.5))
            return entries

    def _shown(self, entry: Entry) -> Json | None:
        """What a watch with these selectors says of a write."""
        before = entry.before is not None and self._chosen(entry.key, entry.before)
        after = entry.after is not None and self._chosen(entry.key, entry.after)
        if not before and not after:
            return None
        kind = "MODIFIED" if before and after else "ADDED" if after else "DELETED"
        # An object that is not chosen any more is shown as it was, with the version of the change.
        one = entry.last if after or entry.before is None else entry.before
        return self._event(kind, {**one, "metadata": {**one["metadata"], "resourceVersion": str(entry.version)}})

    def _event(self, kind: str, one: Json) -> Json:
        return {"type": kind, "object": shown(self._kind, one)}

    def _bookmark(self, **annotations: str) -> Json:
        meta: Json = {"resourceVersion": str(self._version)} | ({"annotations": annotations} if annotations else {})
        return self._event("BOOKMARK", {"metadata": meta})
