"""The Director as an actor, and how the farm comes to have exactly one, of the configuration that it should have."""

import asyncio
import hashlib
import json
import logging
import os
import socket
import time
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError

from cluster.contract.backoff import Backoff
from cluster.contract.pools_and_nodes import DrainRequest
from serving import settings
from serving.actors.hosts import HostActorPort
from serving.actors.named import APP, DIRECTOR, end_actor, ensure_actor
from serving.actors.nodes import RayNodes
from serving.actors.ports import DecoderActorPort, EncoderActorPort
from serving.config.farm import FarmConfig
from serving.director.director import Director
from serving.director.node_states import host_name
from serving.director.pools.gangs import Answer
from serving.director.timelines import describe_timeline
from serving.errors import Fault
from serving.jobs.lifecycle import Lifecycle
from serving.render.farm_messages import GangHello
from serving.store.artifacts import Artifacts
from serving.store.database import open_database
from serving.store.jobs import JobStore
from serving.store.keys import ApiKeys
from serving.telemetry.histograms import ApiReport
from serving.telemetry.logs import set_up_logs

log = logging.getLogger(__name__)

DIRECTOR_BACKOFF = Backoff.steady(1.0)
"""Between two tries to have a Director of the farm's present configuration."""

EXPORT_BACKOFF = Backoff.steady(2.0)
"""Between two tries of the Director to listen on its metrics port."""


def keep_director(config: dict[str, Any]) -> None:
    """Have a Director of this configuration, however long it takes; only who starts the farm's front says so.

    One of another configuration saves what is rendered, gives its jobs back and goes, with its timeline hosts.
    """
    for wait_s in DIRECTOR_BACKOFF.waits():
        try:
            _renew_director(config)
            return
        except (RayError, Fault) as error:
            log.warning("the Director is not there yet: %s", error, extra={"action": "renew"})
            time.sleep(wait_s)


def _renew_director(config: dict[str, Any]) -> None:
    """Raises RayError, Fault."""
    wanted = _digest(config)
    director = ensure_actor(DirectorActor, DIRECTOR, config)
    try:
        if ray.get(director.digest.remote(), timeout=settings.FARM_START_S) == wanted:
            return
        log.info("the farm has another configuration; its Director goes", extra={"action": "renew"})
        hosts = ray.get(director.host_names.remote(), timeout=settings.FARM_DRAIN_S)
        ray.get(director.stop.remote(), timeout=settings.FARM_DRAIN_S)
    except RayError as error:  # it died, or hangs: what it has not saved is rendered again
        log.warning("the Director went in disorder: %s", error, extra={"action": "renew"})
        hosts = []
    for name in (*hosts, DIRECTOR):
        end_actor(name)
    ensure_actor(DirectorActor, DIRECTOR, config)


def _digest(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


class DirectorActor:
    """A Director in a process of its own. It begins to work with the first message it gets."""

    def __init__(self, config: dict[str, Any]) -> None:
        set_up_logs()
        self._raw = config
        self._config = FarmConfig.model_validate(config)
        self._director: Director | None = None
        self._running: asyncio.Task[None] | None = None

    async def digest(self) -> str:
        """Of its configuration."""
        return _digest(self._raw)

    async def host_names(self) -> list[str]:
        """Actors that it has started."""
        return [host_name(index) for index in range(self._config.timeline_hosts)]

    async def hello(self, hello: GangHello, handle: list[Any]) -> Answer:
        """A gang is there, or still there. `handle` is in a list, so that it arrives as it is."""
        director = self._begin()
        return "go_on" if director is None else director.hello(hello, handle[0])

    async def gang_unfit(self, pool: str, leader: str, problem: str) -> None:
        """A gang cannot be formed because its model's files are unfit; `problem` says in a line what is wrong."""
        director = self._begin()
        if director is not None:
            director.gang_unfit(pool, leader, problem)

    async def poke(self) -> None:
        """Look into the store now."""
        director = self._begin()
        if director is not None:
            director.poke()

    async def explain(self, job_id: str) -> dict[str, Any] | None:
        director = self._begin()
        return None if director is None else director.explain(job_id)

    async def timeline(self, job_id: str) -> list[dict[str, Any]] | None:
        director = self._begin()
        run = None if director is None else director.runs.get(job_id)
        return None if run is None or director is None else describe_timeline(run, director.state)

    async def pools(self) -> list[dict[str, Any]]:
        director = self._begin()
        return [] if director is None else director.pools()

    async def scaling_inputs(self, pool: str, standing: dict[str, Any]) -> dict[str, Any] | None:
        """To a pool's scaling: what to decide by; None while there is no Director. See FarmDemand.answer."""
        director = self._begin()
        return None if director is None else director.demand.answer(pool, standing, time.time())

    async def nodes(self) -> list[dict[str, Any]]:
        return [node.model_dump(mode="json") for node in await self._there().nodes()]

    async def drain(self, node_id: str, request: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Raises UserError, Fault."""
        node, changed = await self._there().drain(node_id, DrainRequest.model_validate(request))
        return node.model_dump(mode="json"), changed

    async def metrics(self) -> bytes:
        director = self._begin()
        return b"" if director is None else director.metrics.text()

    async def hear_api(self, report: ApiReport) -> None:
        """Raises Fault before there is a Director to hear it."""
        self._there().hear_api(report)

    async def stop(self) -> None:
        """Checkpoint, give the jobs back, and do nothing more."""
        if self._director is not None:
            await self._director.stop()

    def _there(self) -> Director:
        director = self._begin()
        if director is None:
            raise Fault("the Director has not begun yet")
        return director

    def _begin(self) -> Director | None:
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(self._work())
        return self._director

    async def _work(self) -> None:
        try:
            if self._director is None:
                self._director = await self._build_patiently()
            exporting = asyncio.ensure_future(_export(self._director, self._config))
            try:
                await self._director.run()
            finally:
                exporting.cancel()
        except Exception:
            log.exception("the Director stopped", extra={"action": "stopped"})
            os._exit(1)  # Ray starts it again, and it goes on from the store

    async def _build_patiently(self) -> Director:
        for wait_s in Backoff.steady(self._config.poll_s).waits():
            try:
                return await asyncio.to_thread(self._build)
            except Fault as error:
                log.warning("the Director cannot begin: %s", error, extra={"action": "begin"})
                await asyncio.sleep(wait_s)
        raise AssertionError("a backoff has no last wait")

    def _build(self) -> Director:
        database = open_database(self._config.store_url)
        encoder = serve.get_deployment_handle("Encoder", APP)
        return Director(
            self._config,
            owner=f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}",
            jobs=JobStore(database),
            lifecycle=Lifecycle(database),
            tenants=ApiKeys(database),
            database=database,
            artifacts=Artifacts.open(self._config.artifacts_url),
            hosts=[HostActorPort(self._raw, index) for index in range(self._config.timeline_hosts)],
            encoder=EncoderActorPort(encoder),
            decoder=DecoderActorPort(),
            nodes=RayNodes(),
            clock=time.time,
        )


async def _export(director: Director, config: FarmConfig) -> None:
    """Serve the metrics on their port, as soon as a Director that this one replaces has let it go."""
    from prometheus_client import start_http_server

    for wait_s in EXPORT_BACKOFF.waits() if config.exporter_port else ():
        try:
            start_http_server(config.exporter_port, addr=config.metrics_host, registry=director.metrics.registry)
            return
        except OSError as error:
            log.warning("metrics are not exported yet: %s", error, extra={"action": "export"})
            await asyncio.sleep(wait_s)
