"""The latents of a job as they come out of the noise, for those who watch."""

from fastapi import APIRouter

from serving.api.caller import AnyCaller
from serving.api.routes.jobs import JobId, find_job
from serving.api.services import TheServices
from serving.api.wire.openapi import failures
from serving.api.wire.timelines import TimelineView
from serving.errors import Fault
from serving.jobs.stored_timeline import describe_stored
from serving.settings import QUALITY_STEPS
from serving.store.records import LIVE

router = APIRouter(tags=["jobs"])


@router.get("/v1/jobs/{job_id}/timeline", summary="Its latents now", responses=failures(404))
def timeline(job_id: JobId, caller: AnyCaller, services: TheServices) -> TimelineView:
    """The denoising step that each latent has reached, and the calls that gangs have. Cheap: may be asked every second
    while a job renders. If the Director does not hold the job, the store tells what it knows."""
    job = find_job(services, caller, job_id)
    try:
        takes = services.live.timeline(job_id) if job.status in LIVE else None
    except Fault:
        takes = None
    live = takes is not None
    if takes is None:
        steps = job.steps or QUALITY_STEPS[job.storyboard["quality"]]
        takes = describe_stored(services.jobs.takes(job_id), steps=steps)
    return TimelineView.model_validate({"job": job_id, "at": services.clock(), "live": live, "takes": takes})
