"""The farm's named actors: the Director and the timeline hosts, and how everyone else reaches them, gangs and decoders.

Only here, in app.py and where a gang is started does anything know of Ray. An actor wraps a plain class; a port turns
Ray's errors into ours.
"""

import asyncio
import hashlib
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError

from cluster.contract.pools_and_nodes import DrainRequest
from serving import settings
from serving.config.farm import FarmConfig
from serving.director.director import Director
from serving.director.gangs import Answer
from serving.director.node_states import host_name
from serving.director.ports import HostLost
from serving.director.timelines import describe_timeline
from serving.errors import Fault, LongtakeError, StoreUnavailable
from serving.jobs.lifecycle import Lifecycle
from serving.ray_nodes import RayNodes
from serving.render.farm_messages import Assembled, AssembleOrder, CallReport, Decoded, DecodeOrder, GangHello, TakeId
from serving.render.host import GangDied, TimelineHost
from serving.render.messages import Array, CallInput, CallOutput
from serving.render.rank import GangBroken
from serving.store.artifacts import Artifacts
from serving.store.database import open_database
from serving.store.jobs import JobStore
from serving.store.keys import ApiKeys
from serving.telemetry.histograms import ApiReport
from serving.telemetry.logs import set_up_logs

NAMESPACE = "longtake"
APP = "longtake"
DIRECTOR = "director"
ENDED_POLL_S = 0.05
"""Seconds between two looks at whether an actor has ended."""

_SHARE = 0.001
"""Of CONTROL_RESOURCE, that one of them takes."""

log = logging.getLogger(__name__)


def find_director() -> Any | None:
    """The Director's handle; None while there is none."""
    try:
        return ray.get_actor(DIRECTOR, namespace=NAMESPACE)
    except ValueError:
        return None


def keep_director(config: dict[str, Any]) -> None:
    """Have a Director of this configuration, however long it takes; only who starts the farm's front says so.

    One of another configuration saves what is rendered, gives its jobs back and goes, with its timeline hosts.
    """
    while True:
        try:
            return _renew_director(config)
        except (RayError, Fault) as error:
            log.warning("the Director is not there yet: %s", error, extra={"action": "renew"})
            time.sleep(settings.DIRECTOR_RETRY_S)


def _renew_director(config: dict[str, Any]) -> None:
    """Raises RayError, Fault."""
    wanted = _digest(config)
    director = _ensure(DirectorActor, DIRECTOR, config)
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
        _end(name)
    _ensure(DirectorActor, DIRECTOR, config)


def _end(name: str) -> None:
    """End a named actor for good, and wait until its name is free. Raises Fault."""
    until = time.monotonic() + settings.KILLED_S
    while True:
        try:
            ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)
        except ValueError:
            return
        if time.monotonic() > until:
            raise Fault(f"the actor {name} does not end")
        time.sleep(ENDED_POLL_S)


def _digest(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _ensure_host(config: dict[str, Any], index: int) -> Any:
    return _ensure(TimelineHostActor, host_name(index), config)


def _ensure(actor: type, name: str, config: dict[str, Any]) -> Any:
    return (
        ray.remote(actor)
        .options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=1000,
            num_cpus=0,
            resources={settings.CONTROL_RESOURCE: _SHARE},
        )
        .remote(config)
    )


# ---------------------------------------------------------------------------------------------- actors


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

    async def outlook(self, pool: str, standing: dict[str, Any]) -> dict[str, Any] | None:
        """To a pool's scaling: what to decide by; None while there is no Director. See FarmOutlook.answer."""
        director = self._begin()
        return None if director is None else director.outlook.answer(pool, standing, time.time())

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
            while self._director is None:
                try:
                    self._director = await asyncio.to_thread(self._build)
                except (StoreUnavailable, Fault) as error:
                    log.warning("the Director cannot begin: %s", error, extra={"action": "begin"})
                    await asyncio.sleep(self._config.poll_s)
            exporting = asyncio.ensure_future(_export(self._director, self._config))
            try:
                await self._director.run()
            finally:
                exporting.cancel()
        except Exception:
            log.exception("the Director stopped", extra={"action": "stopped"})
            os._exit(1)  # Ray starts it again, and it goes on from the store

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

    while config.exporter_port:
        try:
            start_http_server(config.exporter_port, addr=config.host, registry=director.metrics.registry)
            return
        except OSError as error:
            log.warning("metrics are not exported yet: %s", error, extra={"action": "export"})
            await asyncio.sleep(settings.EXPORT_RETRY_S)


class TimelineHostActor(TimelineHost):
    """A timeline host in a process of its own."""

    def __init__(self, config: dict[str, Any]) -> None:
        set_up_logs()
        farm = FarmConfig.model_validate(config)
        super().__init__(
            Artifacts.open(farm.artifacts_url),
            DecoderActorPort(),
            checkpoint_every_s=farm.checkpoint_every_s,
            checkpoint_every_steps=farm.checkpoint_every_steps,
        )

    async def where(self) -> str:
        """Ray's id of the node that it is on."""
        return str(ray.get_runtime_context().get_node_id())

    async def run_call(  # the handle of a gang's actor becomes a gang
        self, take_id: TakeId, token: int, *, step: int, chunk: int, gang: str, handle: Any, timeout_s: float
    ) -> CallReport:
        port = None if handle is None else GangActorPort(handle)
        return await super().run_call(
            take_id, token, step=step, chunk=chunk, gang=gang, handle=port, timeout_s=timeout_s
        )


# ---------------------------------------------------------------------------------------------- ports


class HostActorPort:
    """A timeline host as the Director calls it."""

    def __init__(self, config: dict[str, Any], index: int) -> None:
        self._handle = _ensure_host(config, index)

    async def restart(self) -> None:
        """End the process; Ray starts it again, on a node that stays."""
        ray.kill(self._handle, no_restart=False)

    def __getattr__(self, method: str) -> Any:
        async def call(*arguments: Any, **named: Any) -> Any:
            try:
                return await getattr(self._handle, method).remote(*arguments, **named)
            except RayActorError as error:
                raise HostLost(str(error).splitlines()[0]) from error

        return call


class GangActorPort:
    """A gang as a timeline host calls it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def keep_prompts(self, key: str, embeddings: Mapping[str, Array]) -> None:
        await self._call("keep_prompts", key, dict(embeddings))

    async def predict(self, call: CallInput, prompts_key: str) -> CallOutput:
        output: CallOutput = await self._call("predict", call, prompts_key)
        return output

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self._handle, method).remote(*arguments)
        except (RayActorError, GangBroken) as error:
            raise GangDied(str(error).splitlines()[0]) from error


class DecoderActorPort:
    """The decoders as hosts and the Director call them."""

    def __init__(self) -> None:
        self._handle: Any = None

    async def decode(self, order: DecodeOrder, start: int, latents_nChw: Array) -> Decoded:
        decoded: Decoded = await self._call(order.content_key, "decode", order, start, latents_nChw)
        return decoded

    async def decode_stored(self, order: DecodeOrder) -> Decoded:
        decoded: Decoded = await self._call(order.content_key, "decode_stored", order)
        return decoded

    async def forget(self, content_key: str) -> None:
        await self._call(content_key, "forget", content_key)

    async def assemble(self, order: AssembleOrder) -> Assembled:
        film: Assembled = await self._call(order.job_id, "assemble", order)
        return film

    async def _call(self, session: str, method: str, *arguments: Any) -> Any:
        """Ask the decoder of this session: the same one each time, for as long as it lives."""
        if self._handle is None:
            self._handle = serve.get_deployment_handle("Decoder", APP)
        answer = getattr(self._handle.options(session_id=session), method).remote(*arguments)
        return await asyncio.wait_for(answer, settings.DECODE_TIMEOUT_S)


class EncoderActorPort:
    """The text encoder as the Director calls it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def encode(self, model: str, weights: str, texts: Sequence[str]) -> None:
        await asyncio.wait_for(self._handle.encode.remote(model, weights, list(texts)), settings.DECODE_TIMEOUT_S)


class LiveDirector:
    """The running Director as the API calls it, from threads. Every method raises Fault where it does not answer."""

    def poke(self) -> None:
        self._ask("poke")

    def explain(self, job_id: str) -> dict[str, Any] | None:
        said: dict[str, Any] | None = self._ask("explain", job_id)
        return said

    def timeline(self, job_id: str) -> list[dict[str, Any]] | None:
        takes: list[dict[str, Any]] | None = self._ask("timeline", job_id, within_s=settings.DIRECTOR_LOOK_S)
        return takes

    def metrics(self) -> bytes:
        text: bytes = self._ask("metrics")
        return text

    def hear_api(self, report: ApiReport) -> None:
        self._ask("hear_api", report)

    def pools(self) -> list[dict[str, Any]]:
        pools: list[dict[str, Any]] = self._ask("pools")
        return pools

    def nodes(self) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = self._ask("nodes")
        return nodes

    def drain(self, node_id: str, request: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Raises UserError too."""
        drained: tuple[dict[str, Any], bool] = self._ask("drain", node_id, request)
        return drained

    def _ask(self, method: str, *arguments: Any, within_s: float = settings.DIRECTOR_CALL_S) -> Any:
        try:
            handle = find_director()
            if handle is None:
                raise Fault("there is no Director")
            return ray.get(getattr(handle, method).remote(*arguments), timeout=within_s)
        except RayTaskError as error:
            if isinstance(error.cause, LongtakeError):
                raise error.cause from None
            raise Fault("the Director failed") from error
        except (RayError, ValueError) as error:
            raise Fault("the Director is not reachable") from error


def scratch_of(config: FarmConfig, role: str) -> Path:
    """A folder of this process for work in progress. What processes of the same role left that are gone is removed."""
    for left in Path(config.scratch).glob(f"{role}-*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(config.scratch) / f"{role}-{os.getpid()}"
