"""A gang on Ray: an actor for each rank, and the leader that forms them into a gang and keeps it whole.

A replica of a Renderer is a leader. Hosts send calls to rank 0, which passes them on to the others; the leader is not
on that way. When a rank dies, hangs or leaves, the leader replaces what is gone and lets the others, which keep their
weights, join it: under a new name, for calls of the old gang are lost.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from serving import settings
from serving.actors.named import find_director
from serving.actors.nodes import draining_nodes
from serving.actors.ranks import Pulse, RankActor
from serving.actors.replicas import set_up_replica
from serving.config.farm import PoolConfig
from serving.errors import GangBroken, ModelError
from serving.render.farm_messages import GangHello

GANG_HELLO_S = 1.0
"""Seconds between two messages by which a gang says that it is there."""

RANK_PING_S = 10.0
"""Seconds in which a rank must answer its leader; one that hangs is replaced."""

GANG_FORM_S = 120.0
"""Seconds in which the ranks of a gang must have started and found each other."""


UNFIT_RETRY_S = 10.0
"""Seconds after which a gang whose model's files are unfit looks at them again."""

GOODBYE_SHARE = 0.9
"""Of the time that a pool's gangs are given to go, in which their calls must end; the rest is for going."""

log = logging.getLogger(__name__)


def start_rank(pool: PoolConfig, index: int, group: PlacementGroup | None = None) -> Any:
    """The actor of a rank, in its bundle of a gang's placement group; the leader has bundle 0."""
    resources = pool.rank_resources
    options: dict[str, Any] = {
        "num_cpus": resources["CPU"],
        "num_gpus": resources.get("GPU", 0),
        "max_restarts": 0,  # a new one would not know its gang
        "concurrency_groups": {"control": 2},
    }
    if group is not None:
        bundle = 1 + index // pool.ranks_per_bundle
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
    return ray.remote(**options)(RankActor).remote(pool.model, str(pool.shape), index)


class Renderer:
    """The leader of one gang of a pool."""

    def __init__(self, pool: dict[str, Any]) -> None:
        """`pool` is PoolConfig.for_gangs()."""
        set_up_replica()
        self._pool = PoolConfig.model_validate(pool)
        self._name = serve.get_replica_context().replica_id.unique_id
        self._incarnation = itertools.count()
        self._ranks: list[Any] = [None] * self._pool.shape.ranks
        self._director: Any = None
        self._hello: GangHello | None = None
        """What it says to the Director; None while the gang is not formed."""
        self._warm = False
        """The ranks were asked to load what their first call needs."""
        self._draining = False
        self._was_unfit = False
        """Its model's files were unfit when they were looked at last."""
        self._must_move = False
        """A node of the gang goes, and no call is out any more."""
        self._idle = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def check_health(self) -> None:
        """Called by Serve repeatedly, first when the replica starts. Serve itself looks at the leader's node only;
        where another rank's node is drained, raising makes it start the gang elsewhere."""
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.ensure_future(self._keep())
        if self._must_move:
            raise RuntimeError("a node of this gang is drained")

    async def _keep(self) -> None:
        while True:
            try:
                if self._hello is None:
                    await self._form()
                if await self._is_whole():
                    await self._say_hello()
                    await asyncio.sleep(GANG_HELLO_S)
                else:
                    self._hello = None
                    continue
            except ModelError as error:
                await self._say_unfit(str(error))
                self._end_all()
                self._was_unfit = True
                await asyncio.sleep(UNFIT_RETRY_S)
            except (RayError, TimeoutError, GangBroken) as error:
                log.warning(
                    "gang %s: %s", self._name, _first_line(error), extra={"action": "gang_lost", "gang": self._name}
                )
                self._end_all()
                await asyncio.sleep(GANG_HELLO_S)

    async def _form(self) -> None:
        """Start the ranks that are missing, and let all find each other."""
        group = ray.util.get_current_placement_group()
        self._ranks = [
            start_rank(self._pool, index, group) if rank is None else rank for index, rank in enumerate(self._ranks)
        ]
        name = f"{self._pool.name}-{self._name}-{next(self._incarnation)}"
        first, *others = self._ranks
        async with asyncio.timeout(GANG_FORM_S):
            if self._was_unfit:  # before it is there again, and not only when it warms up
                await asyncio.gather(*(rank.check_model.remote() for rank in self._ranks))
            _raise_if_unfit(await asyncio.gather(*(rank.pulse.remote() for rank in self._ranks)))
            self._was_unfit = False
            if others:
                meeting = await first.open_meeting.remote(name)
                await asyncio.gather(first.meet.remote(meeting, others), *(one.meet.remote(meeting) for one in others))
            numerics = await first.describe.remote()
            pulses = await asyncio.gather(*(rank.pulse.remote() for rank in self._ranks))
        self._warm = False
        self._hello = GangHello(
            gang=name,
            pool=self._pool.name,
            numerics=numerics,
            node=ray.get_runtime_context().get_node_id(),
            draining=False,
            pids=tuple(pulse.pid for pulse in pulses),
            nodes=tuple(pulse.node for pulse in pulses),
            leader=self._name,
        )
        about = {"gang": name, "pool": self._hello.pool}
        log.info("gang %s is formed of processes %s", name, self._hello.pids, extra={"action": "gang_formed", **about})

    def _warm_up(self) -> None:
        """Once there is a Director, which may send calls. They wait behind it, a leader's questions do not."""
        if not self._warm:
            self._warm = True
            for rank in self._ranks:
                rank.warm_up.remote()

    async def _is_whole(self) -> bool:
        """Whether every rank lives and is together with the others. Ranks that are not there, or hang, are ended.

        Raises ModelError if the model's files are found to be unfit.
        """
        asked = [asyncio.wait_for(rank.pulse.remote(), RANK_PING_S) for rank in self._ranks]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for index, answer in enumerate(answers):
            if isinstance(answer, BaseException):
                about = {"gang": self._name, "rank": index}
                words = "rank %d of gang %s: %s"
                log.warning(words, index, self._name, _first_line(answer), extra={"action": "rank_lost", **about})
                self._end(index)
        pulses = [answer for answer in answers if isinstance(answer, Pulse)]
        _raise_if_unfit(pulses)
        return len(pulses) == len(answers) and all(pulse.joined for pulse in pulses)

    async def _say_hello(self) -> None:
        assert self._hello is not None
        if self._director is None:
            self._director = find_director()
        if self._director is None:
            return  # it is being started
        going = draining_nodes()
        moves = not going.keys().isdisjoint({self._hello.node, *self._hello.nodes})
        hello = replace(self._hello, draining=self._draining or moves, moves=moves)
        try:
            told = self._director.hello.remote(hello, [self._ranks[0]])
            answer = await asyncio.wait_for(told, settings.DIRECTOR_CALL_S)
        except (RayError, TimeoutError):
            self._director = None  # it is being started again
            return
        self._warm_up()
        if answer == "replace":
            self._end_all()
        elif answer == "idle":
            self._must_move = moves and self._hello.node not in going  # else Serve has seen it, and moves the gang
            self._idle.set()

    async def _say_unfit(self, problem: str) -> None:
        """Tell the Director why there is no gang; its files may be repaired meanwhile."""
        about = {"gang": self._name, "pool": self._pool.name}
        log.error("no gang can be formed: %s", problem, extra={"action": "model_unfit", **about})
        director = self._director or find_director()
        if director is not None:
            with contextlib.suppress(RayError, TimeoutError):
                told = director.gang_unfit.remote(self._pool.name, self._name, problem)
                await asyncio.wait_for(told, settings.DIRECTOR_CALL_S)

    def _end(self, index: int) -> None:
        if self._ranks[index] is not None:
            ray.kill(self._ranks[index])
            self._ranks[index] = None

    def _end_all(self) -> None:
        for index in range(len(self._ranks)):
            self._end(index)
        self._hello = None

    async def __del__(self) -> None:
        """Called by Serve before the replica goes: calls that are out may end."""
        self._draining = True
        if self._hello is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), GOODBYE_SHARE * self._pool.drain_s)


def _raise_if_unfit(pulses: Iterable[Pulse]) -> None:
    """Raises ModelError if a rank says that the model's files are unfit."""
    for pulse in pulses:
        if pulse.problem is not None:
            raise ModelError(pulse.problem)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
