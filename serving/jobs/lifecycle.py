"""The life of a job, and the only writer of its status: which action is allowed when, and what it leaves behind.

    submit -> queued --start--> in_progress --complete--> completed
                 \\                 |    \\
                  \\--pause-->  paused    \\--fail--> failed --retry--> queued
                   resume: back to queued or in_progress
    cancel: from any of the first three -> cancelled --retry--> queued

Every change is one transaction with its event, its line in the audit log and its webhooks, and carries a reason that a
person can read.
"""

from collections.abc import Mapping
from typing import Any, Literal

from serving.errors import WrongState
from serving.store.database import Database
from serving.store.jobs import JobStore
from serving.store.records import ENDED, LIVE, SYSTEM, Job, JobStatus

Action = Literal["start", "pause", "resume", "complete", "fail", "cancel", "retry"]

TRANSITIONS: Mapping[tuple[JobStatus, Action], JobStatus] = {
    (JobStatus.QUEUED, "start"): JobStatus.IN_PROGRESS,
    (JobStatus.QUEUED, "pause"): JobStatus.PAUSED,
    (JobStatus.QUEUED, "complete"): JobStatus.COMPLETED,  # all of its takes were there already
    (JobStatus.QUEUED, "fail"): JobStatus.FAILED,
    (JobStatus.QUEUED, "cancel"): JobStatus.CANCELLED,
    (JobStatus.IN_PROGRESS, "pause"): JobStatus.PAUSED,
    (JobStatus.IN_PROGRESS, "complete"): JobStatus.COMPLETED,
    (JobStatus.IN_PROGRESS, "fail"): JobStatus.FAILED,
    (JobStatus.IN_PROGRESS, "cancel"): JobStatus.CANCELLED,
    (JobStatus.PAUSED, "resume"): JobStatus.QUEUED,  # or in_progress, if it had started
    (JobStatus.PAUSED, "cancel"): JobStatus.CANCELLED,
    (JobStatus.FAILED, "retry"): JobStatus.QUEUED,
    (JobStatus.CANCELLED, "retry"): JobStatus.QUEUED,
}
"""What every action makes of every status; what is not here is refused."""

ASKED: tuple[Action, ...] = ("pause", "resume", "cancel", "retry")
"""Actions that a person may ask for; the others are the Director's."""


def allowed_actions(status: JobStatus) -> tuple[Action, ...]:
    """What may be done with a job of this status."""
    return tuple(action for before, action in TRANSITIONS if before == status)


def asked_actions(status: JobStatus) -> tuple[Action, ...]:
    """What a person may ask for with a job of this status."""
    return tuple(action for action in allowed_actions(status) if action in ASKED)


def status_after(job: Job, action: Action) -> JobStatus:
    """The status that an action leads to. Raises WrongState, naming what a person may do instead."""
    after = TRANSITIONS.get((job.status, action))
    if after is None:
        could = asked_actions(job.status)
        allowed = f"it can be asked to {' or '.join(could)}" if could else "nothing can be done with it any more"
        raise WrongState(f"job {job.id} is {job.status} and cannot {action}; {allowed}", could)
    return JobStatus.IN_PROGRESS if action == "resume" and job.started_at is not None else after


class Lifecycle:
    """Changes the status of jobs."""

    def __init__(self, database: Database) -> None:
        self._jobs = JobStore(database)

    def apply(
        self,
        job_id: str,
        action: Action,
        *,
        reason: str,
        now: float,
        actor: str = SYSTEM,
        tenant: str | None = None,
        token: int | None = None,
        data: Mapping[str, Any] | None = None,
        film: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> Job:
        """Take an action; returns the job as it is then.

        A Director names the `token` of its lease. A job that is not live any more is held by nobody. Raises NotFound,
        WrongState, Fenced if the job is another's, and StoreUnavailable; nothing is changed then.
        """

        def decide(job: Job) -> dict[str, Any]:
            return changes(job, action, reason=reason, now=now, film=film, error=error)

        if error is not None:
            data = {**(data or {}), "code": error["code"]}
        return self._jobs.transition(
            job_id, decide, kind=action, actor=actor, now=now, tenant=tenant, token=token, data=data
        )


def changes(
    job: Job,
    action: Action,
    *,
    reason: str,
    now: float,
    film: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What an action changes of a job: pure. Raises WrongState."""
    status = status_after(job, action)
    values: dict[str, Any] = {"status": status, "reason": reason}
    if status not in LIVE:  # with a new token, so that whoever held it can write nothing after this
        values |= {"lease_owner": None, "lease_until": None, "lease_token": job.lease_token + 1, "eta_at": None}
    if status in ENDED:
        values |= {"finished_at": now, "at_risk": False}
    match action:
        case "start":
            values |= {"started_at": now}
        case "complete":
            values |= {"film": dict(film or {}), "progress": 100.0, "calls_done": job.calls_total}
        case "fail":
            values |= {"error": dict(error or {"code": "failed", "message": reason})}
        case "retry":
            values |= {"error": None, "finished_at": None, "started_at": None, "progress": 0.0, "calls_done": 0}
    return values
