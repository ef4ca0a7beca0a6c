"""Jobs and takes for tests of what stores and schedules them; nothing of them is ever rendered."""

from typing import Any

from serving.store.ids import new_id
from serving.store.records import Job, LedgerEntry, Take

NOW = 1_800_000_000.0
"""Unix seconds, when everything in these tests begins."""


def new_job(now: float = NOW, **changes: Any) -> Job:
    """A queued job of tenant `ada` with 20 calls."""
    identity = changes.pop("id", None) or new_id("job", now)
    values: dict[str, Any] = {
        "id": identity,
        "tenant": "ada",
        "title": "A walk",
        "status": "queued",
        "reason": "accepted",
        "version": 1,
        "family": identity,
        "parent": None,
        "storyboard": {"title": "A walk", "shots": [{"prompt": "a red ball", "seconds": 2.5}]},
        "storyboard_hash": "0" * 64,
        "steps": None,
        "model": "pocket",
        "pool": "default",
        "priority": 50,
        "due_at": None,
        "budget_usd": None,
        "tags": {},
        "kind": "native",
        "progress": 0.0,
        "calls_total": 20,
        "calls_done": 0,
        "eta_at": None,
        "at_risk": False,
        "gpu_seconds": 0.0,
        "wasted_gpu_seconds": 0.0,
        "usd": 0.0,
        "film": None,
        "error": None,
        "created_at": now,
        "started_at": None,
        "finished_at": None,
        "updated_at": now,
        "revision": 1,
        "lease_owner": None,
        "lease_token": 0,
        "lease_until": None,
        "deleted_at": None,
    }
    return Job(**{**values, **changes})


def new_takes(job: Job, count: int = 2) -> list[Take]:
    """Takes of a job that wait."""
    return [
        Take(
            job_id=job.id,
            index=index,
            key=f"shot-{index}",
            content_key=None,
            status="waiting",
            latents=9,
            frames=33,
            calls_total=10,
            calls_done=0,
            latents_finished=0,
            frames_decoded=0,
            step_counts=[],
            cached=False,
            retries=0,
            gpu_seconds=0.0,
            wasted_gpu_seconds=0.0,
            shots=[f"shot-{index}"],
        )
        for index in range(count)
    ]


def new_entry(job: Job, *, take: int = 0, useful_s: float = 1.0, wasted_s: float = 0.0, at: float = NOW) -> LedgerEntry:
    """GPU-seconds of a job at 0.01 dollars each."""
    return LedgerEntry(
        job_id=job.id,
        tenant=job.tenant,
        pool=job.pool,
        take=f"shot-{take}",
        shot=f"shot-{take}",
        useful_s=useful_s,
        wasted_s=wasted_s,
        usd=(useful_s + wasted_s) * 0.01,
        at=at,
    )
