"""Writes to a store that may be away: some may be left out then, the others wait for it as long as it takes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from cluster.contract.backoff import Backoff
from serving.director.reporting.counters import Counters
from serving.director.runs import JobRun
from serving.errors import Fenced, NotFound, StoreUnavailable, WrongState
from serving.store.jobs import JobStore

log = logging.getLogger(__name__)

T = TypeVar("T")


class PatientStore:
    """The store as one Director writes to it. `retry_s`: seconds between two tries while it is away; `clock` gives
    Unix seconds."""

    def __init__(self, jobs: JobStore, counters: Counters, *, retry_s: float, clock: Callable[[], float]) -> None:
        self._jobs = jobs
        self._counters = counters
        self._backoff = Backoff.steady(retry_s)
        self._clock = clock
        self._closing = False

    def close(self) -> None:
        """The Director stops: nothing waits for the store any more."""
        self._closing = True

    async def try_write(self, write: Callable[[], Any]) -> None:
        """Write what may be left out if the store does not answer."""
        try:
            await asyncio.to_thread(write)
        except StoreUnavailable as error:
            self.failed(error)
        except (Fenced, NotFound):
            pass  # the job is another's, or gone: the next sync finds that out

    async def write(self, write: Callable[[], Any]) -> None:
        """Write what must not be lost. What is refused since the job is another's by now, or gone, is left to them."""
        try:
            await self.patiently(lambda: asyncio.to_thread(write))
        except (Fenced, NotFound, WrongState) as error:
            log.info("left to others: %s", error, extra={"action": "left_to_others"})

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Work that needs the store, tried again until the store answers; None if the Director stops before."""
        for wait_s in self._backoff.waits():
            try:
                return await work()
            except StoreUnavailable as error:
                self.failed(error)
                if self._closing:
                    break
                await asyncio.sleep(wait_s)
        return None

    async def note(self, run: JobRun, kind: str, reason: str, data: dict[str, Any]) -> None:
        """An event of a job, for those who watch it."""
        token = run.job.lease_token
        await self.try_write(
            lambda: self._jobs.note(run.id, token=token, kind=kind, reason=reason, now=self._clock(), data=data)
        )

    def failed(self, error: Exception) -> None:
        """The store did not answer: counted and logged."""
        self._counters.store_failed(error)
        log.warning("%s", error, extra={"action": "store"})
