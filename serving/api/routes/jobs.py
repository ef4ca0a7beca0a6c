"""/v1/jobs: submit, list, look, steer. Answers are those of wire/jobs.py."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from starlette.responses import JSONResponse, Response

from serving.api.answer import Deleted, respond
from serving.api.caller import AnyCaller, Caller
from serving.api.errors import ApiError, not_found, refuse
from serving.api.repeats import REPLAYED, TheRequest, answer_once
from serving.api.services import Services, ThePoker, TheServices
from serving.api.submitting import Order, accept, price_order, tenant_of
from serving.api.wire.jobs import Explanation, Job, JobList, Quote
from serving.api.wire.openapi import failures, job_body, storyboard_answer
from serving.api.wire.reading import YAML_TYPES, StrictRoute, once, read_new_job
from serving.api.wire.requests import JobChanges, Reason
from serving.errors import Problem
from serving.jobs.lifecycle import Action, asked_actions
from serving.settings import MAX_LIST
from serving.store.records import ENDED, LIVE, JobStatus
from serving.store.records import Job as JobRecord
from serving.storyboard import Storyboard, write_yaml

router = APIRouter(tags=["jobs"], route_class=StrictRoute)

JobId = str


@router.post(
    "/v1/jobs",
    status_code=201,
    summary="Submit a storyboard",
    response_model=Job,
    openapi_extra=job_body(),
    responses=failures(409, 415),
)
def submit(caller: AnyCaller, incoming: TheRequest, services: TheServices, poker: ThePoker) -> Response:
    """Accepts a film to be rendered: the storyboard as an object or as YAML text in a JSON body with options beside
    it, or as the body itself (application/yaml) with the options in the query, tags as `tag=key=value`."""
    request, storyboard = read_new_job(incoming.body, incoming.content_type, incoming.query)
    made = accept(services, poker, caller, Order(storyboard, request), record=incoming.record)
    headers = {"Location": f"/v1/jobs/{made.job.id}", **(REPLAYED if made.replayed else {})}
    return respond(Job.of(made.job, made.takes, is_admin=caller.is_admin, warnings=made.warnings), 201, headers)


@router.post(
    "/v1/quote",
    tags=["farm"],
    summary="Price a storyboard",
    response_model=Quote,
    openapi_extra=job_body(),
    responses=failures(409, 415),
)
def quote(caller: AnyCaller, incoming: TheRequest, services: TheServices) -> Response:
    """What a storyboard would cost and when it would be done; nothing is stored. Takes what `POST /v1/jobs` takes."""
    request, storyboard = read_new_job(incoming.body, incoming.content_type, incoming.query)
    order = Order(storyboard, request)
    return answer_once(services, incoming.record, partial(price_order, services, order, tenant_of(caller, order)))


@router.get("/v1/jobs", summary="List jobs")
def list_jobs(
    caller: AnyCaller,
    services: TheServices,
    after: Annotated[str | None, Query(max_length=64, description="`last_id` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    status: Annotated[list[JobStatus] | None, Query(description="One or several.")] = None,
    tag: Annotated[list[str] | None, Query(description="`key=value`; of several a job must have all.")] = None,
    family: Annotated[str | None, Query(max_length=64, description="Only versions of this film.")] = None,
    tenant: Annotated[str | None, Query(max_length=64, description="For administrators.")] = None,
    counts: Annotated[bool, Query(description="Also say how many jobs have each status, whatever is chosen.")] = False,
) -> JobList:
    """Jobs by creation, newest first."""
    scope = tenant if caller.is_admin else caller.tenant
    found = services.jobs.list(
        tenant=scope,
        statuses=tuple(status or ()),
        tags=_read_tags(tag or []),
        family=family,
        after=after,
        limit=limit + 1,
    )
    page = found[:limit]
    takes = services.jobs.takes_of([job.id for job in page])
    data = [Job.of(job, takes[job.id], is_admin=caller.is_admin) for job in page]
    counted = services.jobs.count(tenant=scope) if counts else None
    return JobList.of(data, has_more=len(found) > limit, counts=counted)


@router.get("/v1/jobs/{job_id}", summary="Look at a job", responses=failures(404))
def show_job(job_id: JobId, caller: AnyCaller, services: TheServices) -> Job:
    """The job as it is now."""
    return whole_job(services, caller, find_job(services, caller, job_id))


@router.get(
    "/v1/jobs/{job_id}/storyboard", summary="Its storyboard", response_model=None, responses=storyboard_answer()
)
def show_storyboard(job_id: JobId, request: Request, caller: AnyCaller, services: TheServices) -> Response:
    """The storyboard as it was accepted, with everything that was left out written in. Edited, it can be sent to
    `revise`. With `Accept: application/yaml` it comes as YAML, without what is as it would be anyway."""
    job = find_job(services, caller, job_id)
    if YAML_TYPES[0] not in request.headers.get("accept", ""):
        return JSONResponse(job.storyboard, headers={"Vary": "Accept"})
    text = write_yaml(Storyboard.model_validate(job.storyboard))
    return Response(text, media_type=YAML_TYPES[0], headers={"Vary": "Accept"})


@router.patch("/v1/jobs/{job_id}", summary="Change its terms", responses=failures(404, 409))
def change_job(job_id: JobId, changes: JobChanges, caller: AnyCaller, services: TheServices, poker: ThePoker) -> Job:
    """Change priority, budget or due time at any time before the job is over. What is left out stays as it is. A job
    that its budget has paused needs `resume` as well."""
    job = find_job(services, caller, job_id)
    terms: Any = changes.model_dump(include=changes.model_fields_set)
    if not terms:
        raise refuse([Problem("", "name at least one of priority, budget_usd and due_at")])
    if job.status in ENDED:
        allowed = asked_actions(job.status)
        raise ApiError(409, f"job {job_id} is {job.status}", code="wrong_state", allowed=allowed)
    now = services.clock()
    if terms.get("due_at") is not None and terms["due_at"] <= now:
        raise refuse([Problem("due_at", "must be in the future", value=f"{terms['due_at']:.0f}")])
    job = services.jobs.set_terms(job_id, actor=caller.actor, now=now, tenant=caller.scope, **terms)
    poker.poke()
    return whole_job(services, caller, job)


@router.delete("/v1/jobs/{job_id}", summary="Delete a job", responses=failures(404, 409))
def delete_job(job_id: JobId, caller: AnyCaller, services: TheServices) -> Deleted:
    """Hides a job that is over forever; its film goes after a while."""
    job = find_job(services, caller, job_id)
    if job.status not in ENDED:
        detail = f"job {job_id} is {job.status}; cancel it first"
        raise ApiError(409, detail, code="wrong_state", allowed=["cancel"])
    services.jobs.delete(job_id, actor=caller.actor, now=services.clock(), tenant=caller.scope)
    return Deleted(id=job_id, object="job.deleted")


@router.get("/v1/jobs/{job_id}/explain", summary="Explain a job's state", responses=failures(404))
def explain_job(job_id: JobId, caller: AnyCaller, services: TheServices) -> Explanation:
    """In words: what it waits for, its place in line, when it should start and finish."""
    job = find_job(services, caller, job_id)
    said = services.live.explain(job_id) if job.status in LIVE else None
    if said is None:
        return Explanation.of_stored(job, is_admin=caller.is_admin)
    return Explanation.of_director(job, said, is_admin=caller.is_admin)


def _add_action(action: Action, description: str) -> None:
    """The route by which a person asks for an action."""

    @router.post(
        f"/v1/jobs/{{job_id}}/{action}",
        name=action,
        summary=action.capitalize(),
        description=description,
        response_model=Job,
        responses=failures(404, 409),
    )
    def act_on_job(
        job_id: JobId,
        caller: AnyCaller,
        incoming: TheRequest,
        services: TheServices,
        poker: ThePoker,
        why: Annotated[Reason | None, Body(description="Why; it is kept in the job's log.")] = None,
    ) -> Response:
        find_job(services, caller, job_id)

        def act() -> Job:
            reason = (why.reason if why else "") or f"{action} was asked for by {caller.actor}"
            who: Any = {"actor": caller.actor, "now": services.clock(), "tenant": caller.scope}
            job = services.lifecycle.apply(job_id, action, reason=reason, **who)
            poker.poke()
            return whole_job(services, caller, job)

        return answer_once(services, incoming.record, act)


_add_action("cancel", "End a job that is not over. `retry` takes it up again, with all that was rendered.")
_add_action("pause", "Give out no more of its calls until it is resumed; what was rendered is kept.")
_add_action("resume", "Go on with a paused job where it was.")
_add_action("retry", "Take up a failed or cancelled job again; what was rendered is not rendered again.")


def find_job(services: Services, caller: Caller, job_id: str) -> JobRecord:
    """The caller's job. Raises ApiError 404, the same for a job that is another tenant's."""
    job = services.jobs.get(job_id, tenant=caller.scope)
    if job is None:
        raise not_found(f"job {job_id[:64]}")
    return job


def whole_job(services: Services, caller: Caller, job: JobRecord) -> Job:
    """The job and its takes, as the caller may see them."""
    return Job.of(job, services.jobs.takes(job.id), is_admin=caller.is_admin)


def _read_tags(tags: list[str]) -> dict[str, str]:
    """Raises ApiError if one is no `key=value`, or a key comes twice."""
    wrong = [tag for tag in tags if "=" not in tag or len(tag) > 300]
    if wrong:
        raise refuse([Problem("tag", "must be key=value", value=repr(wrong[0][:60]))])
    return once((key, value) for key, _, value in (tag.partition("=") for tag in tags))
