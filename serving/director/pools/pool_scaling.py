"""What the Director knows of the number of gangs: terms, the decision that stands, how long gangs take to start.

It decides nothing: the policy of serving/actors/pool_policy.py does, and says so with every question. No I/O; the
Director keeps in the store what must outlive it.
"""

import statistics
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.contract.pools_and_nodes import PoolDecision, PoolSupply, PoolTerms
from serving.config.farm import PoolConfig
from serving.settings import COLD_START_S, MAX_POOL_GANGS

COLD_START_SAMPLES = 5
"""Newest measured starts whose median is expected of the next."""

MAX_COLD_STARTS = 256
"""Gangs whose start is waited for, of one pool; more are not measured."""


COLD_START = "cold_start"
"""Kind of the facts by which measured starts outlive a Director."""


@dataclass
class PoolScaling:
    """The number of gangs of one pool."""

    config: PoolConfig
    terms: PoolTerms
    decision: PoolDecision | None = None
    """The newest; None for a pool of a fixed size, and before the policy was heard of."""
    target: int | None = None
    """Gangs that Serve was asked for, as the policy said last."""
    _asked: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_COLD_STARTS))
    """When each gang was asked for that has not come, oldest first."""
    _leaders: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """Leaders of gangs that have come, the newest last."""
    _starts_s: deque[float] = field(default_factory=lambda: deque(maxlen=COLD_START_SAMPLES))

    def hear(self, standing: Mapping[str, Any], now: float) -> None:
        """Take in what the policy says stands: {"target": gangs, "decision": PoolDecision or None}."""
        if standing.get("decision") is not None:
            self.decision = PoolDecision.model_validate(standing["decision"])
        target = int(standing["target"])
        before = target if self.target is None else self.target
        self._asked.extend([now] * min(target - before, MAX_COLD_STARTS))
        for _ in range(min(before - target, len(self._asked))):
            self._asked.pop()
        self.target = target

    def gang_came(self, leader: str, now: float) -> bool:
        """A gang takes calls. True if that is the first heard of its leader and says how long a start takes."""
        if leader in self._leaders:
            return False
        self._leaders[leader] = None
        if len(self._leaders) > 2 * MAX_POOL_GANGS:
            self._leaders.popitem(last=False)
        if not self._asked:  # it was not asked for: it replaces another
            return False
        self._starts_s.append(max(0.0, now - self._asked.popleft()))
        return True

    @property
    def cold_start_s(self) -> float:
        """Seconds from asking for a gang until it takes calls: the median of the newest, or assumed."""
        return statistics.median(self._starts_s) if self._starts_s else COLD_START_S

    @property
    def gangs_wanted(self) -> int:
        """Gangs that the pool should have now."""
        return self.config.start_gangs if self.decision is None else self.decision.gangs

    def supply(self, *, ready: int, idle: int, draining: int) -> PoolSupply:
        """The gangs, with those that were asked for and are not there."""
        target = self.config.start_gangs if self.target is None else self.target
        return PoolSupply(
            ready=ready,
            idle=idle,
            starting=max(0, target - ready),
            draining=draining,
            cold_start_s=self.cold_start_s,
        )

    def dump(self) -> dict[str, Any]:
        """What was measured, for JSON."""
        return {"seconds": [round(seconds, 3) for seconds in self._starts_s]}

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Take over what was measured before; what cannot be read is left out."""
        try:
            seconds = [float(value) for value in dumped["seconds"]]
        except (KeyError, TypeError, ValueError):
            return
        self._starts_s.extend(value for value in seconds if 0 <= value < float("inf"))


def open_scaling(pools: Sequence[PoolConfig]) -> dict[str, PoolScaling]:
    """The pools of a farm before anything was heard."""
    return {pool.name: PoolScaling(pool, pool.terms) for pool in pools}
