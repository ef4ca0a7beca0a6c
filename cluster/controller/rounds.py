"""One round of the controller: ask the farm, look at Kubernetes, drain what will go, reconcile pools.

A round may end after any request, and the next one goes on from there. A failure ends what depends on it, never the
round.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.contract.pools_and_nodes import NodeState, PoolState
from cluster.controller.actions import Actions
from cluster.controller.drainer import Drainer, DrainInputs
from cluster.controller.metrics import ControllerMetrics
from cluster.controller.pool_status import FarmReport
from cluster.controller.reconciler import Reconciler
from cluster.crd import RENDER_POOLS
from cluster.errors import FarmRefused, FarmUnavailable
from cluster.kube.client import Json, Kube
from cluster.kube.errors import KubeError
from cluster.kube.events import EventRecorder
from cluster.render_pool import RenderPool, read_render_pool

log = logging.getLogger(__name__)


class Farm(Protocol):
    """What a round asks of the farm; FarmClient is one."""

    def pools(self) -> tuple[PoolState, ...]:
        """Raises FarmRefused, FarmUnavailable."""

    def nodes(self) -> tuple[NodeState, ...]:
        """Raises FarmRefused, FarmUnavailable."""


class View(Protocol):
    """The last known state of the cluster. The objects are shared: do not change them."""

    def nodes(self) -> Sequence[Json]:
        """Kubernetes nodes; none if they are not watched."""

    def pods(self) -> Sequence[Json]:
        """Pods of the farm's Ray cluster."""

    def render_pools(self) -> Sequence[Json]:
        """RenderPools."""


@dataclass(frozen=True)
class RoundEnd:
    """How a round went."""

    failed: bool
    """Whether something should be tried again soon."""
    retry_after_s: float
    """Seconds that a server asked to be left alone."""


class Rounds:
    """Runs rounds, one at a time. `may_act` is asked before each act."""

    def __init__(
        self,
        *,
        kube: Kube,
        farm: Farm,
        view: View,
        drainer: Drainer,
        reconciler: Reconciler,
        events: EventRecorder,
        metrics: ControllerMetrics,
        namespace: str,
        may_act: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._kube, self._farm, self._view, self._namespace = kube, farm, view, namespace
        self._drainer, self._reconciler = drainer, reconciler
        self._events, self._metrics, self._may_act, self._clock = events, metrics, may_act, clock

    def run(self) -> RoundEnd:
        """One round. Raises NotLeader if leadership ends during it."""
        actions = Actions(events=self._events, metrics=self._metrics, may_act=self._may_act, clock=self._clock)
        report = self._ask_pools(actions)
        # What cannot wait comes first: a spot node may have fifteen seconds.
        self._drain(report, actions)
        pools = self._read_render_pools(actions)
        if pools is not None:
            self._reconciler.reconcile(pools, report, actions, now=self._clock())
        self._metrics.rounds.labels("failed" if actions.failed else "ok").inc()
        if not actions.failed:
            self._metrics.last_round.set(self._clock())
        return RoundEnd(actions.failed, actions.retry_after_s)

    def _drain(self, report: FarmReport, actions: Actions) -> None:
        if report.pools is None:
            return
        try:
            ray_nodes = self._farm.nodes()
        except (FarmRefused, FarmUnavailable) as error:
            actions.record_failure("farm", "ask_nodes", error)
            return
        seen = DrainInputs(
            nodes=self._view.nodes(),
            pods=self._view.pods(),
            ray_nodes=ray_nodes,
            pools=[pool.name for pool in report.pools],
            render_pools=[read_render_pool(one) for one in self._view.render_pools()],
        )
        self._drainer.drain(seen, actions, now=self._clock())

    def _ask_pools(self, actions: Actions) -> FarmReport:
        now = self._clock()
        try:
            pools = self._farm.pools()
        except (FarmRefused, FarmUnavailable) as error:
            actions.record_failure("farm", "ask_pools", error)
            self._metrics.farm_reachable.set(0)
            return FarmReport(None, now, str(error))
        self._metrics.farm_reachable.set(1)
        return FarmReport(pools, now)

    def _read_render_pools(self, actions: Actions) -> tuple[RenderPool, ...] | None:
        """Read afresh, not from a mirror: they are few, and what we wrote a moment ago must be in them."""
        try:
            found = self._kube.list_all(RENDER_POOLS, namespace=self._namespace).items
        except KubeError as error:
            actions.record_failure("kubernetes", "read_render_pools", error)
            return None
        return tuple(read_render_pool(one) for one in found if not one["metadata"].get("deletionTimestamp"))
