"""How a Director's hold of a job goes on record and ends: progress and costs, completion, failure, budget, trouble.

Whatever ends a job writes down first what it cost and how far it came. Nothing here gives out work; status itself
changes in lifecycle.py.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from serving import settings
from serving.director.context import Desk, NoRoomOrStore
from serving.director.gauges import Publishing
from serving.director.runs import JobRun, Stage, TakeRun
from serving.errors import (
    ArtifactMissing,
    ArtifactsUnavailable,
    HostLost,
    LongtakeError,
    NotHeld,
    StaleToken,
    StoreUnavailable,
)
from serving.jobs.lifecycle import Action
from serving.scheduler.explain import explain
from serving.store.records import Job

log = logging.getLogger(__name__)

HOST_RETRY_S = 0.25
"""Seconds before a take that its host lost is opened again; doubled with every loss."""

MAX_HOST_FAILURES = 12
"""Times that a take may be lost by its hosts before its job fails."""


class Endings:
    """Keeps the record of a Director's jobs, and ends its hold of them."""

    def __init__(self, desk: Desk, publishing: Publishing) -> None:
        self._desk = desk
        self._publishing = publishing
        desk.fail_run = self.fail_run

    async def write_down(self, now: float) -> None:
        updates = []
        for run in self._desk.runs.values():
            said = explain(self._desk.state, run.id, now)
            if said is not None:
                run.eta_at, run.at_risk = said.finishes_at, said.at_risk
            progress = run.progress()
            costs = run.close_ledger(now)
            if costs or progress.takes:
                updates.append((run, progress, costs))
        if updates:
            written = [progress for _, progress, _ in updates]
            entries = [entry for _, _, costs in updates for entry in costs]
            lost = await asyncio.to_thread(self._desk.jobs.save_progress, written, entries, now=now)
            for run, progress, costs in updates:
                if run.id not in lost:  # of those nothing was written; what they cost is charged as they are dropped
                    run.progress_written(progress)
                    self._desk.counting.written(run, progress)
                    self._desk.counting.charged(run.ledger_written(costs))
            for job_id in lost:
                await self.drop(job_id, save=False)
        await self._publishing.publish(now)

    async def write_all_down(self) -> None:
        """Before a job ends: what it cost and how far it came is in the store, however long that takes to answer."""
        while not self._desk.stopping:
            try:
                await self.write_down(self._desk.clock())
                return
            except StoreUnavailable as error:
                self._desk.note_store_error(error)
                await asyncio.sleep(self._desk.config.poll_s)

    async def charge_late(self, run: JobRun) -> None:
        """Write down the calls of a job that was let go meanwhile: their seconds are spent, whoever holds it now."""
        entries = run.close_ledger(self._desk.clock())
        if entries:
            await self._desk.retrying_store(lambda: self._desk.ledger.add(entries))
            self._desk.counting.charged(run.ledger_written(entries))

    async def start(self, run: JobRun) -> None:
        if run.job.status == "queued":
            await self._act(run.job, "start", reason="its first call was given out")

    async def _act(self, job: Job, action: Action, *, reason: str, **what: Any) -> None:
        """Change a job's status as its leaseholder, however long the store takes to answer."""

        def apply() -> None:
            now = self._desk.clock()
            self._desk.lifecycle.apply(job.id, action, reason=reason, now=now, token=job.lease_token, **what)
            about = {"action": f"{action}_job", "job": job.id, "pool": job.pool}
            if action == "fail":
                log.error("the job fails: %s", reason, extra=about)
            else:
                log.info("%s: %s", action, reason, extra=about)

        await self._desk.retrying_store(apply)

    async def end(self, run: JobRun, action: Action, *, reason: str, **what: Any) -> None:
        """Take an action that ends our hold of a job, and forget it."""
        await self._act(run.job, action, reason=reason, **what)
        await self.drop(run.id, save=action != "complete")

    async def fail(self, job: Job, code: str, message: str) -> None:
        await self._act(job, "fail", reason=message, error={"code": code, "message": message})

    async def fail_run(self, run: JobRun, error: dict[str, Any]) -> None:
        if run.id in self._desk.runs:
            self._desk.state.hold_job(run.id, "it failed")
            await self.write_all_down()
            await self.end(run, "fail", reason=str(error["message"]), error=error)

    def check_budget(self, run: JobRun) -> None:
        budget = run.job.budget_usd
        if budget is None or run.id not in self._desk.runs:
            return
        if run.spent_usd >= budget and not self._desk.is_held(run) and not all(take.done for take in run.takes):
            self._desk.state.hold_job(run.id, "its budget is spent")
            self._desk.spawn(self._stop_at_budget(run, budget), run)
        elif run.spent_usd >= settings.BUDGET_WARNING * budget and not run.warned:
            run.warned = True
            words = f"{run.spent_usd:.4f} of {budget:.4f} US dollars are spent"
            self._desk.spawn(self._desk.note(run, "budget_warning", words, {"spent_usd": run.spent_usd}), run)

    async def _stop_at_budget(self, run: JobRun, budget: float) -> None:
        await self.write_all_down()
        reason = f"its budget of {budget:.4f} US dollars is spent; resume it with a larger one"
        await self.end(run, "pause", reason=reason, data={"budget_usd": budget, "spent_usd": run.spent_usd})

    def host_failed(self, run: JobRun, take: TakeRun, error: Exception) -> None:
        """Open the take again, from its newest checkpoint, after a wait that grows."""
        if isinstance(error, HostLost | NotHeld) and take.host is not None:
            self._desk.counting.host_lost(take.host)
        if isinstance(error, ArtifactsUnavailable):
            self._desk.counting.store_failed(error)
        if take.stage not in (Stage.OPENING, Stage.RENDERING):
            take.host = None
            return
        about = {"host": take.host, **take.id.ids}
        log.warning("take %s was lost by its host: %s", take.plan.key, error, extra={"action": "take_lost", **about})
        if isinstance(error, StaleToken):  # a newer Director has it: see at once whether all are to be given back
            self._desk.renewed_at = 0.0
            self._desk.poke()
        take.failures += 1
        take.begin_again()
        take.not_before = self._desk.clock() + min(10.0, HOST_RETRY_S * 2 ** min(take.failures, 6))
        self._desk.by_content.pop(take.content_key, None)
        self._desk.state.forget_take(take.id.job_id, take.id.take_key)
        if take.failures > MAX_HOST_FAILURES and not isinstance(error, NoRoomOrStore):
            message = f"take {take.plan.key} could not be held: {error}"
            self._desk.spawn(self.fail_run(run, {"code": "host_failed", "message": message}), run)

    async def drop(self, job_id: str, *, save: bool) -> None:
        run = self._desk.runs.pop(job_id, None)
        if run is not None:
            await self._let_go(run, save=save)

    async def _let_go(self, run: JobRun, *, save: bool) -> None:
        self._desk.state.drop_job(run.id)
        for take in run.takes:
            if self._desk.by_content.get(take.content_key) is take:
                del self._desk.by_content[take.content_key]
            await self.close(take, save=save and take.stage is Stage.RENDERING)
            if take.decoded_latents and not take.decode_complete:
                self._desk.spawn(self._forget(take), run)
        await self.charge_late(run)

    async def _forget(self, take: TakeRun) -> None:
        try:
            await self._desk.decoder.forget(take.content_key)
        except Exception as error:  # it forgets by itself, later
            words = "the decoder was not told to forget take %s: %s"
            log.info(words, take.plan.key, error, extra={"action": "forget", **take.id.ids})

    async def close(self, take: TakeRun, *, save: bool) -> None:
        host, take.host = take.host, None
        if host is None:
            return
        try:
            await self._desk.hosts[host].close_take(take.id, self._desk.generation, save=save)
        except LongtakeError as error:
            about = {"host": host, **take.id.ids}
            log.info("take %s was not closed: %s", take.plan.key, error, extra={"action": "close_take", **about})

    async def retrying(self, run: JobRun, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any | None:
        """Work of an encoder or decoder, tried again with growing waits; then its job fails and None is returned.
        Raises ArtifactMissing at once."""
        failures = 0
        while self._desk.runs.get(run.id) is run:
            try:
                return await work()
            except ArtifactMissing:
                raise
            except Exception as error:
                words = "encoding or assembling failed, %d times by now: %s"
                log.warning(words, failures + 1, error, extra={"action": "finishing_failed", "job": run.id})
                if isinstance(error, ArtifactsUnavailable):
                    self._desk.counting.store_failed(error)
                if failures + 1 < settings.MAX_DECODE_TRIES or not isinstance(error, NoRoomOrStore):
                    failures += 1
                if failures == settings.MAX_DECODE_TRIES:
                    await self.fail_run(run, {"code": "finishing_failed", "message": str(error)[-1000:]})
                    return None
            await asyncio.sleep(settings.DECODE_RETRY_S * 2**failures)
        return None
