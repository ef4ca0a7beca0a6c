"""The farm as one Ray Serve application; the composition root.

    Api (HTTP)  ->  store  <-  Director  ->  timeline hosts  <->  Renderer gangs
                                   |               |
                                Encoder         Decoder

`build` takes a FarmConfig as JSON and gives all of it, `deploy` the same from a farm.yaml. A RayService that the chart
makes has `build_front`, and `build_pool` for each pool: the same parts as several applications.
"""

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

from serving import settings
from serving.actors.director import keep_director
from serving.actors.gangs import Renderer
from serving.actors.pool_policy import PoolPolicy
from serving.actors.ports import LiveDirector, warm_up
from serving.actors.replicas import set_up_replica
from serving.actors.workers import Decoder, Encoder
from serving.config.farm import FarmConfig, PoolConfig, load_config
from serving.config.gang_shapes import settle_shapes
from serving.config.pool_terms import TERMS, with_stored_spot
from serving.documents.places import find_nearest
from serving.errors import Problem, StoreUnavailable, UserError
from serving.store.database import open_database
from serving.store.jobs import JobStore

log = logging.getLogger(__name__)


def build(args: dict[str, Any]) -> Application:
    """A whole farm as one application. `args` is FarmConfig.as_json(), or what farm.yaml may hold.

    Raises UserError if a shape that is `auto` cannot be chosen.
    """
    config = settle_shapes(FarmConfig.model_validate(args))
    return _front(config, [_renderer(pool) for pool in config.pools])


def build_front(args: dict[str, Any]) -> Application:
    """A farm but for its gangs, which build_pool gives, each pool as an application of its own.

    Serve replaces all of an application whose arguments change, and a gang must not go because a limit has changed.
    `args` and errors are those of `build`.
    """
    return _front(settle_shapes(FarmConfig.model_validate(args)), [])


def build_pool(args: dict[str, Any]) -> Application:
    """The gangs of one pool.

    `args` are the keys of a pool in farm.yaml that its gangs depend on, and `scaling: {}` where their number follows
    the backlog; by what targets, the Director says. Raises UserError as `build` does.
    """
    (pool,) = settle_shapes(FarmConfig(pools=(PoolConfig.model_validate(args),))).pools
    return _renderer(pool)


def _front(config: FarmConfig, gangs: Sequence[Application]) -> Application:
    args = config.as_json()
    parts = [
        _bind(Encoder, _light(1), args),
        _bind(Decoder, _light(config.decoders) | {"request_router_config": STICKY}, args),
        *gangs,
    ]

    def build_api() -> Any:  # a plain function: Serve takes any other callable for the ASGI application itself
        return _build_api(args)

    ingress = serve.ingress(build_api)(Api)
    return _bind(ingress, _light(1) | {"name": "Api", "max_ongoing_requests": API_REQUESTS}, *parts)


def deploy(args: dict[str, Any]) -> Application:
    """The application of a farm from its file, for a RayService: args are `config`, the path of farm.yaml, and perhaps
    `revision`, any text; a new one has Serve read a file again that has changed. The variables of farm.yaml count, and
    what the terms in the store say of spot nodes comes into force. Raises UserError."""
    config = load_config(_config_path(args), os.environ)
    return build(with_stored_spot(config, _stored_terms(config)).as_json())


def _config_path(args: Mapping[str, Any]) -> Path:
    """Raises UserError."""
    known = ("config", "revision")
    for name in args.keys() - set(known):
        nearest = find_nearest(name, known)
        raise UserError(str(Problem(f"args.{name}", f"is not known; known are {', '.join(known)}", nearest=nearest)))
    path = args.get("config")
    if not isinstance(path, str) or not path:
        raise UserError(f"args.config: must be the path of farm.yaml (got {path!r})")
    return Path(path)


def _stored_terms(config: FarmConfig) -> Mapping[str, Any]:
    """Nothing if the store does not answer: a farm must not fail to start for its sake."""
    try:
        database = open_database(config.store_url)
    except StoreUnavailable as error:
        log.warning("the terms of pools are not known: %s", error, extra={"action": "deploy"})
        return {}
    try:
        return JobStore(database).recall_all(TERMS)
    finally:
        database.close()


API_REQUESTS = 200
"""Requests, event streams among them, that the API has open at once."""


def _bind(part: Any, options: dict[str, Any], *arguments: Any) -> Application:
    deployment: Any = serve.deployment(part)
    application: Application = deployment.options(**options).bind(*arguments)
    return application


def _light(replicas: int) -> dict[str, Any]:
    """Options of a deployment that takes no gang's place, and stands on no node that comes and goes with gangs."""
    return {
        "num_replicas": replicas,
        "ray_actor_options": {"num_cpus": 0, "resources": {settings.CONTROL_RESOURCE: CONTROL_SHARE}},
        "max_ongoing_requests": 16,
        "health_check_period_s": 2,
        "graceful_shutdown_timeout_s": 5,
        "graceful_shutdown_wait_loop_s": 0.2,
    }


def _renderer(pool: PoolConfig) -> Application:
    options = (
        _light(pool.start_gangs)
        | _scaled(pool)
        | {
            "name": f"Renderer-{pool.name}",
            "placement_group_bundles": [{"CPU": LEADER_CPU}, *pool.rank_bundles],
            "placement_group_strategy": "STRICT_PACK" if pool.fits_a_node else "PACK",
            "ray_actor_options": {"num_cpus": LEADER_CPU},
            "graceful_shutdown_timeout_s": pool.drain_s,
        }
    )
    if pool.node_selector:
        selectors = [pool.node_selector] * len(options["placement_group_bundles"])
        options["placement_group_bundle_label_selector"] = selectors
    return _bind(Renderer, options, pool.for_gangs())


def _scaled(pool: PoolConfig) -> dict[str, Any]:
    """Options by which the number of gangs follows the backlog; nothing for a pool of a fixed size. The bounds are wide
    and nothing is delayed here, for the planner sees to both; and there is no initial number, so that a new deployment
    keeps the gangs that are there."""
    if pool.scaling is None:
        return {}
    policy: Any = AutoscalingPolicy  # its constructor has no types
    autoscaling = AutoscalingConfig(
        min_replicas=0,
        max_replicas=settings.MAX_POOL_GANGS,
        upscale_delay_s=0,
        downscale_delay_s=0,
        downscale_to_zero_delay_s=0,
        policy=policy(policy_function=PoolPolicy, policy_kwargs={"pool": pool.name}),
    )
    return {"num_replicas": None, "autoscaling_config": autoscaling}


_ROUTER: Any = ConsistentHashRouter  # pydantic turns it into a name; the type of the field is that of the result
STICKY = RequestRouterConfig(request_router_class=_ROUTER, request_router_kwargs={"num_fallback_replicas": 0})
"""A take is decoded in order, so all its latents must go to one decoder."""

CONTROL_SHARE = 0.001
"""Of CONTROL_RESOURCE, that a replica takes which is no gang: so it only says where they may stand."""

LEADER_CPU = 0.01
"""Of a core, that a gang's leader takes: it only waits."""


def _build_api(args: dict[str, Any]) -> Any:
    """The API's routes over the real store and the running Director; called in the replica."""
    from serving.api.app import create_api
    from serving.api.services import open_services

    threading.Thread(target=_start_the_rest, args=(args,), daemon=True).start()  # jobs are accepted without it
    return create_api(open_services(FarmConfig.model_validate(args), LiveDirector()))


def _start_the_rest(args: dict[str, Any]) -> None:
    keep_director(args)
    warm_up()


class Api:
    """The HTTP ingress. Holds the other parts, so that they belong to the application."""

    def __init__(self, *parts: Any) -> None:
        set_up_replica()
        self._parts = parts
