"""Checks of storyboards while they are written: what is wrong, or what they would cost. An editor asks all the time, so
a storyboard that is not right yet is no error here.
"""

from fastapi import APIRouter
from starlette.responses import Response

from serving.api.caller import AnyCaller, Caller
from serving.api.errors import ApiError, as_api_error
from serving.api.repeats import Incoming, TheRequest, answer_once
from serving.api.routes.jobs import JobId, find_job
from serving.api.services import Services, TheServices
from serving.api.submitting import Order, price_order, tenant_of
from serving.api.wire.jobs import Check
from serving.api.wire.openapi import failures, job_body
from serving.api.wire.reading import read_new_job
from serving.errors import UserError
from serving.store.records import Job

router = APIRouter(tags=["farm"])


@router.post(
    "/v1/check",
    summary="Check a storyboard",
    response_model=Check,
    openapi_extra=job_body(),
    responses=failures(409, 415),
)
def check(caller: AnyCaller, incoming: TheRequest, services: TheServices) -> Response:
    """As `POST /v1/quote`, for editors: 200 with `problems` if the storyboard cannot be rendered, else with its
    `quote`."""
    return _check(services, caller, incoming, previous=None)


@router.post(
    "/v1/jobs/{job_id}/check",
    tags=["jobs"],
    summary="Check an edited storyboard",
    response_model=Check,
    openapi_extra=job_body(),
    responses=failures(404, 409, 415),
)
def check_version(job_id: JobId, caller: AnyCaller, incoming: TheRequest, services: TheServices) -> Response:
    """The same for the next version of a film: as `POST /v1/jobs/{job_id}/revise?dry_run=true`, but 200 with `problems`
    if it cannot be rendered."""
    return _check(services, caller, incoming, previous=find_job(services, caller, job_id))


def _check(services: Services, caller: Caller, incoming: Incoming, *, previous: Job | None) -> Response:
    def look() -> Check:
        try:
            options, storyboard = read_new_job(incoming.body, incoming.content_type, incoming.query)
            order = Order(storyboard, options, previous=previous)
            return Check(quote=price_order(services, order, tenant_of(caller, order)), problems=[])
        except (ApiError, UserError) as error:
            refusal = as_api_error(error)
            if refusal.status != 422:
                raise
            return Check(quote=None, problems=refusal.shown_problems)

    return answer_once(services, incoming.record, look)
