"""Jobs as the API answers them and `--json` prints them: the job, its takes, events, price, place in line, differences.

Times are whole unix seconds. Links are paths below the API's address: clients follow them and build none. Texts of the
farm's are whole to an administrator (`is_admin`), to a tenant without the farm's insides.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from serving.api import problem_document as document
from serving.api.answer import Answer, GpuSeconds, Page, Percent, Usd, WholeSeconds, optional, shown
from serving.errors import Problem
from serving.store.records import Event, JobStatus
from serving.store.records import Job as JobRecord
from serving.store.records import Take as TakeRecord


class Cost(Answer):
    """What was spent so far: useful and wasted GPU-seconds apart, money together."""

    gpu_seconds: GpuSeconds
    wasted_gpu_seconds: GpuSeconds
    usd: Usd


class Take(Answer):
    """A run of shots without a cut."""

    key: str
    shots: list[str]
    status: Literal["waiting", "rendering", "rendered", "decoded"]
    progress: Percent
    latents: int
    latents_finished: int
    frames: int
    frames_decoded: int
    calls: int
    calls_done: int
    cached: bool = Field(description="It was there already and is not rendered for this job.")
    retries: int
    step_counts: list[int] = Field(description="Latents that have reached each denoising step.")
    cost: Cost
    preview: str | None = Field(description="A picture of its latents as they are now.")
    head: str | None = Field(description="A film of its frames so far.")

    @classmethod
    def of(cls, job: JobRecord, take: TakeRecord) -> "Take":
        """A take of a job."""
        home = f"{job_path(job.id)}/takes/{take.key}"
        seconds, of_job = (one.gpu_seconds + one.wasted_gpu_seconds for one in (take, job))
        # A job has one pool, so one price: its takes share its money as they share its seconds.
        usd = job.usd * seconds / of_job if of_job else 0.0
        values = {
            "progress": _take_progress(take),
            "calls": take.calls_total,
            "cost": Cost(gpu_seconds=take.gpu_seconds, wasted_gpu_seconds=take.wasted_gpu_seconds, usd=usd),
            "preview": f"{home}/preview" if take.has_preview else None,
            "head": f"{home}/head/{take.head_frames}" if take.head_frames else None,
        }
        return cls(**vars(take) | values)


class Film(Answer):
    """A finished film."""

    sha256: str
    frames: int
    seconds: float
    url: str
    bytes: int | None = optional()
    width: int | None = optional()
    height: int | None = optional()
    fps: int | None = optional()


class Attempt(BaseModel):
    """One try of a call that failed."""

    gang: str
    kind: str
    detail: str
    at: float = Field(description="Unix seconds.")


class JobFailure(Answer):
    """Why a job failed."""

    code: str
    message: str
    attempts: list[Attempt] | None = optional("For administrators: every try of the call that failed the job.")

    @classmethod
    def of(cls, error: dict[str, Any], *, is_admin: bool) -> "JobFailure":
        """What the store has of a failure."""
        message = shown(str(error["message"]), is_admin=is_admin)
        return cls(code=error["code"], message=message, attempts=error.get("attempts") if is_admin else None)


class Links(Answer):
    """Paths below the address of the API."""

    self: str
    events: str
    film: str | None
    manifest: str | None


class QuoteTake(Answer):
    """What one take costs."""

    key: str
    shots: list[str]
    calls: int
    gpu_seconds: float
    usd: float
    cached: bool = Field(description="It is there already and costs nothing.")


class PlanWarning(Answer):
    """Something that a storyboard says and the film will not show, such as the end of a prompt that is too long."""

    path: str = Field(description="Where, as in the storyboard: `shots[2].prompt`.")
    message: str


class Quote(Answer):
    """What a film costs, and when it may be there."""

    object: Literal["quote"] = "quote"
    pool: str
    calls: int
    gpu_seconds: float
    usd: float
    starts_at: WholeSeconds | None
    finishes_at: WholeSeconds | None
    due_feasible: bool | None = Field(description="null if no due time was given, or nothing is known yet.")
    frames: int
    seconds: float
    takes: list[QuoteTake]
    warnings: list[PlanWarning]


class Check(Answer):
    """What is wrong with a storyboard or, if nothing is, what it costs."""

    object: Literal["check"] = "check"
    quote: Quote | None = Field(description="null if there are problems.")
    problems: list[document.Problem]


class Job(Answer):
    """One version of one film. Times are unix seconds."""

    id: str
    object: Literal["job"] = "job"
    status: JobStatus
    reason: str = Field(description="Why it has this status, in words.")
    progress: Percent = Field(ge=0, le=100)
    title: str
    version: int
    family: str = Field(description="Id of the first version.")
    parent: str | None = Field(description="Id of the version that this one was made from.")
    tenant: str
    kind: Literal["native", "video"]
    model: str
    pool: str
    steps: int | None = Field(description="Denoising steps, if they are others than those of the quality.")
    priority: int
    due_at: WholeSeconds | None
    at_risk: bool = Field(description="Its due time will probably be missed.")
    budget_usd: float | None
    tags: dict[str, str]
    created_at: WholeSeconds
    started_at: WholeSeconds | None
    finished_at: WholeSeconds | None
    eta: WholeSeconds | None = Field(description="When it should be finished.")
    takes: list[Take]
    cost: Cost
    film: Film | None
    error: JobFailure | None
    links: Links
    quote: Quote | None = optional("Of revise and finalize: what will be rendered.")
    warnings: list[PlanWarning] | None = optional(
        "When it is accepted: what the film will not show, if there is anything."
    )

    @classmethod
    def of(
        cls,
        job: JobRecord,
        takes: Sequence[TakeRecord],
        *,
        is_admin: bool,
        quote: Quote | None = None,
        warnings: Sequence[Problem] = (),
    ) -> "Job":
        """The whole job."""
        home = job_path(job.id)
        values = {
            "reason": shown(job.reason, is_admin=is_admin),
            "eta": job.eta_at,
            "takes": [Take.of(job, take) for take in takes],
            "cost": Cost.model_validate(job),
            "film": None if job.film is None else Film(**job.film, url=f"{home}/film"),
            "error": None if job.error is None else JobFailure.of(job.error, is_admin=is_admin),
            "links": Links(
                self=home,
                events=f"{home}/events",
                film=f"{home}/film" if job.film else None,
                manifest=f"{home}/manifest" if job.film else None,
            ),
            "quote": quote,
            "warnings": [PlanWarning.model_validate(one) for one in warnings] or None,
        }
        return cls(**vars(job) | values)


class JobList(Page):
    """A page of jobs. The next page begins after `last_id`."""

    data: list[Job]
    first_id: str | None
    last_id: str | None
    counts: dict[JobStatus, int] | None = optional(
        "With `counts=true`: jobs of each status that the caller sees, on any page."
    )


class JobEvent(Answer):
    """One entry of a job's log, as the event stream tells it."""

    id: int
    object: Literal["event"] = "event"
    job: str
    at: WholeSeconds
    kind: str
    status: JobStatus
    reason: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: Event, *, is_admin: bool) -> "JobEvent":
        """An event of the store's."""
        reason = shown(event.reason, is_admin=is_admin)
        data = {
            name: shown(value, is_admin=is_admin) if isinstance(value, str) else value
            for name, value in event.data.items()
        }
        return cls(**vars(event) | {"job": event.job_id, "reason": reason, "data": data})


class Explanation(Answer):
    """Why a job is in its state, in words, and what is behind them."""

    object: Literal["explanation"] = "explanation"
    job: str
    status: JobStatus
    words: str
    reasons: list[str]
    position: int | None = Field(description="1 is next; null while it renders or does not wait for gangs.")
    ahead_gpu_seconds: float
    starts_at: WholeSeconds | None
    finishes_at: WholeSeconds | None
    at_risk: bool

    @classmethod
    def of_director(cls, job: JobRecord, said: dict[str, Any], *, is_admin: bool) -> "Explanation":
        """What the Director says of a job that it holds."""
        words = shown(said["words"], is_admin=is_admin)
        reasons = [shown(reason, is_admin=is_admin) for reason in said["reasons"]]
        return cls(**said | {"job": job.id, "status": job.status, "words": words, "reasons": reasons})

    @classmethod
    def of_stored(cls, job: JobRecord, *, is_admin: bool) -> "Explanation":
        """What the store says of a job that no Director holds."""
        return cls(
            job=job.id,
            status=job.status,
            words=f"The job is {job.status.replace('_', ' ')}: {shown(job.reason, is_admin=is_admin)}.",
            reasons=[],
            position=None,
            ahead_gpu_seconds=0.0,
            starts_at=job.started_at,
            finishes_at=job.finished_at or job.eta_at,
            at_risk=job.at_risk,
        )


class Change(Answer):
    """One difference between two storyboards; what is missing on a side is null there."""

    path: str
    before: Any
    after: Any


class TakeChange(Answer):
    """What became of a take."""

    key: str
    change: Literal["same", "changed", "added", "removed"]


class Diff(Answer):
    """How one job differs from another."""

    object: Literal["diff"] = "diff"
    job: str
    against: str
    changes: list[Change]
    takes: list[TakeChange]


def job_path(job_id: str) -> str:
    """The path of a job."""
    return f"/v1/jobs/{job_id}"


def _take_progress(take: TakeRecord) -> float:
    if take.status in ("rendered", "decoded"):
        return 100.0
    return 100.0 * take.calls_done / take.calls_total if take.calls_total else 0.0
