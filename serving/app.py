"""The farm as one Ray Serve application; the composition root.

    Api (HTTP)  ->  store  <-  Director  ->  timeline hosts  <->  Renderer gangs
                                   |               |
                                Encoder         Decoder

`serving.app:build` takes a FarmConfig as JSON; `longtake up` and a RayService start the same thing.
"""

import asyncio
import contextlib
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

from serving import settings
from serving.control import LiveDirector, ensure_director, scratch_of, set_up_logs
from serving.errors import ArtifactsUnavailable
from serving.farm_config import FarmConfig, PoolConfig
from serving.gang_actors import Renderer
from serving.render.messages import Array
from serving.render.orders import AssembleOrder, Decoded, DecodeOrder
from serving.store.artifacts import Artifacts
from serving.store.names import frames_artifact


def build(args: dict[str, Any]) -> Application:
    """The application of a farm. `args` is FarmConfig.as_json()."""
    config = FarmConfig.model_validate(args)
    parts = [
        _bind(Encoder, _light(1), args),
        _bind(Decoder, _light(config.decoders) | {"request_router_config": STICKY}, args),
        *(_renderer(pool, args) for pool in config.pools),
    ]

    def build_api() -> Any:  # a plain function: Serve takes any other callable for the ASGI application itself
        return _build_api(args)

    ingress = serve.ingress(build_api)(Api)
    return _bind(ingress, _light(1) | {"name": "Api", "max_ongoing_requests": API_REQUESTS}, *parts)


API_REQUESTS = 200
"""Requests, event streams among them, that the API has open at once."""


def _bind(part: Any, options: dict[str, Any], *arguments: Any) -> Application:
    deployment: Any = serve.deployment(part)
    application: Application = deployment.options(**options).bind(*arguments)
    return application


def _light(replicas: int) -> dict[str, Any]:
    """Options of a deployment that takes no gang's place."""
    return {
        "num_replicas": replicas,
        "ray_actor_options": {"num_cpus": 0},
        "max_ongoing_requests": 16,
        "health_check_period_s": 2,
        "graceful_shutdown_timeout_s": 5,
        "graceful_shutdown_wait_loop_s": 0.2,
    }


def _renderer(pool: PoolConfig, args: dict[str, Any]) -> Application:
    options = _light(pool.start_gangs) | {
        "name": f"Renderer-{pool.name}",
        "placement_group_bundles": [{"CPU": LEADER_CPU}, *pool.rank_bundles],
        "placement_group_strategy": "STRICT_PACK" if pool.fits_a_node else "PACK",
        "ray_actor_options": {"num_cpus": LEADER_CPU},
        "graceful_shutdown_timeout_s": settings.DRAIN_S,
    }
    return _bind(Renderer, options, pool.model_dump(mode="json"), args)


_ROUTER: Any = ConsistentHashRouter  # pydantic turns it into a name; the type of the field is that of the result
STICKY = RequestRouterConfig(request_router_class=_ROUTER, request_router_kwargs={"num_fallback_replicas": 0})
"""A take is decoded in order, so all its latents must go to one decoder."""

LEADER_CPU = 0.01
"""Of a core, that a gang's leader takes: it only waits."""


def _build_api(args: dict[str, Any]) -> Any:
    """The API's routes over the real store and the running Director; called in the replica."""
    from serving.api.app import create_api
    from serving.api.services import open_services

    ensure_director(args)
    return create_api(open_services(FarmConfig.model_validate(args), LiveDirector(args)))


class Api:
    """The HTTP ingress. Holds the other parts, so that they belong to the application."""

    def __init__(self, *parts: Any) -> None:
        set_up_logs()
        self._parts = parts


class Encoder:
    """Turns prompts into embeddings, once each, and keeps them among the artifacts."""

    def __init__(self, args: dict[str, Any]) -> None:
        set_up_logs()
        self._artifacts = Artifacts.open(FarmConfig.model_validate(args).artifacts_url)
        self._thread = ThreadPoolExecutor(max_workers=1)  # models must not be loaded in two threads at once

    async def encode(self, model: str, weights: str, texts: list[str]) -> None:
        """Keep the embedding of each text. Raises ModelError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, model, weights, texts)

    def _encode(self, model: str, weights: str, texts: list[str]) -> None:
        from serving.models.registry import open_model
        from serving.render.gang import one_thread
        from serving.store.latents import write_prompt
        from serving.store.names import prompt_artifact

        with one_thread():
            for text, embedding in zip(texts, open_model(model).encode_prompts(texts), strict=True):
                write_prompt(self._artifacts, prompt_artifact(weights, text), embedding.numpy())


class Decoder:
    """Decodes finished latents and assembles films, on one thread."""

    def __init__(self, args: dict[str, Any]) -> None:
        from serving.render.take_decoder import TakeDecoder

        set_up_logs()
        config = FarmConfig.model_validate(args)
        self._artifacts = Artifacts.open(config.artifacts_url)
        self._scratch = scratch_of(config, "decoder")
        # As many as hosts hold takes, for chance may send all to one decoder; and one that was held no longer.
        sessions = config.timeline_hosts * config.takes_per_host + 1
        self._decoder = TakeDecoder(self._artifacts, self._scratch, sessions=sessions)
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._pruned_at = time.monotonic()
        self._pruning: asyncio.Task[None] | None = None

    async def check_health(self) -> None:
        """Called by Serve again and again; it does not wait for what is being decoded."""
        idle = self._pruning is None or self._pruning.done()
        if idle and time.monotonic() - self._pruned_at >= settings.DECODE_PRUNE_S:
            self._pruned_at = time.monotonic()
            self._pruning = asyncio.ensure_future(self._prune())

    async def _prune(self) -> None:
        """End the sessions of takes that were decoded elsewhere. A slow store is asked off the decoding thread."""
        with contextlib.suppress(ArtifactsUnavailable):
            for key in await self._run(self._decoder.idle):
                if await asyncio.to_thread(self._artifacts.exists, frames_artifact(key)):
                    await self._run(self._decoder.forget, key)

    async def forget(self, content_key: str) -> None:
        await self._run(self._decoder.forget, content_key)

    async def decode(self, order: DecodeOrder, start: int, latents_nChw: Array) -> Decoded:
        decoded: Decoded = await self._run(self._decoder.decode, order, start, latents_nChw)
        return decoded

    async def decode_stored(self, order: DecodeOrder) -> Decoded:
        decoded: Decoded = await self._run(self._decoder.decode_stored, order)
        return decoded

    async def assemble(self, order: AssembleOrder) -> dict[str, Any]:
        from serving.render.film_assembler import assemble_film

        film: dict[str, Any] = await self._run(assemble_film, order, self._artifacts, self._scratch)
        return film

    async def _run(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            shutil.rmtree(self._scratch, ignore_errors=True)
