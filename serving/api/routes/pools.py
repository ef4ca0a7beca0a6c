"""Pools: how many gangs each has and why, and the terms that may be changed while the farm runs."""

from fastapi import APIRouter

from cluster.contract.pools_and_nodes import PoolTerms
from serving.api.caller import ADMIN_TENANT, Admin, AnyCaller, Caller
from serving.api.errors import ApiError
from serving.api.services import Services, ThePoker, TheServices
from serving.api.wire.farm import Pool, PoolList
from serving.api.wire.openapi import failures
from serving.api.wire.reading import StrictRoute
from serving.api.wire.requests import NewTerms
from serving.config.farm import PoolConfig
from serving.config.pool_terms import TERMS, read_terms
from serving.documents.places import find_nearest
from serving.errors import Fault, Problem, WrongState
from serving.store.audit import AuditEntry

router = APIRouter(tags=["farm"], route_class=StrictRoute)


@router.get("/v1/pools", summary="Pools")
def pools(caller: AnyCaller, services: TheServices) -> PoolList:
    """The pools as configured, and as they are now if the Director can be reached."""
    return PoolList(data=_list_pools(services, caller))


@router.put("/v1/pools/{name}/terms", summary="Set a pool's terms", responses=failures(404, 409))
def put_terms(name: str, body: NewTerms, caller: Admin, services: TheServices, poker: ThePoker) -> Pool:
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
    return next(found for found in _list_pools(services, caller) if found.name == name)


def _list_pools(services: Services, caller: Caller) -> list[Pool]:
    terms = read_terms(services.config, services.jobs.recall_all(TERMS))
    try:
        live = {pool["name"]: pool for pool in services.live.pools()}
    except Fault:
        live = {}
    return [
        Pool.of(pool, terms[pool.name], live.get(pool.name), is_admin=caller.is_admin) for pool in services.config.pools
    ]


def _find_pool(services: Services, name: str) -> PoolConfig:
    pool = services.config.pool(name)
    if pool is not None:
        return pool
    names = [known.name for known in services.config.pools]
    message = f"there is no such pool; the farm has {', '.join(names)}"
    problem = Problem("name", message, value=name, nearest=find_nearest(name, names))
    raise ApiError(404, str(problem), code="not_found", problems=[problem])
