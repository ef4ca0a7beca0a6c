"""How the farm's processes call each other through Ray: ports turn Ray's errors into ours."""

import asyncio
from collections.abc import Sequence
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError

from serving import settings
from serving.actors.named import APP, find_director
from serving.errors import Fault, GangBroken, GangDied, LongtakeError
from serving.render.farm_messages import Assembled, AssembleOrder, ConditionOrder, Decoded, DecodeOrder
from serving.render.messages import Array, CallInput, CallOutput, TakeInputs
from serving.telemetry.histograms import ApiReport

DECODE_TIMEOUT_S = 600.0
"""Seconds that a decoder may take over one batch of latents, its own start included."""

DIRECTOR_LOOK_S = 2.0
"""Seconds that the API waits for it where the store can answer instead, and somebody asks every second."""


class GangActorPort:
    """A gang as a timeline host calls it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def keep_inputs(self, key: str, inputs: TakeInputs) -> None:
        await self._call("keep_inputs", key, inputs)

    async def predict(self, call: CallInput, inputs_key: str) -> CallOutput:
        output: CallOutput = await self._call("predict", call, inputs_key)
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
        return await asyncio.wait_for(answer, DECODE_TIMEOUT_S)


class EncoderActorPort:
    """The text encoder as the Director calls it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def encode(self, model: str, weights: str, texts: Sequence[str]) -> None:
        await asyncio.wait_for(self._handle.encode.remote(model, weights, list(texts)), DECODE_TIMEOUT_S)

    async def encode_pictures(self, order: ConditionOrder) -> None:
        await asyncio.wait_for(self._handle.encode_pictures.remote(order), DECODE_TIMEOUT_S)


def warm_up() -> None:
    """Have the encoder and a decoder load what the first job needs; nobody waits for it."""
    serve.get_deployment_handle("Encoder", APP).warm_up.remote()
    serve.get_deployment_handle("Decoder", APP).warm_up.remote()


class LiveDirector:
    """The running Director as the API calls it, from threads. Every method raises Fault if it does not answer."""

    def poke(self) -> None:
        self._ask("poke")

    def explain(self, job_id: str) -> dict[str, Any] | None:
        said: dict[str, Any] | None = self._ask("explain", job_id)
        return said

    def timeline(self, job_id: str) -> list[dict[str, Any]] | None:
        takes: list[dict[str, Any]] | None = self._ask("timeline", job_id, within_s=DIRECTOR_LOOK_S)
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
