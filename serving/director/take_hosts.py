"""The timeline hosts as one Director uses them: every message is about a take and carries the Director's generation."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from serving.director.job_leases import JobLeases
from serving.director.ports import HostPort
from serving.director.runs import JobRun, TakeRun
from serving.errors import HostLost, LongtakeError
from serving.planning.content_keys import take_texts
from serving.render.farm_messages import CallReport, Decoded, TakeOpened, TakeOrder

log = logging.getLogger(__name__)


class TakeHosts:
    """Belongs to one Director. `takes_each`: takes that a host holds at once. What does not close a take raises
    LongtakeErrors: HostLost also for a take that no host holds, NotHeld, StaleToken."""

    def __init__(self, ports: Sequence[HostPort], leases: JobLeases, *, takes_each: int) -> None:
        self._ports = ports
        self._leases = leases
        self._takes_each = takes_each
        self.moving: set[int] = set()
        """Hosts that are about to move to another node, by index: they get no takes."""

    def room(self, takes: Iterable[TakeRun]) -> list[int]:
        """Takes that each host has room for, beside these."""
        room = [0 if host in self.moving else self._takes_each for host in range(len(self._ports))]
        for take in takes:
            if take.host is not None:
                room[take.host] -= 1
        return room

    def moves(self, take: TakeRun) -> bool:
        """Whether the take's host is about to move."""
        return take.host in self.moving

    async def open(self, run: JobRun, take: TakeRun) -> TakeOpened:
        """Have the take's host hold it, from its newest checkpoint or from noise."""
        order = TakeOrder(
            take.id,
            self._leases.generation,
            run.plan,
            take.plan,
            take.content_key,
            {text: run.prompt_keys[text] for text in take_texts(take.plan)},
            run.numerics["weights"],
        )
        return await self._port(take).open_take(order)

    async def run_call(
        self, take: TakeRun, *, step: int, chunk: int, gang: str, handle: Any, timeout_s: float
    ) -> CallReport:
        """Send a call to a gang and wait for its end; without a handle only wait, for a call that the gang has."""
        return await self._port(take).run_call(
            take.id, self._leases.generation, step=step, chunk=chunk, gang=gang, handle=handle, timeout_s=timeout_s
        )

    async def finish(self, take: TakeRun) -> None:
        """Make its latents durable; all of them must be there."""
        await self._port(take).finish_take(take.id, self._leases.generation)

    async def feed_decoder(self, take: TakeRun) -> Decoded:
        """Send the decoder the finished latents that it does not have."""
        return await self._port(take).feed_decoder(take.id, self._leases.generation, start=take.decoded.latents)

    async def close(self, take: TakeRun, *, save: bool) -> None:
        """Have its host let it go, with a checkpoint if it is to go on elsewhere. One that does not answer is left."""
        host, take.host = take.host, None
        if host is not None:
            await self.close_at(host, take, save=save)

    async def close_at(self, host: int, take: TakeRun, *, save: bool) -> None:
        """The same for a host that is not the take's any more."""
        try:
            await self._ports[host].close_take(take.id, self._leases.generation, save=save)
        except LongtakeError as error:
            about = {"host": host, **take.id.ids}
            log.info("take %s was not closed: %s", take.plan.key, error, extra={"action": "close_take", **about})

    def _port(self, take: TakeRun) -> HostPort:
        if take.host is None:
            raise HostLost(f"no host holds take {take.plan.key}")
        return self._ports[take.host]
