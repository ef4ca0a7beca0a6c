"""Counts what happens into the farm's metrics, each thing once.

What a Director alone sees is counted as it sees it: calls, gangs, hosts, decoders. What lasts longer than a Director is
counted from what is durable: GPU-seconds, money and takes when they are written down, jobs and films from the store's
events. How far those were read is kept in the store; the Director that moves that mark counts what it
passed. So a Director that dies in between loses a count, and no two count one thing.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from serving.director.runs import JobRun
from serving.errors import ArtifactsUnavailable
from serving.render.farm_messages import Assembled, CallReport, Decoded
from serving.scheduler.cost_model import LEAST_S
from serving.store.jobs import JobStore
from serving.store.records import JobFact, JobProgress, LedgerEntry
from serving.telemetry.histograms import ApiReport
from serving.telemetry.metrics import FAILURES, FarmMetrics

log = logging.getLogger(__name__)

MAX_API_SENDERS = 1000
"""Processes of the Api whose newest report is remembered, so that one that comes twice counts once."""


EVENTS = "counted_events"
"""Name of the mark in the store: the newest event that was counted."""


class Counters:
    """Counts what one Director sees."""

    def __init__(self, metrics: FarmMetrics) -> None:
        self._metrics = metrics
        self._hosts_lost: set[int] = set()
        """Of which no take was opened since."""
        self._heard: OrderedDict[str, int] = OrderedDict()
        """The newest report of each process of the Api."""

    # ------------------------------------------------------------------------------------------------ calls

    def call_ended(self, pool: str, report: CallReport, *, waited: bool) -> None:
        """A call was reported. `waited`: only beside the one that its gang died of."""
        match report.outcome:
            case "done":
                labels = ("done", "")
            case "not_ready":
                labels = ("moot", "not_ready")
            case failed:
                labels = ("moot", "waited") if waited else ("failed", failed)
        self._metrics.calls.labels(pool, *labels).inc()
        if report.times is not None:
            for stage, seconds in report.times.stages().items():
                self._metrics.call_seconds.labels(pool, stage).observe(seconds)
        done = report.checkpoints
        self._metrics.checkpoints.labels("written").inc(done.written)
        self._metrics.checkpoints.labels("failed").inc(done.failed)
        self._metrics.checkpoint_bytes.inc(done.bytes)
        for take_id, why in done.problems:
            words = "a checkpoint of take %s failed: %s"
            log.warning(words, take_id.take_key, why, extra={"action": "checkpoint_failed", **take_id.ids})

    def call_lost(self, pool: str) -> None:
        """Its host is gone, and nobody will report it."""
        self._metrics.calls.labels(pool, "failed", "host_lost").inc()

    def call_measured(self, pool: str, *, expected_s: float, seconds: float) -> None:
        """A call that was done took `seconds`, and the cost model had expected `expected_s`."""
        self._metrics.cost_error.labels(pool).observe(seconds / max(expected_s, LEAST_S))

    # ------------------------------------------------------------------------------------------------ hosts and stores

    def host_lost(self, host: int) -> None:
        """A timeline host does not know what it held. Every take of it says so; the host counts once."""
        if host not in self._hosts_lost:
            self._hosts_lost.add(host)
            self._metrics.hosts_lost.inc()
            log.warning("timeline host %d was lost", host, extra={"action": "host_lost", "host": host})

    def host_works(self, host: int) -> None:
        """It has opened a take."""
        self._hosts_lost.discard(host)

    def store_failed(self, error: Exception) -> None:
        """The database or the artifacts did not answer."""
        store = "artifacts" if isinstance(error, ArtifactsUnavailable) else "database"
        self._metrics.store_errors.labels(store).inc()

    # ------------------------------------------------------------------------------------------------ finishing

    def decoded(self, pool: str, decoded: Decoded) -> None:
        """A decoder has answered."""
        self._metrics.decode_seconds.labels(pool).observe(decoded.seconds)

    def assembled(self, pool: str, assembled: Assembled) -> None:
        """A film is there."""
        self._metrics.encode_seconds.labels(pool).observe(assembled.encode_s)
        for jump in assembled.seam_jumps:
            self._metrics.seam_jumps.labels(pool).observe(jump)

    # ------------------------------------------------------------------------------------------------ what is durable

    def written(self, run: JobRun, progress: JobProgress) -> None:
        """How far a job is was written down."""
        for record in progress.takes:
            latents, source = run.takes[record.index].count(record)
            self._metrics.latents_finished.labels(run.job.pool).inc(latents)
            if source is not None:
                self._metrics.takes.labels(run.job.pool, source).inc()

    def charged(self, entries: Sequence[LedgerEntry]) -> None:
        """What jobs cost was written down."""
        for entry in entries:
            self._metrics.gpu_seconds.labels(entry.pool, "useful").inc(entry.useful_s)
            self._metrics.gpu_seconds.labels(entry.pool, "wasted").inc(entry.wasted_s)
            self._metrics.spent_usd.labels(entry.pool).inc(entry.usd)

    def happened(self, fact: JobFact) -> None:
        """An event was passed."""
        metrics, pool = self._metrics, fact.pool
        match fact.kind:
            case "submitted":
                metrics.submitted.labels(pool).inc()
            case "start":
                metrics.queue_wait.labels(pool).observe(fact.at - fact.created_at)
            case "complete":
                metrics.finished.labels(pool, "completed", "").inc()
                metrics.end_to_end.labels(pool).observe(fact.at - fact.created_at)
                metrics.films.labels(pool).inc()
                metrics.video_seconds.labels(pool).inc(fact.film_s)
            case "fail":
                metrics.finished.labels(pool, "failed", fact.code if fact.code in FAILURES else "other").inc()
            case "cancel":
                metrics.finished.labels(pool, "cancelled", "").inc()
        if fact.due_at is not None and fact.kind in ("complete", "fail"):
            met = fact.kind == "complete" and fact.at <= fact.due_at
            metrics.due_times.labels(pool, "met" if met else "missed").inc()

    def hear_api(self, report: ApiReport) -> None:
        """A process of the Api has reported. A report that came before, and whose answer was lost, counts once."""
        if self._heard.get(report.sender, 0) >= report.number:
            return
        self._heard[report.sender] = report.number
        self._heard.move_to_end(report.sender)
        while len(self._heard) > MAX_API_SENDERS:
            self._heard.popitem(last=False)
        self._metrics.hear_api(report)


class EventCounters:
    """Counts the store's events. Belongs to one Director."""

    def __init__(self, jobs: JobStore, counters: Counters, *, clock: Callable[[], float]) -> None:
        self._jobs = jobs
        self._counters = counters
        self._clock = clock
        self._generation = 0
        self._mark = 0
        self._page: tuple[int, Sequence[JobFact]] | None = None
        """What was read, until it is known which Director counts it."""

    async def begin(self, generation: int) -> None:
        """Go on where the Director before stopped. The first of a farm counts from the first event; the first of a
        release that counts them, in a farm that has worked before, only what comes. Raises StoreUnavailable."""
        self._generation = generation
        mark = await asyncio.to_thread(self._jobs.mark, EVENTS)
        if mark is None and generation > 1:
            mark = await asyncio.to_thread(self._jobs.last_event_id)
            await asyncio.to_thread(self._advance, 0, mark)
        self._mark = mark or 0

    async def count(self) -> None:
        """Count what has happened since. Raises StoreUnavailable."""
        while True:
            if self._page is None:
                self._page = await asyncio.to_thread(self._jobs.facts_after, self._mark)
            last, facts = self._page
            if last == self._mark:
                self._page = None
                return
            mine = await asyncio.to_thread(self._advance, self._mark, last)
            self._page = None
            if not mine:  # another Director counts
                moved = await asyncio.to_thread(self._jobs.mark, EVENTS)
                self._mark = moved or 0
                return
            self._mark = last
            for fact in facts:
                self._counters.happened(fact)

    def _advance(self, before: int, after: int) -> bool:
        return self._jobs.advance(EVENTS, before=before, after=after, by=self._generation, now=self._clock())
