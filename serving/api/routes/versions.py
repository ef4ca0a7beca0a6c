"""Versions of a film: revise, finalize, list, compare. A new version renders only what an equal take is not there
for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from starlette.responses import Response

from serving.api.answer import respond
from serving.api.caller import AnyCaller, Caller
from serving.api.errors import refuse
from serving.api.repeats import REPLAYED, Incoming, TheRequest, answer_once
from serving.api.routes.jobs import JobId, find_job
from serving.api.services import Poker, Services, ThePoker, TheServices
from serving.api.submitting import Order, accept, as_final, check_due, plan_order, tenant_of
from serving.api.wire.jobs import Change, Diff, Job, JobList, Quote, TakeChange
from serving.api.wire.openapi import failures, job_body
from serving.api.wire.reading import StrictRoute, read_new_job
from serving.api.wire.requests import JobOptions
from serving.errors import Problem
from serving.settings import MAX_LIST
from serving.store.records import Job as JobRecord
from serving.store.records import Take

router = APIRouter(tags=["jobs"], route_class=StrictRoute)

DryRun = Annotated[bool, Query(description="Only say what would be rendered and what it would cost: a quote, 200.")]

_DRY: dict[int | str, dict[str, Any]] = {200: {"model": Quote, "description": "With dry_run: what it would cost."}}


@router.post(
    "/v1/jobs/{job_id}/revise",
    status_code=201,
    summary="Render an edited storyboard",
    response_model=Job,
    openapi_extra=job_body(),
    responses={**_DRY, **failures(404, 409, 415)},
)
def revise(
    job_id: JobId,
    caller: AnyCaller,
    incoming: TheRequest,
    services: TheServices,
    poker: ThePoker,
    dry_run: DryRun = False,
) -> Response:
    """Makes the next version of a film. Options that are left out are as they were. The answer carries the `quote`, by
    which takes that are there already cost nothing. The version before goes on as it was; cancel it if it need not."""
    previous = find_job(services, caller, job_id)
    request, storyboard = read_new_job(incoming.body, incoming.content_type, incoming.query)
    order = Order(storyboard, request, kind=previous.kind, previous=previous)
    return _next_version(services, poker, caller, incoming, order=order, dry_run=dry_run)


@router.post(
    "/v1/jobs/{job_id}/finalize",
    status_code=201,
    summary="Render an accepted draft at final quality",
    response_model=Job,
    responses={**_DRY, **failures(404, 409)},
)
def finalize(
    job_id: JobId,
    caller: AnyCaller,
    incoming: TheRequest,
    services: TheServices,
    poker: ThePoker,
    options: Annotated[JobOptions | None, Body(description="What is left out is as it was.")] = None,
    dry_run: DryRun = False,
) -> Response:
    """Makes the next version: the same storyboard and seeds, quality `final`."""
    previous = find_job(services, caller, job_id)
    wanted = options or JobOptions()
    if "steps" not in wanted.model_fields_set:
        wanted = wanted.model_copy(update={"steps": None})  # those of the quality, not of the draft
    order = Order(as_final(previous), wanted, kind=previous.kind, previous=previous)
    return _next_version(services, poker, caller, incoming, order=order, dry_run=dry_run)


@router.get("/v1/jobs/{job_id}/versions", summary="List its versions", responses=failures(404))
def versions(job_id: JobId, caller: AnyCaller, services: TheServices) -> JobList:
    """Every version of the film that is not deleted, the first one first; at most the last hundred."""
    job = find_job(services, caller, job_id)
    found = services.jobs.list(tenant=caller.scope, family=job.family, limit=MAX_LIST)
    takes = services.jobs.takes_of([version.id for version in found])
    ordered = sorted(found, key=lambda version: version.version)
    return JobList.of([Job.of(version, takes[version.id], is_admin=caller.is_admin) for version in ordered])


@router.get("/v1/jobs/{job_id}/diff", summary="Compare with another", responses=failures(404))
def diff(
    job_id: JobId,
    caller: AnyCaller,
    services: TheServices,
    against: Annotated[str | None, Query(max_length=64, description="Default: the version it was made from.")] = None,
) -> Diff:
    """What differs in the storyboard, and which takes are the same."""
    job = find_job(services, caller, job_id)
    other_id = against or job.parent
    if other_id is None:
        raise refuse([Problem("against", "is missing; the job was made from no other")])
    other = find_job(services, caller, other_id)
    return Diff(
        job=job.id,
        against=other.id,
        changes=list(compare(_named(other), _named(job))),
        takes=list(compare_takes((other, services.jobs.takes(other.id)), (job, services.jobs.takes(job.id)))),
    )


def compare(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """The places where two plain values differ."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from compare(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif before != after:
        yield Change(path=path, before=before, after=after)


def compare_takes(
    before: tuple[JobRecord, Sequence[Take]], after: tuple[JobRecord, Sequence[Take]]
) -> Iterator[TakeChange]:
    """What became of each take, by its content, or if that is not known yet by what it is made from."""
    old, new = ({take.key: (job, take) for take in takes} for job, takes in (before, after))
    for key in dict.fromkeys([*old, *new]):
        if key not in new:
            yield TakeChange(key=key, change="removed")
        elif key not in old:
            yield TakeChange(key=key, change="added")
        else:
            yield TakeChange(key=key, change="same" if _is_same(old[key], new[key]) else "changed")


def _is_same(one: tuple[JobRecord, Take], other: tuple[JobRecord, Take]) -> bool:
    if one[1].content_key and other[1].content_key:
        return one[1].content_key == other[1].content_key
    return _ingredients(*one) == _ingredients(*other)


def _ingredients(job: JobRecord, take: Take) -> dict[str, Any]:
    """What a take's latents depend on: its shots, how the next begins (handles), and what holds for the whole film."""
    shots = job.storyboard["shots"]
    index = {shot["id"]: place for place, shot in enumerate(shots)}
    end = index[take.shots[-1]] + 1
    common = {key: value for key, value in job.storyboard.items() if key not in ("title", "shots")}
    follows = shots[end]["transition"] if end < len(shots) else None
    return {**common, "own": shots[index[take.shots[0]] : end], "follows": follows, "steps": job.steps}


def _named(job: JobRecord) -> dict[str, Any]:
    """The storyboard with its shots by id, so that one that was inserted does not change all after it."""
    shots = {shot["id"]: shot for shot in job.storyboard["shots"]}
    order = [shot["id"] for shot in job.storyboard["shots"]]
    return {**job.storyboard, "shots": shots, "order": order}


def _next_version(
    services: Services, poker: Poker, caller: Caller, incoming: Incoming, *, order: Order, dry_run: bool
) -> Response:
    tenant = tenant_of(caller, order)
    record, now = incoming.record, services.clock()
    if dry_run or record is None or services.jobs.find_request(record, now=now) is None:
        check_due(services, order)
    planned = plan_order(services, order)
    quote = Quote.model_validate(services.admission.quote(planned, tenant=tenant, due_at=order.due_at, now=now))
    if dry_run:
        return answer_once(services, record, lambda: quote)
    made = accept(services, poker, caller, order, record=record)
    headers = {"Location": f"/v1/jobs/{made.job.id}", **(REPLAYED if made.replayed else {})}
    answer = Job.of(made.job, made.takes, is_admin=caller.is_admin, quote=quote, warnings=made.warnings)
    return respond(answer, 201, headers)
