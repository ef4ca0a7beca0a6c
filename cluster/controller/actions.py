"""How the controller acts: one request at a time, only while it leads, and with every failure translated and counted.

An action may be the last thing that this process does, so each must be safe to repeat. A server that did not answer is
left alone for the rest of the round.
"""

import logging
from collections.abc import Callable
from typing import Literal

from cluster.controller.metrics import ControllerMetrics
from cluster.errors import FarmRefused, FarmUnavailable
from cluster.kube.client import Json
from cluster.kube.errors import Conflict, KubeError, NotFound, Unavailable
from cluster.kube.events import EventRecorder, EventType

Server = Literal["farm", "kubernetes"]

Outcome = Literal["done", "gone", "conflict", "refused", "unavailable", "skipped"]
"""gone: the object was deleted meanwhile. conflict: it was changed meanwhile. skipped: the server is not answering."""

log = logging.getLogger(__name__)


class NotLeader(Exception):
    """We do not lead any more: another controller does what is left."""


class Actions:
    """The actions of one round."""

    def __init__(
        self,
        *,
        events: EventRecorder,
        metrics: ControllerMetrics,
        may_act: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self.failed = False
        """Whether something should be tried again soon."""
        self.retry_after_s = 0.0
        """Seconds that a server asked to be left alone."""
        self._events, self._metrics, self._may_act, self._clock = events, metrics, may_act, clock
        self._away: set[Server] = set()

    def run(self, server: Server, action: str, request: Callable[[], object]) -> Outcome:
        """Send one request and return how it went. Raises NotLeader, with nothing sent, if we may not."""
        self._check()
        if server in self._away:
            return "skipped"
        outcome: Outcome = "done"
        try:
            request()
        except NotFound:
            outcome = "gone"
        except Conflict:
            outcome, self.failed = "conflict", True
        except (FarmRefused, FarmUnavailable, KubeError) as error:
            outcome = self.record_failure(server, action, error)
        self._metrics.actions.labels(action, outcome).inc()
        return outcome

    def record_failure(self, server: Server, action: str, error: Exception) -> Outcome:
        """Log a failed request, and leave a server that did not answer alone."""
        self.failed = True
        outcome: Outcome = "refused"
        if isinstance(error, FarmUnavailable | Unavailable):
            outcome = "unavailable"
            self._away.add(server)
            self.retry_after_s = max(self.retry_after_s, error.retry_after_s or 0.0)
        log.warning("%s: %s", action, error, extra={"action": action, "outcome": outcome})
        return outcome

    def emit(self, about: Json, *, reason: str, message: str, kind: EventType = "Normal") -> None:
        """An event about an object. Raises NotLeader."""
        self._check()
        if "kubernetes" not in self._away:
            self._events.record(about, reason=reason, message=message, now=self._clock(), kind=kind)

    def _check(self) -> None:
        if not self._may_act():
            raise NotLeader
