"""The controller's small HTTP server: /metrics for Prometheus, /healthz and /readyz for the kubelet."""

import http.server
import threading
from collections.abc import Callable, Mapping

REQUEST_TIMEOUT_S = 5.0
"""Seconds that a client may take to send a request."""

Check = Callable[[], str]
"""What is wrong, or nothing."""


class Exporter:
    """Serves from construction on, in a thread of its own. Raises OSError if the port is taken."""

    def __init__(self, port: int, *, metrics: Callable[[], bytes], checks: Mapping[str, Check]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, metrics(), "text/plain; version=0.0.4; charset=utf-8")
                elif self.path in checks:
                    wrong = checks[self.path]()
                    self._answer(503 if wrong else 200, f"{wrong or 'ok'}\n".encode(), "text/plain; charset=utf-8")
                else:
                    self._answer(404, b"/metrics, /healthz, /readyz\n", "text/plain; charset=utf-8")

            def _answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes every few seconds are no news."""

        self._server = http.server.ThreadingHTTPServer(("", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="exporter", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(REQUEST_TIMEOUT_S)
