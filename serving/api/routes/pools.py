"""Pools: how many gangs each has and why, and the terms that may be changed while the farm runs."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from cluster.contract.pools_and_nodes import PoolTerms
from serving.api.caller import ADMIN_TENANT, Admin, AnyCaller
from serving.api.errors import ApiError
from serving.api.services import Services, ThePoker, TheServices
from serving.api.wire.answers import Pool, PoolList
from serving.api.wire.openapi import failures
from serving.api.wire.requests import NewTerms
from serving.config.farm import PoolConfig
from serving.config.pool_terms import TERMS, read_terms
from serving.documents.places import find_nearest
from serving.errors import Fault, Problem, WrongState
from serving.store.audit import AuditEntry

router = APIRouter(tags=["farm"])

_LIFTED = ("demand", "supply", "decision")
"""What the Director says of a pool that stands beside its configuration."""


@router.get("/v1/pools", summary="Pools", response_model=PoolList)
def pools(caller: AnyCaller, services: TheServices) -> JSONResponse:
    """The pools as configured, and as they are now where the Director can be reached."""
    return JSONResponse({"object": "list", "data": _list_pools(services)})


@router.put("/v1/pools/{name}/terms", summary="Set a pool's terms", response_model=Pool, responses=failures(404, 409))
def put_terms(name: str, body: NewTerms, caller: Admin, services: TheServices, poker: ThePoker) -> JSONResponse:
    """Replaces what a pool may be: its fewest and most gangs, who decides between them, and whether spot nodes will do.
    They hold until they are set again, and come before the farm's configuration. A pool of a fixed size has none to
    set."""
    pool = _find_pool(services, name)
    terms, now = PoolTerms(**body.model_dump()), services.clock()
    before = read_terms(services.config, services.jobs.recall_all(TERMS))[name]
    if pool.scaling is None and terms != before:
        raise WrongState(
            f"pool {name} has a fixed number of gangs; give it a `scaling` part in farm.yaml to change that"
        )
    if pool.scaling is not None and terms != before:
        services.jobs.learn(TERMS, name, terms.model_dump(mode="json"), now=now)
        detail = terms.model_dump_json()
        services.audit.add(AuditEntry(now, ADMIN_TENANT, caller.actor, "set_terms", name, detail=detail))
        poker.poke()
    return JSONResponse(next(found for found in _list_pools(services) if found["name"] == name))


def _list_pools(services: Services) -> list[dict[str, Any]]:
    terms = read_terms(services.config, services.jobs.recall_all(TERMS))
    try:
        live = {pool["name"]: pool for pool in services.live.pools()}
    except Fault:
        live = {}
    return [_pool_json(pool, terms[pool.name], live.get(pool.name)) for pool in services.config.pools]


def _pool_json(pool: PoolConfig, terms: PoolTerms, live: dict[str, Any] | None) -> dict[str, Any]:
    said = {name: live.get(name) if live else None for name in _LIFTED}
    return {
        "name": pool.name,
        "model": pool.model,
        "gang_shape": pool.gang_shape,
        "min_gangs": terms.min_gangs,
        "max_gangs": terms.max_gangs,
        "gpus_per_rank": pool.gpus_per_rank,
        "price_per_gpu_second": pool.price_per_gpu_second,
        "is_scaled": pool.scaling is not None,
        "terms": terms.model_dump(mode="json"),
        "spot_applied": pool.spot,
        **said,
        "live": None if live is None else {key: value for key, value in live.items() if key not in _LIFTED},
    }


def _find_pool(services: Services, name: str) -> PoolConfig:
    pool = services.config.pool(name)
    if pool is not None:
        return pool
    names = [known.name for known in services.config.pools]
    message = f"there is no such pool; the farm has {', '.join(names)}"
    problem = Problem("name", message, value=name, nearest=find_nearest(name, names))
    raise ApiError(404, str(problem), code="not_found", problems=[problem])
