"""Puts the API together: routes, gate, errors, the OpenAPI document. No Ray here; a Serve deployment wraps the
result."""

import contextlib
import functools
import importlib.metadata
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams

from serving.api import errors
from serving.api.caller import ADMIN_TENANT, Caller
from serving.api.feed import Feed
from serving.api.gate import Gate
from serving.api.latency import Latencies, Stopwatch, report_forever
from serving.api.links import Links
from serving.api.routes import (
    access,
    assets,
    checks,
    events,
    farm,
    files,
    jobs,
    links,
    logs,
    nodes,
    pools,
    studio,
    timelines,
    versions,
    videos,
)
from serving.api.services import Poker, Services
from serving.api.webhooks import WebhookSender, send_forever
from serving.api.wire import openapi
from serving.store.artifacts import Artifacts
from serving.store.keys import ApiKey, ApiKeys, TenantSettings

log = logging.getLogger(__name__)

API_REPORT_S = 2.0
"""Seconds between two times that a process of the Api tells the Director how fast it answers."""

READY_S = 2.0
"""Seconds for which /readyz tries the artifact store again."""

TENANT_CACHE_S = 5.0
"""Seconds after which an Api process sees that the limits of tenants were changed."""

WEBHOOK_EVERY_S = 1.0
"""Seconds between two looks for webhooks that are due."""


def create_api(services: Services) -> FastAPI:
    """The application that answers HTTP. It also delivers webhooks, and tells the Director how it does."""
    app = _make_app()
    app.state.services = services
    app.state.latencies = Latencies(clock=services.clock)
    app.state.feed = Feed(services.jobs, poll_s=services.config.poll_s, event_sent=app.state.latencies.event_sent)
    app.state.poker = Poker(services.live)
    app.state.probe = Artifacts.open(services.artifacts.url, patience_s=READY_S)
    identify = Identifier(services.keys, clock=services.clock)
    app.add_middleware(Gate, config=services.config, identify=identify, clock=time.monotonic)
    app.add_middleware(Stopwatch, latencies=app.state.latencies)  # around the gate
    if not services.config.needs_keys:
        log.warning("no API keys are asked for: whoever reaches this address may do everything", extra={"action": "up"})
    return app


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document, the same for every farm of this release."""
    return openapi.describe(_make_app())


def _make_app() -> FastAPI:
    """The routes and how they fail, without what they work with."""
    app = FastAPI(
        title="Longtake",
        version=importlib.metadata.version("longtake"),
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        responses=openapi.EVERYWHERE,
        lifespan=_live,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    parts = (
        *(jobs, versions, checks, timelines, events, logs, files, links, assets, videos),
        *(farm, pools, nodes, access, studio),
    )
    for part in parts:
        app.include_router(part.router)
    errors.install(app, [route for part in parts for route in part.router.routes if isinstance(route, APIRoute)])
    app.openapi = functools.cache(functools.partial(openapi.describe, app))  # type: ignore[method-assign]
    return app


class Identifier:
    """Whose a key is, or the key that signed a link. The key is looked up each time, so that a revoked one ends at
    once; limits may be a little old."""

    def __init__(self, keys: ApiKeys, *, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._links = Links(keys, clock)
        self._clock = clock
        self._tenants: dict[str, TenantSettings] = {}
        self._read_at = float("-inf")

    def by_key(self, secret: str) -> Caller | None:
        """Whose a key is; None if it is nobody's."""
        key = self._keys.find(secret)
        return None if key is None else self._caller(key)

    def by_link(self, method: str, path: str, query: QueryParams) -> Caller | None:
        """Whose key signed the link by which a request comes; None if nobody's did. Raises ApiError 403."""
        key = self._links.find_signer(method, path, query)
        return None if key is None else self._caller(key)

    def _caller(self, key: ApiKey) -> Caller:
        if not 0 <= self._clock() - self._read_at < TENANT_CACHE_S:
            self._read_at = self._clock()
            self._tenants = self._keys.tenants()
        settings = self._tenants.get(key.tenant)
        limit = settings.requests_per_minute if settings else None
        return Caller(key.tenant, key.actor, key.tenant == ADMIN_TENANT, limit, key.id)


@contextlib.asynccontextmanager
async def _live(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    sender = WebhookSender(services.webhooks, allow_private=services.config.webhooks_allow_private)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: report_forever(app.state.latencies, services.live, every_s=API_REPORT_S))
        tasks.start_soon(lambda: send_forever(sender, clock=services.clock, every_s=WEBHOOK_EVERY_S))
        yield
        tasks.cancel_scope.cancel()
    await app.state.feed.close()
    app.state.poker.close()
