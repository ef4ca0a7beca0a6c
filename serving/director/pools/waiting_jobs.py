"""The work of jobs that no Director holds yet: a pool without gangs takes up none, and still must know what it needs.

Jobs are planned as they will be when they are taken up, a few at each look; the work of those that are not planned is
taken to be like that of the others, by their calls. Nothing is changed here.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from serving.errors import LongtakeError, StoreUnavailable
from serving.jobs.admission import Admission, open_known_model
from serving.planning.plan import TakePlan
from serving.scheduler.cost_model import TYPICAL_LATENTS, CostModel
from serving.scheduler.specs import DueWork
from serving.settings import FIRST_GUESS_S
from serving.store.jobs import JobStore
from serving.store.records import WaitingJob

log = logging.getLogger(__name__)

WAITING_LOOK_S = 1.0
"""Polling interval, in seconds, of the jobs that wait to be taken up."""

WAITING_PLANNED = 200
"""Jobs that wait to be taken up whose work is known exactly; that of others is taken to be alike."""

WAITING_PLANS_AT_ONCE = 10
"""Of those, that one look plans anew: planning a long film takes a while."""


@dataclass(frozen=True)
class WaitingWork:
    """What the waiting jobs of one pool need."""

    work_s: float = 0.0
    """Gang-seconds."""
    calls_ready: int = 0
    """Calls that could run at once if they were taken up: those of their first step."""
    oldest_at: float | None = None
    """Unix seconds at which the oldest of them was accepted."""
    due: tuple[DueWork, ...] = ()


@dataclass(frozen=True)
class _Planned:
    """A job as it would be taken up."""

    cost_key: str
    window: int
    takes: tuple[TakePlan, ...]

    @property
    def calls(self) -> int:
        return sum(take.calls for take in self.takes)

    @property
    def calls_ready(self) -> int:
        return sum(take.ready_calls for take in self.takes)

    def work_s(self, costs: CostModel) -> float:
        return sum(costs.take_seconds(self.cost_key, take) for take in self.takes)

    def path_s(self, costs: CostModel) -> float:
        paths = (costs.path_seconds(self.cost_key, take, window=self.window) for take in self.takes)
        return max(paths, default=0.0)


class WaitingJobs:
    """Looks at the jobs that wait to be taken up. `look` may be called in a thread, the rest where it is used."""

    def __init__(self, jobs: JobStore, admission: Admission, costs: CostModel) -> None:
        self._jobs = jobs
        self._admission = admission
        self._costs = costs
        self._rows: Sequence[WaitingJob] = ()
        self._calls: Mapping[str, int] = {}
        self._planned: dict[str, _Planned | None] = {}
        """None for a job that cannot be planned: taking it up will say why."""
        self._looked_at = float("-inf")

    def look(self, now: float) -> None:
        """See who waits, unless that was done just now. Raises StoreUnavailable."""
        if 0 <= now - self._looked_at < WAITING_LOOK_S:
            return
        rows, calls = self._jobs.waiting(now=now, limit=WAITING_PLANNED)
        planned = {row.id: self._planned[row.id] for row in rows if row.id in self._planned}
        for row in [row for row in rows if row.id not in planned][:WAITING_PLANS_AT_ONCE]:
            planned[row.id] = self._plan(row.id)
        self._rows, self._calls, self._planned, self._looked_at = rows, calls, planned, now

    def work(self, pool: str, *, without: Collection[str]) -> WaitingWork:
        """What was found for a pool, but for the jobs `without`, which were taken up since."""
        rows = [row for row in self._rows if row.pool == pool and row.id not in without]
        taken = sum(row.calls_left for row in self._rows if row.pool == pool and row.id in without)
        known = [(row, found) for row in rows if (found := self._planned.get(row.id)) is not None]
        left = {row.id: row.calls_left / max(1, found.calls) for row, found in known}
        work_s = sum(found.work_s(self._costs) * left[row.id] for row, found in known)
        calls = sum(row.calls_left for row, _ in known)
        each_s = work_s / calls if calls else FIRST_GUESS_S * TYPICAL_LATENTS
        others = max(0, self._calls.get(pool, 0) - taken - calls)
        return WaitingWork(
            work_s=work_s + others * each_s,
            calls_ready=sum(found.calls_ready for _, found in known) + len(rows) - len(known),
            oldest_at=min((row.created_at for row in rows), default=None),
            due=tuple(
                DueWork(row.due_at, found.work_s(self._costs) * left[row.id], found.path_s(self._costs) * left[row.id])
                for row, found in known
                if row.due_at is not None
            ),
        )

    def _plan(self, job_id: str) -> _Planned | None:
        try:
            job = self._jobs.get(job_id)
            if job is None:
                return None
            planned = self._admission.plan_job(job)
            cost_key = self._admission.cost_key(planned.pool, planned.plan)
            window = open_known_model(planned.pool.model).capabilities.window
        except StoreUnavailable:
            raise
        except LongtakeError as error:
            log.info("it cannot be planned ahead: %s", error, extra={"action": "plan_ahead", "job": job_id})
            return None
        return _Planned(cost_key, window, planned.plan.takes)
