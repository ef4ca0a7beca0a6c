"""Timeline hosts as actors, and as the Director calls them."""

import threading
from typing import Any

import ray
from ray.exceptions import RayActorError

from serving.actors.named import ensure_actor
from serving.actors.ports import DecoderActorPort, GangActorPort
from serving.actors.warmup import load_ahead, models_of
from serving.config.farm import FarmConfig
from serving.director.node_states import host_name
from serving.errors import HostLost
from serving.render.farm_messages import CallReport, Decoded, TakeId, TakeOpened, TakeOrder
from serving.settings import MAX_STEPS
from serving.store.artifacts import Artifacts
from serving.telemetry.logs import set_up_logs


class TimelineHostActor:
    """A timeline host in a process of its own. Whoever calls it imports no torch; see TimelineHost for its methods."""

    def __init__(self, config: dict[str, Any]) -> None:
        from serving.render.host import TimelineHost

        set_up_logs()
        farm = FarmConfig.model_validate(config)
        self._host = TimelineHost(
            Artifacts.open(farm.artifacts_url),
            DecoderActorPort(),
            checkpoint_every_s=farm.checkpoint_every_s,
            checkpoint_every_steps=farm.checkpoint_every_steps,
        )
        threading.Thread(target=load_ahead, args=(_load_solver, models_of(farm)), daemon=True).start()

    async def where(self) -> str:
        """Ray's id of the node that it is on."""
        return str(ray.get_runtime_context().get_node_id())

    async def open_take(self, order: TakeOrder) -> TakeOpened:
        return await self._host.open_take(order)

    async def close_take(self, take_id: TakeId, token: int, *, save: bool) -> None:
        await self._host.close_take(take_id, token, save=save)

    async def run_call(  # the handle of a gang's actor becomes a gang
        self, take_id: TakeId, token: int, *, step: int, chunk: int, gang: str, handle: Any, timeout_s: float
    ) -> CallReport:
        port = None if handle is None else GangActorPort(handle)
        return await self._host.run_call(
            take_id, token, step=step, chunk=chunk, gang=gang, handle=port, timeout_s=timeout_s
        )

    async def finish_take(self, take_id: TakeId, token: int) -> str:
        return await self._host.finish_take(take_id, token)

    async def feed_decoder(self, take_id: TakeId, token: int, *, start: int) -> Decoded:
        return await self._host.feed_decoder(take_id, token, start=start)


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


def _ensure_host(config: dict[str, Any], index: int) -> Any:
    return ensure_actor(TimelineHostActor, host_name(index), config)


def _load_solver(model: str) -> None:
    """diffusers' schedulers take seconds to import."""
    from serving.models.registry import open_model

    open_model(model).solver(MAX_STEPS)
