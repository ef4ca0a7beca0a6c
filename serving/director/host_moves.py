"""Timelines leave a node before it goes: their host saves them, comes back on another node, and they go on there.

Calls that are out when the notice comes are waited for, so that nothing is rendered twice; those that take longer than
the node stays are given up. Gangs, encoders and decoders need nothing of this: Serve moves them.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from serving import settings
from serving.director.opening import Opening
from serving.director.ports import ClusterNode, HostPort, NodesPort
from serving.director.runs import TakeRun
from serving.director.take_hosts import TakeHosts
from serving.errors import HostLost, LongtakeError

log = logging.getLogger(__name__)

NODE_WATCH_S = 1.0
"""Interval, in seconds, of reviewing which nodes are about to go."""

NODE_CALL_S = 5.0
"""Seconds in which Ray, or a timeline host, must say which node is which."""

MOVE_LOOK_S = 0.05
"""Interval, in seconds, of checking whether the calls of takes that move are done."""

MOVE_MARGIN_S = 10.0
"""Seconds before a node may be gone at which the timelines on it are saved, whatever calls of them are still out."""


class HostMoves:
    """Moves the hosts of one Director. `clock` gives Unix seconds."""

    def __init__(
        self,
        ports: Sequence[HostPort],
        nodes: NodesPort,
        hosts: TakeHosts,
        opening: Opening,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._ports = ports
        self._nodes = nodes
        self._hosts = hosts
        self._opening = opening
        self._clock = clock
        self._moves: set[asyncio.Task[None]] = set()
        self._stranded: set[int] = set()
        """Hosts on a node that goes, with no other node to move to; logged once."""

    async def run(self) -> None:
        """Watch the nodes for as long as the Director works. A cluster that does not answer is asked again."""
        try:
            while True:
                try:
                    await self.look()
                except Exception as error:  # whatever Ray fails with, the farm goes on without this
                    log.warning("nodes cannot be watched: %s", error, extra={"action": "watch_nodes"})
                await asyncio.sleep(NODE_WATCH_S)
        finally:
            for move in self._moves:
                move.cancel()

    async def look(self) -> None:
        """Begin to move every host that is on a node which is about to go."""
        draining = await asyncio.to_thread(self._nodes.draining)
        if not draining:
            self._stranded.clear()
            return
        places = await self.places()
        going = {
            host: draining[node] for host, node in places.items() if node in draining and host not in self._hosts.moving
        }
        if going and await self._has_room(going, places):
            for host, until in going.items():
                self._hosts.moving.add(host)
                move = asyncio.ensure_future(self._move(host, until))
                self._moves.add(move)
                move.add_done_callback(self._moves.discard)

    async def places(self) -> dict[int, str]:
        """The node of each host, of those that answer."""
        answers = await asyncio.gather(*(self._where(host) for host in self._ports))
        return {index: node for index, node in enumerate(answers) if node is not None}

    async def _where(self, host: HostPort) -> str | None:
        try:
            return await asyncio.wait_for(host.where(), NODE_CALL_S)
        except (HostLost, TimeoutError):
            return None

    async def _has_room(self, going: Mapping[int, float], places: Mapping[int, str]) -> bool:
        """Whether another node takes hosts. If none does they stay: a host that cannot come back is of no use."""
        nodes: Sequence[ClusterNode] = await asyncio.to_thread(self._nodes.nodes)
        if any(node.takes_hosts and node.state == "alive" for node in nodes):
            self._stranded.clear()
            return True
        for host in going.keys() - self._stranded:
            words = "host %d is on node %s, which goes, and no other node takes hosts: its takes stay with it"
            log.warning(
                words, host, places[host], extra={"action": "host_stranded", "host": host, "node": places[host]}
            )
        self._stranded |= going.keys()
        return False

    async def _move(self, host: int, until: float) -> None:
        log.warning("host %d moves to another node", host, extra={"action": "move_host", "host": host})
        try:
            stays_s = (until - self._clock() if until else settings.DRAIN_S) - MOVE_MARGIN_S
            takes = self._opening.on_host(host)
            for take in takes:
                self._opening.rest(take)
            await self._wait_until_idle(takes, stays_s)
            for take in takes:
                if take.host == host:
                    await self._opening.release(take)
            await self._ports[host].restart()
            await self._come_back(host)
        except LongtakeError as error:  # it is gone: its takes are opened from their checkpoints
            log.warning(
                "host %d was not moved in order: %s", host, error, extra={"action": "move_failed", "host": host}
            )
        finally:
            self._hosts.moving.discard(host)

    async def _come_back(self, host: int) -> None:
        """Wait until it answers from its new place; takes would only fail to be opened there before."""
        end = self._clock() + settings.DRAIN_S
        while self._clock() < end and await self._where(self._ports[host]) is None:
            await asyncio.sleep(MOVE_LOOK_S)

    async def _wait_until_idle(self, takes: Sequence[TakeRun], within_s: float) -> None:
        """Wait until nothing is under way that needs a take's host, or for as long as the node stays."""
        end = self._clock() + within_s
        while self._clock() < end and any(self._opening.needs_host(take) for take in takes):
            await asyncio.sleep(MOVE_LOOK_S)
