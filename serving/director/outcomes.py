"""What becomes of a Director's jobs: they start, complete, fail, stop at their budget, or are another's.

Whatever ends a job first writes down what it cost and how far it came. Nothing here gives out work; which action is
allowed when is in jobs/lifecycle.py.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from cluster.contract.backoff import Backoff
from serving import settings
from serving.director.held_jobs import HeldJobs
from serving.director.patient_store import PatientStore
from serving.director.ports import DecoderPort
from serving.director.progress_writer import ProgressWriter
from serving.director.reporting.counters import Counters
from serving.director.runs import JobRun, Stage, TakeRun
from serving.director.take_hosts import TakeHosts
from serving.director.tasks import Tasks
from serving.errors import (
    ArtifactMissing,
    ArtifactsUnavailable,
    HostLost,
    NotHeld,
    OutOfSpace,
    StaleToken,
    StoreUnavailable,
)
from serving.jobs.lifecycle import Action, Lifecycle
from serving.store.records import Job, JobStatus

log = logging.getLogger(__name__)

T = TypeVar("T")

NoRoomOrStore = (ArtifactsUnavailable, OutOfSpace)
"""What no job is to blame for: it is waited out, however long it takes."""

MAX_DECODE_TRIES = 5
"""Times in a row that an encoder or decoder may fail before the job does."""

DECODE_BACKOFF = Backoff(first_s=1.0, cap_s=16.0)
"""Before an encoder or decoder is asked again."""

HOST_BACKOFF = Backoff(first_s=0.5, cap_s=10.0)
"""Before a take that its host lost is opened again."""

MAX_HOST_FAILURES = 12
"""Times that a take may be lost by its hosts before its job fails."""


class Outcomes:
    """Ends a Director's hold of jobs. `doubt_leases` is called if another Director seems to hold them; `clock` gives
    Unix seconds."""

    def __init__(
        self,
        held: HeldJobs,
        hosts: TakeHosts,
        decoder: DecoderPort,
        lifecycle: Lifecycle,
        progress: ProgressWriter,
        store: PatientStore,
        tasks: Tasks,
        counters: Counters,
        doubt_leases: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._held = held
        self._hosts = hosts
        self._decoder = decoder
        self._lifecycle = lifecycle
        self._progress = progress
        self._store = store
        self._tasks = tasks
        self._counters = counters
        self._doubt_leases = doubt_leases
        self._clock = clock

    def spawn(self, work: Coroutine[Any, Any, None], run: JobRun) -> None:
        """Do it beside the loop. What goes wrong that nobody expected fails the job, not the farm."""
        self._tasks.spawn(work, failed=partial(self._fail_unexpectedly, run))

    # ------------------------------------------------------------------------------------------------ jobs

    async def start(self, run: JobRun) -> None:
        """Its first call was given out."""
        if run.job.status == JobStatus.QUEUED:
            await self._act(run.job, "start", reason="its first call was given out")

    async def complete(self, run: JobRun, film: dict[str, Any]) -> None:
        """Its film is there."""
        await self._write_down()
        await self._act(run.job, "complete", reason="its film is there", film=film)
        await self.drop(run.id, save=False)

    async def refuse(self, job: Job, code: str, message: str) -> None:
        """A job that was claimed cannot even begin."""
        await self._act(job, "fail", reason=message, error={"code": code, "message": message})

    async def fail(self, run: JobRun, error: dict[str, Any]) -> None:
        """It cannot go on. `error` has code and message."""
        if run.id in self._held.runs:
            self._held.stop(run, "it failed")
            await self._write_down()
            await self._act(run.job, "fail", reason=str(error["message"]), error=error)
            await self.drop(run.id, save=True)

    async def _fail_unexpectedly(self, run: JobRun, error: Exception) -> None:
        if isinstance(error, StoreUnavailable):
            self._store.failed(error)
            return
        log.error("an internal error", exc_info=error, extra={"action": "internal_error", "job": run.id})
        message = f"internal error: {type(error).__name__}: {error}"
        await self.fail(run, {"code": "internal_error", "message": message})

    def check_budget(self, run: JobRun) -> None:
        """Warn its owner, or pause it, by what it has cost."""
        budget = run.job.budget_usd
        if budget is None or run.id not in self._held.runs:
            return
        if run.spent_usd >= budget and not self._held.is_stopped(run) and not all(take.done for take in run.takes):
            self._held.stop(run, "its budget is spent")
            self.spawn(self._pause(run, budget), run)
        elif run.spent_usd >= settings.BUDGET_WARNING * budget and not run.warned:
            run.warned = True
            words = f"{run.spent_usd:.4f} of {budget:.4f} US dollars are spent"
            self.spawn(self._store.note(run, "budget_warning", words, {"spent_usd": run.spent_usd}), run)

    async def _pause(self, run: JobRun, budget: float) -> None:
        await self._write_down()
        reason = f"its budget of {budget:.4f} US dollars is spent; resume it with a larger one"
        data = {"budget_usd": budget, "spent_usd": run.spent_usd}
        await self._act(run.job, "pause", reason=reason, data=data)
        await self.drop(run.id, save=True)

    async def drop(self, job_id: str, *, save: bool) -> None:
        """Hold a job no more: its takes leave their hosts, with a checkpoint if they are to go on elsewhere."""
        run = self._held.remove(job_id)
        if run is None:
            return
        for take in run.takes:
            await self._hosts.close(take, save=save and take.held)
            if take.decoded.latents and not take.decoded.complete:
                self.spawn(self._forget(take), run)
        await self._progress.charge_late(run)

    async def charge_late(self, run: JobRun) -> None:
        """A call of a job that was dropped meanwhile has ended: its seconds are spent, whoever holds the job now."""
        await self._progress.charge_late(run)

    async def write_progress(self) -> None:
        """Write down how far every job is, and drop those that are another's. Raises StoreUnavailable."""
        for job_id in await self._progress.write():
            await self.drop(job_id, save=False)

    async def _write_down(self) -> None:
        """Before a job ends: what it cost and how far it came is in the store, however long that takes."""
        await self._store.patiently(self.write_progress)

    async def _act(self, job: Job, action: Action, *, reason: str, **what: Any) -> None:
        """Change a job's status as its leaseholder, however long the store takes to answer."""

        def apply() -> None:
            now = self._clock()
            self._lifecycle.apply(job.id, action, reason=reason, now=now, token=job.lease_token, **what)
            about = {"action": f"{action}_job", "job": job.id, "pool": job.pool}
            if action == "fail":
                log.error("the job fails: %s", reason, extra=about)
            else:
                log.info("%s: %s", action, reason, extra=about)

        await self._store.write(apply)

    async def _forget(self, take: TakeRun) -> None:
        try:
            await self._decoder.forget(take.content_key)
        except Exception as error:  # it forgets by itself, later
            words = "the decoder was not told to forget take %s: %s"
            log.info(words, take.plan.key, error, extra={"action": "forget", **take.id.ids})

    # ------------------------------------------------------------------------------------------------ what fails

    def take_lost(self, run: JobRun, take: TakeRun, error: Exception) -> None:
        """Its host failed: open it again, from its newest checkpoint, after a wait that grows."""
        if isinstance(error, HostLost | NotHeld) and take.host is not None:
            self._counters.host_lost(take.host)
        if isinstance(error, ArtifactsUnavailable):
            self._counters.store_failed(error)
        if not take.held and take.stage is not Stage.OPENING:
            take.host = None
            return
        about = {"host": take.host, **take.id.ids}
        log.warning("take %s was lost by its host: %s", take.plan.key, error, extra={"action": "take_lost", **about})
        if isinstance(error, StaleToken):  # a newer Director has it
            self._doubt_leases()
        take.losses += 1
        take.begin_again()
        take.not_before = self._clock() + HOST_BACKOFF.wait_s(take.losses)
        self._held.lost(take)
        if take.losses > MAX_HOST_FAILURES and not isinstance(error, NoRoomOrStore):
            message = f"take {take.plan.key} could not be held: {error}"
            self.spawn(self.fail(run, {"code": "host_failed", "message": message}), run)

    async def trying(self, run: JobRun, work: Callable[[], Awaitable[T]]) -> T | None:
        """Work of an encoder or decoder, tried again with growing waits; then its job fails and None is returned.
        Raises ArtifactMissing at once."""
        failures = 0
        while self._held.holds(run):
            try:
                return await work()
            except ArtifactMissing:
                raise
            except Exception as error:
                words = "encoding or assembling failed, %d times by now: %s"
                log.warning(words, failures + 1, error, extra={"action": "finishing_failed", "job": run.id})
                if isinstance(error, ArtifactsUnavailable):
                    self._counters.store_failed(error)
                if failures + 1 < MAX_DECODE_TRIES or not isinstance(error, NoRoomOrStore):
                    failures += 1
                if failures == MAX_DECODE_TRIES:
                    await self.fail(run, {"code": "finishing_failed", "message": str(error)[-1000:]})
                    return None
            await asyncio.sleep(DECODE_BACKOFF.wait_s(failures))
        return None
