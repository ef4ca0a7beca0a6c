"""How many gangs a pool has: a Serve autoscaling policy that asks the Director and applies the planner.

It runs in Serve's controller several times a second, so it never waits: one question to the Director is on its way at a
time, and what is not answered yet is asked about next time. With each question goes the decision that stands, so that
the Director can show it. It decides nothing by itself: cluster/contract/planner.py does, from demand, supply and terms.

Serve sends this module to its controller by value; so what it shares with others is in other modules.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from cluster.contract.planner import PlannerMemory, ScalingTargets, plan_gangs
from cluster.contract.pools_and_nodes import MAX_GANGS, PoolDecision, PoolDemand, PoolSupply, PoolTerms
from serving import settings

log = logging.getLogger(__name__)

SCALE_POLL_S = 0.5
"""Seconds between two times that a pool's scaling asks the Director how things stand."""


ScalingInputs = Mapping[str, Any]
"""What the Director answers: terms, targets, demand and supply as JSON; see FarmDemand.answer."""


class Asked(Protocol):
    """A question that is on its way."""

    def done(self) -> bool: ...

    def result(self) -> ScalingInputs | None:
        """The answer; None while the Director has not begun. Raises if there is none."""
        ...


Ask = Callable[[Mapping[str, Any]], Asked | None]
"""Sends a question with what stands now, without waiting; None if there is nobody to ask."""


class PoolScaler:
    """Decides for one pool repeatedly. Until the Director has said by what, nothing changes. `clock` gives Unix
    seconds."""

    def __init__(self, *, ask: Ask, clock: Callable[[], float] = time.time) -> None:
        self._terms = PoolTerms(min_gangs=0, max_gangs=MAX_GANGS)
        self._targets = ScalingTargets()
        self._ask = ask
        self._clock = clock
        self._memory = PlannerMemory()
        self._asked: Asked | None = None
        self._asked_at = -math.inf
        self._demand: PoolDemand | None = None
        self._supply: PoolSupply | None = None
        self._decision: PoolDecision | None = None

    def decide(self, *, target: int, running: int) -> int:
        """Gangs that the pool should have, where Serve was asked for `target` and has `running`."""
        now = self._clock()
        self._listen(target, now)
        self._decision, self._memory = plan_gangs(
            terms=self._terms,
            demand=self._demand,
            supply=self._count(target, running),
            targets=self._targets,
            memory=self._memory,
            now=now,
        )
        return self._decision.gangs

    def _listen(self, target: int, now: float) -> None:
        """Take in the answer that has come, or ask again."""
        if self._asked is not None and self._asked.done():
            asked, self._asked = self._asked, None
            try:
                self._take_in(asked.result())
            except Exception as error:  # of any kind: the Director may be gone, and Serve's loop must go on
                log.warning("the Director does not say how a pool does: %s", error, extra={"action": "scale"})
        if self._asked is None and now - self._asked_at >= SCALE_POLL_S:
            self._asked_at = now
            decision = None if self._decision is None else self._decision.model_dump(mode="json")
            self._asked = self._ask({"target": target, "decision": decision})

    def _take_in(self, answer: ScalingInputs | None) -> None:
        if answer is None:
            return
        try:
            terms = PoolTerms.model_validate(answer["terms"])
            targets = ScalingTargets(**answer["targets"])
            demand = PoolDemand.model_validate(answer["demand"])
            supply = PoolSupply.model_validate(answer["supply"])
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            log.warning("the Director's answer is not understood: %s", error, extra={"action": "scale"})
            return
        self._terms, self._targets, self._demand, self._supply = terms, targets, demand, supply

    def _count(self, target: int, running: int) -> PoolSupply:
        """The gangs as they are by Serve's count, which is newer than the Director's: a gang that Serve has asked to go
        may still be heard of as ready. Before the Director has said anything, those that run count as busy."""
        if self._supply is None:
            ready = min(running, target)
            return PoolSupply(
                ready=ready, idle=0, starting=target - ready, draining=0, cold_start_s=settings.COLD_START_S
            )
        ready = min(self._supply.ready, target)
        counts = {"ready": ready, "idle": min(self._supply.idle, ready), "starting": target - ready}
        return self._supply.model_copy(update=counts)


class DirectorLine:
    """Asks the running Director about one pool through Ray."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._director: Any = None
        self._asked: Any = None

    def __call__(self, standing: Mapping[str, Any]) -> Asked | None:
        """Looks for the Director anew where it did not answer: another may have taken its place."""
        from serving.actors.named import find_director

        if self._asked is not None and self._asked.done() and self._asked.exception() is not None:
            self._director = None
        self._director = self._director or find_director()
        if self._director is None:  # nobody has started it yet
            return None
        self._asked = self._director.scaling_inputs.remote(self._pool, dict(standing)).future()
        asked: Asked = self._asked
        return asked


class PoolPolicy:
    """What Serve makes and calls: the policy of one pool's Renderer. It is told no more than the pool's name: Serve
    replaces every gang of a deployment whose arguments change, and terms and targets may change at any time."""

    def __init__(self, pool: str) -> None:
        self._scaler = PoolScaler(ask=DirectorLine(pool))

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """`context` is Serve's AutoscalingContext."""
        gangs = self._scaler.decide(target=context.target_num_replicas, running=context.current_num_replicas)
        return gangs, {}
