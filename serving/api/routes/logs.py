"""What the farm's log says: of a job, for whoever may see the job; of everything, for administrators."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from serving.api.caller import Admin, AnyCaller, Caller
from serving.api.routes.jobs import JobId, find_job
from serving.api.services import Services, TheServices
from serving.api.wire.logs import LogLine, LogLineList
from serving.api.wire.openapi import failures
from serving.settings import MAX_LOG_LIST
from serving.store.log_lines import Level

router = APIRouter(tags=["jobs"])

After = Annotated[
    int | None,
    Query(ge=0, le=2**62, description="`last_id` of the page before; without it the newest lines, with 0 the oldest."),
]
Limit = Annotated[int, Query(ge=1, le=MAX_LOG_LIST)]
LeastLevel = Annotated[Literal["info", "warning", "error"], Query(description="Lines of this level and above.")]


@router.get("/v1/jobs/{job_id}/logs", summary="Read a job's log", responses=failures(404))
def job_logs(
    job_id: JobId,
    caller: AnyCaller,
    services: TheServices,
    after: After = None,
    level: LeastLevel = "info",
    limit: Limit = 100,
) -> LogLineList:
    """What the farm did for a job and what went wrong, oldest first; the last thousand lines are kept. To follow it,
    ask again after the last."""
    job = find_job(services, caller, job_id)
    return _page(services, caller, job_id=job.id, after=after, level=level, limit=limit)


@router.get("/v1/logs", tags=["farm"], summary="Read the farm's log")
def farm_logs(
    caller: Admin, services: TheServices, after: After = None, level: LeastLevel = "warning", limit: Limit = 100
) -> LogLineList:
    """Lines of all jobs and of the farm itself, oldest first; by default its faults."""
    return _page(services, caller, job_id=None, after=after, level=level, limit=limit)


def _page(
    services: Services, caller: Caller, *, job_id: str | None, after: int | None, level: Level, limit: int
) -> LogLineList:
    found = services.log_lines.list(job_id=job_id, level=level, after=after, limit=limit + 1)
    has_more = len(found) > limit
    page = found[:limit] if after is not None else found[-limit:]
    return LogLineList.of([LogLine.of(line, is_admin=caller.is_admin) for line in page], has_more=has_more)
