"""What tests make the fake API server do wrong, and a record of what it was asked."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.cluster.api_server.refusals import Refusal

FaultKind = Literal["refuse", "hang", "delay", "lose_request", "lose_answer", "end_watch"]

MOST_S = 120.0
"""Seconds that anything hangs at most."""


@dataclass
class Fault:
    """Befalls the next `times` requests whose "METHOD /path?query" the pattern finds."""

    kind: FaultKind
    pattern: str
    times: int
    code: int = 500
    retry_after_s: int | None = None
    delay_s: float = 0.0


@dataclass(frozen=True)
class Asked:
    """One request that the server got."""

    method: str
    path: str
    query: dict[str, str]
    code: int
    """Status of the answer, also if it was lost; 0 if the request was not carried out."""

    @property
    def line(self) -> str:
        return request_line(self.method, self.path, self.query)


def request_line(method: str, path: str, query: dict[str, str]) -> str:
    return f"{method} {path}" + ("?" + "&".join(f"{key}={value}" for key, value in query.items()) if query else "")


@dataclass
class Faults:
    """Faults that wait for their request. Thread-safe."""

    _waiting: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _cleared: threading.Event = field(default_factory=threading.Event)

    def add(self, fault: Fault) -> None:
        re.compile(fault.pattern)
        with self._lock:
            self._cleared.clear()
            self._waiting.append(fault)

    def clear(self) -> None:
        """No faults any more; whatever hangs goes on."""
        with self._lock:
            self._waiting.clear()
            self._cleared.set()

    @property
    def left(self) -> int:
        """Requests that faults still wait for."""
        with self._lock:
            return sum(fault.times for fault in self._waiting)

    def take(self, line: str) -> Fault | None:
        """The fault that this request meets."""
        with self._lock:
            for fault in self._waiting:
                if re.search(fault.pattern, line):
                    fault.times -= 1
                    if fault.times <= 0:
                        self._waiting.remove(fault)
                    return fault
        return None

    def before(self, fault: Fault, stopping: Callable[[], bool]) -> None:
        """What happens before the request is carried out. Raises a Refusal, or ConnectionError to say nothing."""
        if fault.kind == "refuse":
            reason = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}
            word = reason.get(
                fault.code, {403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired"}.get(fault.code, "")
            )
            raise Refusal(fault.code, word, "a fault of the test", retry_after_s=fault.retry_after_s)
        if fault.kind == "lose_request":
            raise ConnectionError("a fault of the test")
        if fault.kind in ("hang", "delay"):
            end = time.monotonic() + (fault.delay_s if fault.kind == "delay" else MOST_S)
            while (left_s := end - time.monotonic()) > 0 and not stopping():
                if self._cleared.wait(min(left_s, 0.05)):
                    break
            if fault.kind == "hang":
                raise ConnectionError("a fault of the test")
