"""Between OpenAI's videos and our jobs: what a request asks for as a storyboard, and a job as a video. Pure."""

from typing import Any, Literal

from pydantic import Field

from serving.api.answer import Answer, Page, WholeSeconds, shown
from serving.api.errors import refuse
from serving.api.wire.requests import NewVideo
from serving.config.farm import FarmConfig
from serving.errors import Problem
from serving.settings import MAX_TITLE_CHARS
from serving.store.records import Job, JobStatus

MIN_POLL_S = 0.5
"""Seconds; the shortest time that openai-poll-after-ms asks a client to wait."""

MAX_POLL_S = 10.0
"""Seconds; the longest."""


DEFAULT_SECONDS = 4.0
"""As OpenAI has it."""

State = Literal["queued", "in_progress", "completed", "failed"]

STATES: dict[JobStatus, State] = {
    JobStatus.QUEUED: "queued",
    JobStatus.IN_PROGRESS: "in_progress",
    JobStatus.PAUSED: "in_progress",
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "failed",
}
"""What OpenAI calls each status."""


class VideoFailure(Answer):
    """Why a video failed."""

    code: str
    message: str

    @classmethod
    def of(cls, job: Job, *, is_admin: bool) -> "VideoFailure | None":
        """Of a job that failed, or was cancelled, which OpenAI does not know."""
        if job.status == JobStatus.CANCELLED:
            return cls(code="cancelled", message=shown(job.reason, is_admin=is_admin))
        if job.status == JobStatus.FAILED:
            error = job.error or {"code": "failed", "message": job.reason}
            return cls(code=error["code"], message=shown(str(error["message"]), is_admin=is_admin))
        return None


class OpenAIVideo(Answer):
    """A video as OpenAI has it."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: State
    progress: int = Field(ge=0, le=100)
    created_at: WholeSeconds
    completed_at: WholeSeconds | None
    expires_at: WholeSeconds | None
    prompt: str
    seconds: str
    size: str
    remixed_from_video_id: str | None
    error: VideoFailure | None

    @classmethod
    def of(cls, job: Job, config: FarmConfig, *, is_admin: bool) -> "OpenAIVideo":
        """A job as OpenAI shows a video."""
        shots, video = job.storyboard["shots"], job.storyboard.get("video") or {}
        completed_at = job.finished_at if job.status == JobStatus.COMPLETED else None
        kept_days = config.retention.films_days
        return cls(
            id=job.id,
            model=job.model,
            status=STATES[job.status],
            progress=int(job.progress),
            created_at=job.created_at,
            completed_at=completed_at,
            expires_at=None if completed_at is None or kept_days is None else completed_at + kept_days * 86_400,
            prompt="\n".join(_unescape(shot["prompt"]) for shot in shots),
            seconds=f"{round(sum(shot['seconds'] for shot in shots), 3):g}",
            size=f"{video.get('width')}x{video.get('height')}",
            remixed_from_video_id=None,
            error=VideoFailure.of(job, is_admin=is_admin),
        )


class VideoList(Page):
    """A page of videos."""

    data: list[OpenAIVideo]
    first_id: str | None
    last_id: str | None


class VideoDeleted(Answer):
    """A deleted video."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


def storyboard_of(wanted: NewVideo, *, default_model: str) -> dict[str, Any]:
    """What is asked for as a storyboard. Raises ApiError where two ways to say it contradict each other."""
    if wanted.shots is not None and wanted.seconds is not None:
        raise refuse([Problem("seconds", "is not allowed beside shots, which have their own")])
    storyboard: dict[str, Any] = {"version": 1, "title": _title(wanted.prompt), "model": wanted.model or default_model}
    if wanted.size is not None:
        width, _, height = wanted.size.partition("x")
        storyboard["video"] = {"width": int(width), "height": int(height)}
    for name in ("seed", "quality"):
        if (value := getattr(wanted, name)) is not None:
            storyboard[name] = value
    shots = wanted.shots
    if shots is None:
        seconds = DEFAULT_SECONDS if wanted.seconds is None else float(wanted.seconds)
        shots = [{"id": "video", "prompt": _escape(wanted.prompt), "seconds": seconds}]
    return {**storyboard, "shots": shots}


def poll_after_ms(job: Job, now: float) -> int:
    """Milliseconds after which it is worth asking again: a part of what is still to come."""
    left_s = 0.0 if job.eta_at is None else job.eta_at - now
    return int(1000 * min(MAX_POLL_S, max(MIN_POLL_S, left_s / 20)))


def _title(prompt: str) -> str:
    """The prompt in one line, as long as a title may be."""
    return " ".join(prompt.split())[:MAX_TITLE_CHARS]


def _escape(prompt: str) -> str:
    """A storyboard's braces stand around names of characters; OpenAI's prompts are plain text."""
    return prompt.replace("{", "{{").replace("}", "}}")


def _unescape(prompt: str) -> str:
    return prompt.replace("{{", "{").replace("}}", "}")
