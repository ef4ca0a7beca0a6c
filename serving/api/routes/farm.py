"""Farm-wide routes: who asks, models, usage, health, metrics."""

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from serving.api.answer import respond
from serving.api.caller import Admin, AnyCaller
from serving.api.routes.jobs import find_job
from serving.api.services import TheServices
from serving.api.wire.farm import Health, Me, Model, ModelList, StatusMeaning, Usage, UsageList
from serving.api.wire.openapi import METRICS, failures
from serving.api.wire.requests import Moment
from serving.errors import Fault, ModelError
from serving.jobs.admission import open_known_model
from serving.models.registry import DESCRIPTIONS
from serving.planning.stitching import stitchings_of
from serving.settings import QUALITY_STEPS
from serving.store.records import JobStatus

log = logging.getLogger(__name__)

router = APIRouter(tags=["farm"])

_OF_CAPABILITIES = ("fps", "width", "height", "size_multiple")

_PICTURES = ("first", "last", "keyframes", "references", "strength")
"""What a model may take beside words, as storyboards ask for it."""


@router.get("/v1/me", tags=["access"], summary="Who is asking")
async def me(caller: AnyCaller, services: TheServices) -> Me:
    """Whom the key belongs to, whether keys are asked for at all, and what the statuses of jobs are."""
    return Me(
        tenant=caller.tenant,
        is_admin=caller.is_admin,
        needs_keys=services.config.needs_keys,
        statuses=[StatusMeaning.of(status) for status in JobStatus],
    )


@router.get("/v1/models", summary="Models that the farm serves")
def models(caller: AnyCaller, services: TheServices) -> ModelList:
    """As OpenAI lists models, with the pools that serve each and what a storyboard for it may ask for."""
    pools: dict[str, list[str]] = {}
    for pool in services.config.pools:
        pools.setdefault(pool.model, []).append(pool.name)
    return ModelList(
        data=[
            Model(
                id=name,
                created=0,
                owned_by="longtake",
                description=DESCRIPTIONS.get(name, ""),
                pools=names,
                qualities=dict(QUALITY_STEPS),
                **_what_it_takes(name),
            )
            for name, names in pools.items()
        ]
    )


@router.get("/v1/usage", summary="What was spent", responses=failures(404))
def usage(
    caller: AnyCaller,
    services: TheServices,
    job: Annotated[str | None, Query(max_length=64, description="The shots of this job, instead of tenants.")] = None,
    since: Annotated[Moment, Query(description="For tenants: Unix seconds, or a time as RFC 3339 has it.")] = 0.0,
    until: Annotated[Moment | None, Query(description="Likewise; default now.")] = None,
) -> UsageList:
    """The ledger: GPU-seconds and money, useful and wasted seconds apart. Without `job` by tenant: one's own, and all
    for administrators."""
    if job is not None:
        find_job(services, caller, job)
        return UsageList(data=[Usage.model_validate(cost) for cost in services.ledger.by_job(job)])
    spent = services.ledger.by_tenant(since=since, until=services.clock() + 1 if until is None else until)
    return UsageList(
        data=[
            Usage(tenant=tenant, **vars(cost))
            for tenant, cost in spent.items()
            if caller.is_admin or tenant == caller.tenant
        ]
    )


@router.get("/metrics", summary="Metrics", response_class=Response, responses={200: METRICS})
def metrics(caller: Admin, services: TheServices) -> Response:
    """What the Director's exporter says."""
    return Response(services.live.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/healthz", summary="Does the Api work")
async def healthz() -> Health:
    """Whether this process answers; it asks nobody else."""
    return Health(status="ok")


@router.get("/readyz", summary="Can jobs be accepted", response_model=Health, responses={503: {"model": Health}})
def readyz(request: Request, services: TheServices) -> Response:
    """Whether the store and the artifacts can be reached; without the Director jobs are accepted all the same."""
    checks = {
        "store": _check(services.database.ping),
        "artifacts": _check(lambda: request.app.state.probe.exists("films/none/film.mp4")),
    }
    ready = all(result == "ok" for result in checks.values())
    return respond(Health(status="ok" if ready else "unavailable", checks=checks), 200 if ready else 503)


def _what_it_takes(model: str) -> dict[str, Any]:
    """Sizes and speed; null for a model that cannot be opened here."""
    try:
        capabilities = open_known_model(model).capabilities
    except ModelError as error:
        log.info("model %s cannot be described: %s", model, error, extra={"action": "describe_model"})
        return {**dict.fromkeys(_OF_CAPABILITIES), "pictures": [], "stitchings": []}
    taken = [name for name in _PICTURES if getattr(capabilities.pictures, name)]
    known = {name: getattr(capabilities, name) for name in _OF_CAPABILITIES}
    return {**known, "pictures": taken, "stitchings": stitchings_of(capabilities)}


def _check(look: Any) -> str:
    try:
        look()
    except Fault:
        return "unavailable"  # the reason may name hosts and paths; it is in the log
    return "ok"
