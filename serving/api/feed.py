"""What watchers of jobs are told: one poller of the store per process, however many watch.

A job that is watched has a Channel: its newest state, and its latest events in order. The poller asks the store once
per tick which of them changed; watchers wait for their channel and read on from where they are. One that has fallen
behind the channel's memory reads the rest from the store, so nobody loses an event and nothing grows with slow
readers.
"""

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import anyio.to_thread

from serving.api.caller import Caller
from serving.api.errors import RETRY_FAULT_S, ApiError
from serving.errors import Fault
from serving.settings import MAX_PAGE
from serving.store.jobs import JobStore
from serving.store.records import Event, Job, Take

log = logging.getLogger(__name__)

MAX_STREAMS = 150
"""Event streams that one Api process serves at once; each takes one of its ongoing requests."""

ADMIN_STREAMS = 10
"""Of these, that administrators alone may have."""

MAX_TENANT_STREAMS = 50
"""Event streams that one tenant may hold at one Api process; fewer, as fewer are free: see Feed.seat."""

MAX_CHANNEL_EVENTS = 256
"""Events of one job kept in memory for those who watch it; who is further behind is served from the store."""


@dataclass
class Channel:
    """A job that is watched. Belongs to the event loop of the feed."""

    job: Job
    takes: Sequence[Take]
    last_id: int
    """The newest event that it has seen."""
    first_id: int
    """It remembers every event after this one."""
    events: deque[Event] = field(default_factory=deque)
    watchers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def after(self, event_id: int) -> list[Event] | None:
        """The events after one; None if they are forgotten."""
        if event_id < self.first_id:
            return None
        return [event for event in self.events if event.id > event_id]

    def update(self, job: Job, takes: Sequence[Take], events: Sequence[Event]) -> None:
        """Take in what the store says now, and wake those who wait."""
        self.job, self.takes = job, takes
        for event in events:
            self.events.append(event)
            self.last_id = event.id
        while len(self.events) > MAX_CHANNEL_EVENTS:
            self.first_id = self.events.popleft().id
        self.changed.set()
        self.changed = asyncio.Event()


class Feed:
    """The channels of one process, and the task that keeps them up to date while anybody watches."""

    def __init__(
        self, jobs: JobStore, *, poll_s: float, event_sent: Callable[[float], None] = lambda written_at: None
    ) -> None:
        """`event_sent` is told when each event was written that a watcher is sent as it comes."""
        self._jobs = jobs
        self.event_sent = event_sent
        self._poll_s = poll_s
        self._channels: dict[str, Channel] = {}
        self._poller: asyncio.Task[None] | None = None
        self._by_tenant: Counter[str] = Counter()
        self.polls = 0
        """Times that the store was asked, for tests."""

    @property
    def watchers(self) -> int:
        """Streams that are open."""
        return self._by_tenant.total()

    @contextlib.contextmanager
    def seat(self, caller: Caller) -> Iterator[None]:
        """Count a stream for as long as the block lasts. Raises ApiError if no further one may be opened.

        A tenant may have no more than are still free, so some are left for others however many it asks for.
        """
        own, free = self._by_tenant[caller.tenant], MAX_STREAMS - self.watchers
        most = free if caller.is_admin else free - ADMIN_STREAMS - own
        if most <= 0 or own >= MAX_TENANT_STREAMS:
            headers = {"Retry-After": str(RETRY_FAULT_S)}
            raise ApiError(429, "too many streams are open", code="too_many_streams", headers=headers)
        self._by_tenant[caller.tenant] += 1
        try:
            yield
        finally:
            self._by_tenant[caller.tenant] -= 1

    @contextlib.asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Channel | None]:
        """The channel of a job for as long as the block lasts; None if there is no such job."""
        channel = None
        try:
            channel = await self._open(job_id)
            if channel is not None:
                channel.watchers += 1
                self._start()
            yield channel
        finally:
            if channel is not None:
                channel.watchers -= 1
                if channel.watchers == 0 and self._channels.get(job_id) is channel:
                    del self._channels[job_id]

    async def read_after(self, event_id: int, job_id: str) -> Sequence[Event]:
        """A page of a job's events from the store."""
        return await anyio.to_thread.run_sync(lambda: self._jobs.events_after(event_id, job_id=job_id, limit=MAX_PAGE))

    async def close(self) -> None:
        """End the poller."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller

    async def _open(self, job_id: str) -> Channel | None:
        while (channel := self._channels.get(job_id)) is None:
            opened = await anyio.to_thread.run_sync(self._read_channel, job_id)
            if opened is None:
                return None
            self._channels.setdefault(job_id, opened)
        return channel

    def _read_channel(self, job_id: str) -> Channel | None:
        """Events first, then the job: what changes in between is told twice rather than never."""
        last_id = self._last_event_id(job_id)
        job = self._jobs.get(job_id)
        if job is None:
            return None
        return Channel(job, self._jobs.takes(job_id), last_id=last_id, first_id=last_id)

    def _last_event_id(self, job_id: str) -> int:
        """Of this job: ids of others may become visible out of order."""
        events = self._read_all(0, job_id)
        return events[-1].id if events else 0

    def _read_all(self, event_id: int, job_id: str) -> list[Event]:
        """Every event of a job after one: a few for each take at most."""
        events: list[Event] = []
        while page := self._jobs.events_after(events[-1].id if events else event_id, job_id=job_id, limit=MAX_PAGE):
            events += page
        return events

    def _start(self) -> None:
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        while self._channels:
            await asyncio.sleep(self._poll_s)
            watched = {job_id: (channel.job.revision, channel.last_id) for job_id, channel in self._channels.items()}
            try:
                news = await anyio.to_thread.run_sync(self._read_news, watched)
            except Fault as error:
                log.warning("events wait for the store: %s", error, extra={"action": "poll"})
                continue
            except Exception:
                log.exception("events could not be read", extra={"action": "poll"})
                continue
            for job, takes, events in news:
                if job.id in self._channels:
                    self._channels[job.id].update(job, takes, events)

    def _read_news(self, watched: dict[str, tuple[int, int]]) -> list[tuple[Job, list[Take], list[Event]]]:
        """The watched jobs that changed, each with its new events."""
        self.polls += 1
        changed = self._jobs.changed_since({job_id: revision for job_id, (revision, _) in watched.items()})
        takes = self._jobs.takes_of([job.id for job in changed])
        return [(job, takes.get(job.id, []), self._read_all(watched[job.id][1], job.id)) for job in changed]
