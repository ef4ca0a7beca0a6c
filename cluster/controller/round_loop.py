"""Runs the controller's rounds: soon after a change, after a while in any case, later after failures.

When the next round begins is decided by a pure function; the loop waits on events, so it is woken and stopped at once.
"""

import logging
import threading
import time
from collections.abc import Callable
from random import Random

from cluster.contract.backoff import Backoff
from cluster.controller.actions import NotLeader
from cluster.controller.metrics import ControllerMetrics
from cluster.controller.rounds import RoundEnd

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 1.0
"""Seconds that the wait after a first failure lasts at most."""

STAND_BY_S = 1.0
"""Polling interval, in seconds, of whether we lead by now; it sends no request."""


def pause_after(end: RoundEnd, *, failures: int, settle_s: float, max_backoff_s: float, random: Random) -> float:
    """Seconds before the next round may begin. After `failures` in a row, this one counted, an exponential backoff with
    full jitter, and never less than a server asked for."""
    if not end.failed:
        return settle_s
    backoff = Backoff(min(FIRST_BACKOFF_S, max_backoff_s), max_backoff_s)
    return max(settle_s, end.retry_after_s, random.uniform(0.0, backoff.wait_s(failures)))


class RoundLoop:
    """Runs rounds in one thread for as long as we lead, until it is stopped."""

    def __init__(
        self,
        run_round: Callable[[], RoundEnd],
        *,
        leads: Callable[[], bool],
        metrics: ControllerMetrics,
        settle_s: float,
        resync_s: float,
        max_backoff_s: float,
        random: Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_round, self._leads, self._metrics = run_round, leads, metrics
        self._settle_s, self._resync_s, self._max_backoff_s = settle_s, resync_s, max_backoff_s
        self._random, self._clock = random, clock
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._beat = clock()

    def wake(self) -> None:
        """Something has changed: run a round soon. From any thread."""
        self._woken.set()

    def stop(self) -> None:
        """End after the request in progress. From any thread."""
        self._stopped.set()
        self._woken.set()

    @property
    def stopped(self) -> bool:
        """Whether it was stopped."""
        return self._stopped.is_set()

    def silent_s(self) -> float:
        """Seconds since the loop last began a turn; much more than a resync means that it is stuck."""
        return self._clock() - self._beat

    def run(self) -> None:
        """Run rounds until stopped."""
        failures = 0
        while not self._stopped.is_set():
            self._beat = self._clock()
            self._woken.clear()
            if not self._leads():
                self._metrics.stand_by()
                self._woken.wait(STAND_BY_S)
                continue
            self._metrics.leads.set(1)
            end = self._round()
            failures = failures + 1 if end.failed else 0
            self._stopped.wait(
                pause_after(
                    end,
                    failures=failures,
                    settle_s=self._settle_s,
                    max_backoff_s=self._max_backoff_s,
                    random=self._random,
                )
            )
            if not end.failed:
                self._woken.wait(max(0.0, self._resync_s - self._settle_s))

    def _round(self) -> RoundEnd:
        try:
            with self._metrics.round_seconds.time():
                return self._run_round()
        except NotLeader:
            return RoundEnd(failed=False, retry_after_s=0.0)
        except Exception:  # our bug: the next round may go well, and drains must go on
            log.exception("a round failed", extra={"action": "round_bug"})
            self._metrics.rounds.labels("bug").inc()
            return RoundEnd(failed=True, retry_after_s=0.0)
