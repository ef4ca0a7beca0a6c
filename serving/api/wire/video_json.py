"""Between OpenAI's videos and our jobs: what a request asks for as a storyboard, and a job as a video. Pure."""

from typing import Any

from serving.api.errors import refuse
from serving.api.wire.job_json import Json, whole
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

STATES = {
    JobStatus.QUEUED: "queued",
    JobStatus.IN_PROGRESS: "in_progress",
    JobStatus.PAUSED: "in_progress",
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "failed",
}
"""What OpenAI calls each status."""


def storyboard_of(wanted: NewVideo, *, default_model: str) -> Json:
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


def video_json(job: Job, config: FarmConfig) -> Json:
    """A job as OpenAI shows a video."""
    shots = job.storyboard["shots"]
    video = job.storyboard.get("video") or {}
    kept_days = config.retention.films_days
    expires_at = None
    if job.status == JobStatus.COMPLETED and job.finished_at is not None and kept_days is not None:
        expires_at = whole(job.finished_at + kept_days * 86_400)
    return {
        "id": job.id,
        "object": "video",
        "model": job.model,
        "status": STATES[job.status],
        "progress": int(job.progress),
        "created_at": whole(job.created_at),
        "completed_at": whole(job.finished_at) if job.status == JobStatus.COMPLETED else None,
        "expires_at": expires_at,
        "prompt": "\n".join(_unescape(shot["prompt"]) for shot in shots),
        "seconds": f"{round(sum(shot['seconds'] for shot in shots), 3):g}",
        "size": f"{video.get('width')}x{video.get('height')}",
        "remixed_from_video_id": None,
        "error": _error(job),
    }


def poll_after_ms(job: Job, now: float) -> int:
    """Milliseconds after which it is worth asking again: a part of what is still to come."""
    left_s = 0.0 if job.eta_at is None else job.eta_at - now
    return int(1000 * min(MAX_POLL_S, max(MIN_POLL_S, left_s / 20)))


def _error(job: Job) -> Json | None:
    if job.status == JobStatus.CANCELLED:
        return {"code": "cancelled", "message": job.reason}
    if job.status == JobStatus.FAILED:
        error = job.error or {}
        return {"code": str(error.get("code", "failed")), "message": str(error.get("message", job.reason))}
    return None


def _title(prompt: str) -> str:
    """The prompt in one line, as long as a title may be."""
    return " ".join(prompt.split())[:MAX_TITLE_CHARS]


def _escape(prompt: str) -> str:
    """A storyboard's braces stand around names of characters; OpenAI's prompts are plain text."""
    return prompt.replace("{", "{{").replace("}", "}}")


def _unescape(prompt: str) -> str:
    return prompt.replace("{{", "{").replace("}}", "}")
