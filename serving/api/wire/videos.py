"""Between OpenAI's videos and our jobs: what a request asks for as a storyboard, and a job as a video. Pure."""

import re
from collections.abc import Callable, Iterator, Mapping
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
            remixed_from_video_id=job.parent,
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


def storyboard_of(wanted: NewVideo, *, default_model: str, fps_of: Callable[[str], int]) -> dict[str, Any]:
    """What is asked for as a storyboard; its `input_reference` is an asset's id by now. `fps_of` tells the speed of a
    model's films. Raises ApiError if two ways to say something contradict each other."""
    problems = list(_contradictions(wanted))
    if problems:
        raise refuse(problems)
    model = wanted.model or default_model
    video = {**_size(wanted), **({"fps": wanted.fps} if wanted.fps is not None else {})}
    given = {"seed": wanted.seed, "quality": wanted.quality, "negative": wanted.negative_prompt, "video": video or None}
    shots = wanted.shots
    if shots is None:
        seconds = _seconds(wanted, lambda: wanted.fps or fps_of(model))
        image = {} if wanted.input_reference is None else {"image": wanted.input_reference}
        shots = [{"id": "video", "prompt": _escape(wanted.prompt), "seconds": seconds, **image}]
    return {
        "version": 1,
        "title": _title(wanted.prompt),
        "model": model,
        **{name: value for name, value in given.items() if value is not None},
        "shots": shots,
    }


def remixed(storyboard: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    """The storyboard of a video of one shot with another prompt. Raises ApiError if it has several."""
    shots = storyboard["shots"]
    if len(shots) > 1:
        message = (
            f"the video has {len(shots)} shots, each with a prompt of its own: POST /v1/jobs/{{id}}/revise takes all"
        )
        raise refuse([Problem("prompt", message)])
    return {**storyboard, "title": _title(prompt), "shots": [{**shots[0], "prompt": _escape(prompt)}]}


def _contradictions(wanted: NewVideo) -> Iterator[Problem]:
    for name, own in (("seconds", "lengths"), ("num_frames", "lengths"), ("input_reference", "pictures")):
        if wanted.shots is not None and getattr(wanted, name) is not None:
            yield Problem(name, f"is not allowed beside shots, which have their own {own}")
    if wanted.seconds is not None and wanted.num_frames is not None:
        yield Problem("num_frames", "is not allowed beside seconds: send one of them")
    for name, other in (("width", "height"), ("height", "width")):
        if getattr(wanted, name) is not None and getattr(wanted, other) is None:
            yield Problem(other, f"is missing; {name} needs it")
        if getattr(wanted, name) is not None and wanted.size is not None:
            yield Problem(name, "is not allowed beside size: send one of them")
    if wanted.user is not None and "user" in (wanted.metadata or {}):
        yield Problem("metadata.user", "is not allowed beside user: send one of them")


def _size(wanted: NewVideo) -> dict[str, int]:
    if wanted.size is not None:
        width, height = re.split(r"[^0-9]", wanted.size)
        return {"width": int(width), "height": int(height)}
    if wanted.width is not None and wanted.height is not None:
        return {"width": wanted.width, "height": wanted.height}
    return {}


def _seconds(wanted: NewVideo, fps: Callable[[], int]) -> float:
    if wanted.num_frames is not None:
        return wanted.num_frames / fps()
    return DEFAULT_SECONDS if wanted.seconds is None else float(wanted.seconds)


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
