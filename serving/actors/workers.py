"""What encodes prompts, decodes takes and assembles films, as deployments of Serve."""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from serving import settings
from serving.actors.replicas import set_up_replica
from serving.actors.warmup import load_ahead, models_of
from serving.config.farm import FarmConfig
from serving.errors import ArtifactsUnavailable
from serving.render.farm_messages import Assembled, AssembleOrder, ConditionOrder, Decoded, DecodeOrder
from serving.render.messages import Array
from serving.store.artifact_keys import frames_artifact
from serving.store.artifacts import Artifacts

if TYPE_CHECKING:
    from serving.render.take_decoder import TakeDecoder


class Encoder:
    """Turns prompts into embeddings and pictures into conditions, once each, and keeps them among the artifacts."""

    def __init__(self, args: dict[str, Any]) -> None:
        set_up_replica()
        config = FarmConfig.model_validate(args)
        self._artifacts = Artifacts.open(config.artifacts_url)
        self._thread = ThreadPoolExecutor(max_workers=1)  # models must not be loaded in two threads at once
        self._models = models_of(config)

    async def warm_up(self) -> None:
        """Import what encoding takes."""
        await asyncio.get_running_loop().run_in_executor(self._thread, load_ahead, _import_encoder, self._models)

    async def encode(self, model: str, weights: str, texts: list[str]) -> None:
        """Keep the embedding of each text. Raises ModelError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, model, weights, texts)

    async def encode_pictures(self, order: ConditionOrder) -> None:
        """Keep what the pictures of a take become. Raises ModelError, ArtifactMissing."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._encode_pictures, order)

    def _encode_pictures(self, order: ConditionOrder) -> None:
        from serving.render.store_condition import store_condition
        from serving.render.threads import one_thread

        with one_thread():
            store_condition(order, self._artifacts)

    def _encode(self, model: str, weights: str, texts: list[str]) -> None:
        from serving.models.registry import open_model
        from serving.render.threads import one_thread
        from serving.store.artifact_keys import prompt_artifact
        from serving.store.latents import write_prompt

        with one_thread():
            for text, embedding in zip(texts, open_model(model).encode_prompts(texts), strict=True):
                write_prompt(self._artifacts, prompt_artifact(weights, text), embedding.numpy())


class Decoder:
    """Decodes finished latents and assembles films, on one thread."""

    def __init__(self, args: dict[str, Any]) -> None:
        set_up_replica()
        config = FarmConfig.model_validate(args)
        self._artifacts = Artifacts.open(config.artifacts_url)
        self._scratch = scratch_of(config, "decoder")
        # As many as hosts hold takes, for chance may send all to one decoder; and one that was held no longer.
        self._sessions = config.timeline_hosts * config.takes_per_host + 1
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._models = models_of(config)
        self._pruned_at = time.monotonic()
        self._pruning: asyncio.Task[None] | None = None

    async def check_health(self) -> None:
        """Called by Serve repeatedly; it does not wait for what is being decoded."""
        idle = self._pruning is None or self._pruning.done()
        if idle and time.monotonic() - self._pruned_at >= settings.DECODE_PRUNE_S:
            self._pruned_at = time.monotonic()
            self._pruning = asyncio.ensure_future(self._prune())

    async def _prune(self) -> None:
        """End the sessions of takes that were decoded elsewhere. A slow store is asked off the decoding thread."""
        with contextlib.suppress(ArtifactsUnavailable):
            for key in await self._run(lambda: self._decoder.idle()):
                if await asyncio.to_thread(self._artifacts.exists, frames_artifact(key)):
                    await self.forget(key)

    async def warm_up(self) -> None:
        """Load what decoding takes."""
        await self._run(lambda: load_ahead(lambda model: self._decoder.load_codec(model), self._models))

    async def forget(self, content_key: str) -> None:
        await self._run(lambda: self._decoder.forget(content_key))

    async def decode(self, order: DecodeOrder, start: int, latents_nChw: Array) -> Decoded:
        decoded: Decoded = await self._run(lambda: self._decoder.decode(order, start, latents_nChw))
        return decoded

    async def decode_stored(self, order: DecodeOrder) -> Decoded:
        decoded: Decoded = await self._run(lambda: self._decoder.decode_stored(order))
        return decoded

    async def assemble(self, order: AssembleOrder) -> Assembled:
        film: Assembled = await self._run(lambda: self._assemble(order))
        return film

    async def _run(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # ------------------------------------------------------------------------------------------------ on its thread

    @cached_property
    def _decoder(self) -> "TakeDecoder":
        from serving.render.take_decoder import TakeDecoder

        return TakeDecoder(self._artifacts, self._scratch, sessions=self._sessions)

    def _assemble(self, order: AssembleOrder) -> Assembled:
        from serving.render.assemble_film import assemble_film

        return assemble_film(order, self._artifacts, self._scratch)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            shutil.rmtree(self._scratch, ignore_errors=True)


def _import_encoder(model: str) -> None:
    """What encoding prompts imports takes seconds; the encoder itself is loaded when there is something to encode."""
    from serving.models.prompts import import_encoder
    from serving.models.registry import open_model

    import_encoder(open_model(model).checkpoint)


def scratch_of(config: FarmConfig, role: str) -> Path:
    """A folder of this process for work in progress. What processes of the same role left that are gone is removed."""
    for left in Path(config.scratch).glob(f"{role}-*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(config.scratch) / f"{role}-{os.getpid()}"
