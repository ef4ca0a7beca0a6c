"""Writes down how far jobs are and what they cost."""

import asyncio
from collections.abc import Callable

from serving.director.held_jobs import HeldJobs
from serving.director.patient_store import PatientStore
from serving.director.reporting.counters import Counters
from serving.director.runs import JobRun
from serving.scheduler.explain import explain
from serving.scheduler.state import FarmState
from serving.store.jobs import JobStore
from serving.store.ledger import Ledger


class ProgressWriter:
    """Writes for one Director. `clock` gives Unix seconds."""

    def __init__(
        self,
        held: HeldJobs,
        state: FarmState,
        jobs: JobStore,
        ledger: Ledger,
        store: PatientStore,
        counters: Counters,
        clock: Callable[[], float],
    ) -> None:
        self._held = held
        self._state = state
        self._jobs = jobs
        self._ledger = ledger
        self._store = store
        self._counters = counters
        self._clock = clock

    async def write(self) -> list[str]:
        """Write what has changed of every job; returns those that are another's by now, of which nothing was written.
        Raises StoreUnavailable."""
        now, updates = self._clock(), []
        for run in self._held.runs.values():
            explained = explain(self._state, run.id, now)
            if explained is not None:
                run.eta_at, run.at_risk = explained.finishes_at, explained.at_risk
            progress, costs = run.progress(), run.close_ledger(now)
            if costs or progress.takes:
                updates.append((run, progress, costs))
        if not updates:
            return []
        written = [progress for _, progress, _ in updates]
        entries = [entry for _, _, costs in updates for entry in costs]
        lost = await asyncio.to_thread(self._jobs.save_progress, written, entries, now=now)
        for run, progress, costs in updates:
            if run.id not in lost:  # what the others cost is charged when they are dropped
                run.progress_written(progress)
                self._counters.written(run, progress)
                self._counters.charged(run.ledger_written(costs))
        return list(lost)

    async def charge_late(self, run: JobRun) -> None:
        """Write down the calls of a job that was dropped meanwhile: their seconds are spent, whoever holds it now."""
        entries = run.close_ledger(self._clock())
        if entries:
            await self._store.write(lambda: self._ledger.add(entries))
            self._counters.charged(run.ledger_written(entries))
