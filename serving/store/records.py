"""What the database holds, as frozen values. Times are unix seconds; a job's JSON form is the API's affair."""

import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal


class JobStatus(StrEnum):
    """Every status that a job can have. Everything else that lists statuses is derived from here."""

    QUEUED = "queued"
    """Accepted; nothing has been rendered yet."""
    IN_PROGRESS = "in_progress"
    """Calls have been given out."""
    PAUSED = "paused"
    """Stopped by a person or by its budget."""
    COMPLETED = "completed"
    """Its film is there."""
    FAILED = "failed"
    """It cannot go on as it is."""
    CANCELLED = "cancelled"
    """Ended by a person."""


TakeStatus = Literal["waiting", "rendering", "rendered", "decoded"]
"""rendered: its latents are durable. decoded: its frames are."""

LIVE = (JobStatus.QUEUED, JobStatus.IN_PROGRESS)
"""Statuses in which a Director may hold a job."""

ENDED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
"""Statuses in which nothing more happens to a job unless a person asks for it."""

SYSTEM = "longtake"
"""The actor of what no person asked for; only persons' actions go into the audit log."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One version of one film. The defaults are those of a job that has just been accepted."""

    id: str
    """Sorts by creation, safe in a URL."""
    tenant: str
    """`default` if there are no keys."""
    title: str
    status: JobStatus
    reason: str
    """Why it has this status, in words."""
    version: int
    """1, 2, ... within its family."""
    family: str
    """The id of the first version."""
    parent: str | None
    """The version that it was revised or finalized from."""
    storyboard: dict[str, Any]
    storyboard_hash: str
    steps: int | None
    """Denoising steps instead of those of the storyboard's quality."""
    model: str
    pool: str
    priority: int
    """0..100; higher goes first."""
    due_at: float | None
    budget_usd: float | None
    tags: dict[str, str]
    kind: str
    """`native`, or `video` where it came through /v1/videos."""
    progress: float = 0.0
    """0..100; does not fall until the job is retried."""
    calls_total: int
    calls_done: int = 0
    eta_at: float | None = None
    at_risk: bool = False
    """Its due time will probably be missed."""
    gpu_seconds: float = 0.0
    """Useful ones."""
    wasted_gpu_seconds: float = 0.0
    usd: float = 0.0
    """Charged: useful and wasted together."""
    film: dict[str, Any] | None = None
    """sha256, frames, seconds, bytes, width, height and fps, once it is completed."""
    error: dict[str, Any] | None = None
    """code and message, once it failed."""
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    updated_at: float
    revision: int = 1
    """Rises with every change and every event, but not with those of the lease."""
    lease_owner: str | None = None
    lease_token: int = 0
    """Fencing token: rises whenever the job is taken or given back, so it is good only as long as it is held."""
    lease_until: float | None = None
    deleted_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Take:
    """One take of a job, for those who watch. Counts are latents unless they say frames or calls. The defaults are
    those of a take that no Director has seen."""

    job_id: str
    index: int
    key: str
    content_key: str | None = None
    """What its artifacts are called; None before a Director has seen it."""
    status: TakeStatus
    latents: int
    frames: int
    calls_total: int
    calls_done: int = 0
    latents_finished: int = 0
    frames_decoded: int = 0
    head_frames: int = 0
    """Frames of the longest head that can be watched; 0: there is none."""
    has_preview: bool = False
    """A picture of its latents can be looked at."""
    step_counts: list[int] = field(default_factory=list)
    """Latents that have reached each step; empty before it was opened."""
    cached: bool = False
    """It was there already and was not rendered for this job."""
    retries: int = 0
    gpu_seconds: float = 0.0
    """Useful ones. The ledger alone writes these two; in a JobProgress they are ignored."""
    wasted_gpu_seconds: float = 0.0
    shots: list[str]


@dataclass(frozen=True)
class JobUse:
    """A job and the takes that its film was, is or will be made from."""

    job_id: str
    content_keys: frozenset[str]
    """Of its takes, as far as they are known."""
    ended_at: float | None = None
    """Unix seconds when it was completed, failed or cancelled, or deleted; None while it may still go on."""
    deleted_at: float | None = None
    """Unix seconds when it was deleted; None while it exists."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a job. Ids rise over all jobs, so that a reader can go on after the last it saw."""

    id: int
    job_id: str
    tenant: str
    at: float
    kind: str
    status: JobStatus
    reason: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobFact:
    """An event, with what is counted of its job."""

    kind: str
    at: float
    pool: str
    created_at: float
    due_at: float | None
    film_s: float
    """Seconds of the film; 0 before it is there."""
    code: str
    """Of a failure; else empty."""


@dataclass(frozen=True)
class JobProgress:
    """What a Director writes down about a job that it holds."""

    job_id: str
    token: int
    progress: float
    calls_total: int
    calls_done: int
    eta_at: float | None
    at_risk: bool
    takes: tuple[Take, ...]


@dataclass(frozen=True)
class WaitingJob:
    """A live job that nobody holds, as far as it matters to who plans ahead."""

    id: str
    pool: str
    due_at: float | None
    created_at: float
    calls_left: int


@dataclass(frozen=True)
class LedgerEntry:
    """GPU-seconds put down to one shot."""

    job_id: str
    tenant: str
    pool: str
    take: str
    """Key of the take."""
    shot: str
    useful_s: float
    wasted_s: float
    usd: float
    at: float
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    """Written once however often it is sent, so that a batch may be sent again when its answer was lost."""


@dataclass(frozen=True)
class StoredSupply:
    """What the Director last said of a pool."""

    gangs_ready: int
    backlog_gpu_s: float
    at: float


@dataclass(frozen=True)
class IdempotencyRecord:
    """A request that must have the same answer when it is repeated."""

    tenant: str
    route: str
    key: str
    body_sha256: str
