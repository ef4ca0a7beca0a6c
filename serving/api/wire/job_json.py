"""A job as JSON: the one form that the API answers with and `--json` prints. Pure.

Times are whole unix seconds. Links are paths below the API's address: clients follow them and build none.
"""

from collections.abc import Sequence
from typing import Any

from serving.store.records import Event, Job, Take

Json = dict[str, Any]


def job_json(job: Job, takes: Sequence[Take]) -> Json:
    """The whole job."""
    home = job_path(job.id)
    return {
        "id": job.id,
        "object": "job",
        "status": job.status,
        "reason": job.reason,
        "progress": round(job.progress, 1),
        "title": job.title,
        "version": job.version,
        "family": job.family,
        "parent": job.parent,
        "tenant": job.tenant,
        "kind": job.kind,
        "model": job.model,
        "pool": job.pool,
        "steps": job.steps,
        "priority": job.priority,
        "due_at": whole(job.due_at),
        "at_risk": job.at_risk,
        "budget_usd": job.budget_usd,
        "tags": job.tags,
        "created_at": whole(job.created_at),
        "started_at": whole(job.started_at),
        "finished_at": whole(job.finished_at),
        "eta": whole(job.eta_at),
        "takes": [_take_json(job, take) for take in takes],
        "cost": {
            "gpu_seconds": round(job.gpu_seconds, 3),
            "wasted_gpu_seconds": round(job.wasted_gpu_seconds, 3),
            "usd": round(job.usd, 6),
        },
        "film": None if job.film is None else {**job.film, "url": f"{home}/film"},
        "error": job.error,
        "links": {
            "self": home,
            "events": f"{home}/events",
            "film": f"{home}/film" if job.film else None,
            "manifest": f"{home}/manifest" if job.film else None,
        },
    }


def event_json(event: Event) -> Json:
    """One entry of a job's log."""
    return {
        "id": event.id,
        "object": "event",
        "job": event.job_id,
        "at": whole(event.at),
        "kind": event.kind,
        "status": event.status,
        "reason": event.reason,
        "data": event.data,
    }


def list_json(data: Sequence[Json], *, has_more: bool = False) -> Json:
    """A page of objects; the next begins after `last_id`."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0].get("id") if data else None,
        "last_id": data[-1].get("id") if data else None,
        "has_more": has_more,
    }


def job_path(job_id: str) -> str:
    """Where the job is found."""
    return f"/v1/jobs/{job_id}"


def whole(at: float | None) -> int | None:
    """A time as whole seconds."""
    return None if at is None else int(at)


def _take_json(job: Job, take: Take) -> Json:
    home = f"{job_path(job.id)}/takes/{take.key}"
    seconds = take.gpu_seconds + take.wasted_gpu_seconds
    of_job = job.gpu_seconds + job.wasted_gpu_seconds
    return {
        "key": take.key,
        "shots": take.shots,
        "status": take.status,
        "progress": _take_progress(take),
        "latents": take.latents,
        "latents_finished": take.latents_finished,
        "frames": take.frames,
        "frames_decoded": take.frames_decoded,
        "calls": take.calls_total,
        "calls_done": take.calls_done,
        "cached": take.cached,
        "retries": take.retries,
        "step_counts": take.step_counts,
        "cost": {
            "gpu_seconds": round(take.gpu_seconds, 3),
            "wasted_gpu_seconds": round(take.wasted_gpu_seconds, 3),
            # A job has one pool, so one price: its takes share its money as they share its seconds.
            "usd": round(job.usd * seconds / of_job, 6) if of_job else 0.0,
        },
        "preview": f"{home}/preview" if take.content_key and (take.calls_done or take.cached) else None,
        "head": f"{home}/head" if take.content_key and take.frames_decoded else None,
    }


def _take_progress(take: Take) -> float:
    if take.status in ("rendered", "decoded"):
        return 100.0
    return round(100.0 * take.calls_done / take.calls_total, 1) if take.calls_total else 0.0
