"""The gangs that the Director knows: who is there, what they compute with, and which must go."""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from serving.render.farm_messages import GangHello
from serving.scheduler.state import CallKey, FarmState
from serving.telemetry.metrics import FarmMetrics, Loss

log = logging.getLogger(__name__)

GANG_SILENT_S = 10.0
"""Seconds without such a message after which a gang counts as gone."""

UNFIT_S = 60.0
"""Seconds for which a pool's model counts as unfit; its gangs say so again while it is."""

CONDEMNED_S = 120.0
"""Seconds that the name of a gang that must be replaced is remembered."""

TELL_SUPPLY_S = 2.0
"""Seconds between two times that a pool's gangs and backlog are written down for quotes."""


Answer = Literal["go_on", "replace", "idle"]
"""To a gang: go on; end and come back as a new one; you drain and have no call any more."""


@dataclass
class _KnownGang:
    hello: GangHello
    handle: Any
    heard_at: float


@dataclass
class Gangs:
    """Keeps the scheduler's picture of the gangs true."""

    state: FarmState
    metrics: FarmMetrics
    _started: set[str] = field(default_factory=set)
    """Gangs that were counted as started, by this Director or the one before."""
    _known: dict[str, _KnownGang] = field(default_factory=dict)
    _condemned: dict[str, tuple[float, tuple[CallKey, ...]]] = field(default_factory=dict)
    """Gangs that must be replaced: when that was found, and the calls that they had, the running one first."""
    _told: dict[str, dict[str, Any]] = field(default_factory=dict)
    _refused: dict[str, str] = field(default_factory=dict)
    _unfit: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By pool: what is wrong with its model's files, and when a gang said so."""

    def hello(self, hello: GangHello, handle: Any, now: float) -> Answer:
        """A gang is there, or still there."""
        if hello.gang in self._condemned:
            return "replace"
        known = self._known.get(hello.gang)
        if known is None and not self._fits(hello):
            return "replace"
        if known is None:
            log.info("gang %s is there", hello.gang, extra={"action": "gang_joined", **_about(hello)})
        self._known[hello.gang] = _KnownGang(hello, handle, now)
        self.state.gang_joined(hello.gang, hello.pool)
        if hello.draining:
            self.state.gang_draining(hello.gang)
            gang = self.state.gangs.get(hello.gang)
            return "idle" if gang is None or not gang.calls else "go_on"
        return "go_on"

    def unfit(self, pool: str, leader: str, problem: str, now: float) -> None:
        """What a leader has formed is no gang, since its model's files are unfit."""
        self._unfit[pool] = (problem, now)
        for name in [name for name, known in self._known.items() if leader and known.hello.leader == leader]:
            self._lose(name, "died")
            self.state.gang_left(name, now)

    def problem(self, pool: str, now: float) -> str | None:
        """Why a pool has no gang, in a line, if its model's files are to blame."""
        problem, said_at = self._unfit.get(pool, ("", -math.inf))
        return problem if now - said_at < UNFIT_S and self.numerics(pool) is None else None

    def handle(self, gang: str) -> Any | None:
        """What a host calls the gang by; None once it is gone."""
        known = self._known.get(gang)
        return None if known is None else known.handle

    def numerics(self, pool: str) -> dict[str, str] | None:
        """What the bytes of a pool's predictions depend on; None while it has no gang."""
        return next((known.hello.numerics for known in self._known.values() if known.hello.pool == pool), None)

    def condemn(self, gang: str, now: float, *, why: Loss) -> None:
        """It is dead, stuck or broken: its calls go elsewhere, and it is told to make room for a new one."""
        if gang in self._condemned:
            return
        held = tuple(self.state.gangs[gang].calls) if gang in self.state.gangs else ()
        self._condemned[gang] = (now, held)
        self._lose(gang, why)
        self.state.gang_left(gang, now)

    def was_working_on(self, gang: str, call: CallKey) -> bool:
        """Whether this was the call that the gang computed, and not one that waited beside it."""
        known = self.state.gangs.get(gang)
        return known is not None and next(iter(known.calls), None) == call

    def load(self, counted: Mapping[str, Sequence[str]]) -> None:
        """Gangs, by pool, that the Director before has counted as started."""
        for names in counted.values():
            self._started.update(names)

    def count_started(self, pool: str) -> list[str]:
        """Count the pool's gangs that are new; returns all of it, for `load`."""
        names = [name for name, known in self._known.items() if known.hello.pool == pool]
        for name in names:
            self._count_started(name, pool)
        return names

    def silent(self, now: float) -> list[str]:
        """Gangs that have not been heard of for long. Forgets condemned ones that are long gone."""
        for name, (since, _) in list(self._condemned.items()):
            if now - since > CONDEMNED_S:
                del self._condemned[name]
        return [name for name, known in self._known.items() if now - known.heard_at > GANG_SILENT_S]

    def drop_silent(self, now: float, *, lost_nodes: Collection[str]) -> None:
        """Forget gangs that have not been heard of. `lost_nodes`: Ray's ids of nodes that are gone."""
        for name in self.silent(now):
            why = _why_silent(self._known[name].hello, lost_nodes)
            self._lose(name, why)
            self.state.gang_left(name, now)

    def worth_telling(self, pool: str, supply: dict[str, Any]) -> bool:
        """Whether a pool's supply has changed enough, or was told long enough ago, to be written down again."""
        told = self._told.get(pool)
        if told is not None and supply["at"] - told["at"] < TELL_SUPPLY_S:
            return False
        self._told[pool] = supply
        return True

    def describe(self, pool: str, now: float) -> dict[str, Any]:
        """A pool's calls and gangs, for people."""
        gangs = [
            {
                "gang": known.hello.gang,
                "node": known.hello.node,
                "pids": list(known.hello.pids),
                "nodes": list(known.hello.nodes),
                "draining": known.hello.draining,
                "calls": len(self.state.gangs[name].calls) if name in self.state.gangs else 0,
            }
            for name, known in self._known.items()
            if known.hello.pool == pool
        ]
        return {**asdict(self.state.load(pool, now)), "gangs": gangs, "problem": self.problem(pool, now)}

    def on_node(self, node: str) -> dict[str, int]:
        """Names of the gangs that have a rank or their leader on a node, and how many calls each has."""
        return {
            name: len(self.state.gangs[name].calls) if name in self.state.gangs else 0
            for name, known in self._known.items()
            if node == known.hello.node or node in known.hello.nodes
        }

    def _lose(self, gang: str, why: Loss) -> None:
        known = self._known.pop(gang, None)
        if known is not None:
            self._count_started(gang, known.hello.pool)
            self._started.discard(gang)
            self.metrics.gangs_lost.labels(known.hello.pool, why).inc()
            fields = {"why": why, **_about(known.hello)}
            if why in ("drained", "scaled_down"):
                log.info("gang %s has gone: %s", gang, why, extra={"action": "gang_left", **fields})
            else:
                log.warning("gang %s is lost: %s", gang, why, extra={"action": "gang_lost", **fields})

    def _count_started(self, gang: str, pool: str) -> None:
        if gang not in self._started:
            self._started.add(gang)
            self.metrics.gangs_started.labels(pool).inc()

    def _fits(self, hello: GangHello) -> bool:
        """All gangs of a pool compute alike, or a film would depend on which of them it met."""
        numerics = self.numerics(hello.pool)
        if numerics is None or numerics == hello.numerics:
            return True
        if self._refused.get(hello.pool) != hello.gang:
            self._refused[hello.pool] = hello.gang
            log.error(
                "gang %s computes with %s, its pool with %s; refused",
                hello.gang,
                hello.numerics,
                numerics,
                extra={"action": "refuse_gang", **_about(hello)},
            )
        return False


def _why_silent(hello: GangHello, lost_nodes: Collection[str]) -> Loss:
    if not {hello.node, *hello.nodes}.isdisjoint(lost_nodes):
        return "node_lost"
    if hello.draining:
        return "drained" if hello.moves else "scaled_down"
    return "died"


def _about(hello: GangHello) -> dict[str, str]:
    """As fields of a log line."""
    return {"gang": hello.gang, "pool": hello.pool, "node": hello.node}
