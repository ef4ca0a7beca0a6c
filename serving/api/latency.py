"""How fast the Api answers, by route: measured around every request, counted here, and told to the Director.

No request waits for that. What was measured is kept as counts, which do not grow with requests, while no Director is
there; a report that was sent, and whose answer was lost, is sent again with its number, so that it counts once. What
was measured after the last report of a process that ends is lost. Pure ASGI, so that it costs little.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

import anyio.to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.services import Live
from serving.errors import LongtakeError
from serving.telemetry.histograms import LAG_BUCKETS, REQUEST_BUCKETS, ApiReport, Labels, Tally

OTHER = "other"
"""The route of a request that was for none, or was refused before its route was looked for."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

log = logging.getLogger(__name__)


class Latencies:
    """What one process of the Api has measured. For one event loop."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        """`clock` gives Unix seconds, for events."""
        self._clock = clock
        self._sender = secrets.token_hex(8)
        self._requests: dict[Labels, Tally] = {}
        self._lag = Tally(LAG_BUCKETS)
        self._unheard: ApiReport | None = None
        """It was made, and the Director is not known to have it."""
        self._reports = 0

    def request(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """An answer was begun. Routes are templates; a method that is none of HTTP's is `other` too."""
        labels = (route, method if method in METHODS else OTHER, f"{status // 100}xx")
        self._requests.setdefault(labels, Tally(REQUEST_BUCKETS)).observe(seconds)

    def event_sent(self, written_at: float) -> None:
        """An event that was written then, in Unix seconds, goes to a watcher as it comes."""
        self._lag.observe(max(0.0, self._clock() - written_at))

    def report(self) -> ApiReport | None:
        """What the Director is to be told now: the report that it may not have, or what came since; None for
        nothing."""
        if self._unheard is None:
            requests = {labels: tally.counted() for labels, tally in self._requests.items()}
            lag = self._lag.counted()
            if requests or any(lag.counts):
                self._reports += 1
                self._unheard = ApiReport(self._sender, self._reports, requests, lag)
                self._requests, self._lag = {}, Tally(LAG_BUCKETS)
        return self._unheard

    def heard(self) -> None:
        """The Director has the last report."""
        self._unheard = None


class Stopwatch:
    """Measures the time from each request until its answer begins; how long that then takes is the client's affair."""

    def __init__(self, app: ASGIApp, *, latencies: Latencies) -> None:
        self._app = app
        self._latencies = latencies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, begun = time.monotonic(), False

        def note(status: int) -> None:
            nonlocal begun
            begun = True
            route = getattr(scope.get("route"), "path", OTHER)
            seconds = time.monotonic() - started
            self._latencies.request(route=route, method=scope["method"], status=status, seconds=seconds)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                note(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception:
            if not begun:
                note(500)
            raise


async def report_forever(latencies: Latencies, live: Live, *, every_s: float) -> None:
    """Tell the Director repeatedly; while there is none, keep what was measured."""
    told = True
    while True:
        await asyncio.sleep(every_s)
        report = latencies.report()
        if report is None:
            continue
        try:
            await anyio.to_thread.run_sync(live.hear_api, report, abandon_on_cancel=True)
        except LongtakeError as error:
            if told:  # once, not with every report
                log.warning("the Director does not hear how the Api does: %s", error, extra={"action": "report"})
            told = False
        except Exception:
            log.exception("the Director could not be told how the Api does", extra={"action": "report"})
        else:
            told = True
            latencies.heard()
