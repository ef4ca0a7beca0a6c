"""A Director's right to its jobs: the generation that hosts know it by, and the leases that it renews."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from serving.store.jobs import JobStore

log = logging.getLogger(__name__)


class JobLeases:
    """The leases of one Director, which is called `owner` in the store. `clock` gives Unix seconds."""

    def __init__(self, jobs: JobStore, *, owner: str, lease_s: float, clock: Callable[[], float]) -> None:
        self._jobs = jobs
        self._clock = clock
        self.owner = owner
        self.lease_s = lease_s
        self.generation = 0
        self.retired = False
        """A newer Director is there: nothing new is claimed."""
        self._renewed_at = 0.0

    async def begin(self) -> None:
        """Be newer than every Director before. Raises StoreUnavailable."""
        self.generation = await asyncio.to_thread(self._jobs.next_generation, now=self._clock())

    @property
    def may_be_lost(self) -> bool:
        """Whether they were renewed so long ago that another may hold the jobs by now."""
        return self._clock() - self._renewed_at > self.lease_s

    def doubt(self) -> None:
        """A host obeys a newer Director: renew, and look for one, at the next opportunity."""
        self._renewed_at = 0.0

    async def renew(self, tokens: Mapping[str, int]) -> set[str]:
        """Hold on to the jobs of these lease tokens, if it is time to, and look for a newer Director; returns the ids
        of jobs that are lost. Raises StoreUnavailable."""
        now = self._clock()
        if tokens and now - self._renewed_at < self.lease_s / 3:
            return set()
        lost: set[str] = set()
        if tokens:
            lost = tokens.keys() - await asyncio.to_thread(self._jobs.renew, tokens, now=now, lease_s=self.lease_s)
        if not self.retired and await asyncio.to_thread(self._jobs.generation) > self.generation:
            self.retired = True
            log.warning("a newer Director is at work; this one gives its jobs back", extra={"action": "retire"})
        self._renewed_at = now
        return lost
