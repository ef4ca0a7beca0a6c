"""Carries out drains: asks the farm, writes down in the pod that it did, and tells people on the node and the pools.

What is drained when is decided by drain_plan.py. What is remembered here only spares repetitions while a mirror lags
behind; everything is right without it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cluster.contract.pools_and_nodes import DrainRequest, NodeState
from cluster.controller.acting import Acts
from cluster.controller.departures import Outlook, drain_annotations, look_out
from cluster.controller.drain_plan import Danger, Drain, DrainLimits, DrainPlan, plan_drains, pool_of
from cluster.controller.metrics import ControllerMetrics
from cluster.errors import FarmRefused
from cluster.kube.client import Json, Kube
from cluster.kube.events import EventType
from cluster.kube.resources import PODS
from cluster.render_pool import API_VERSION, KIND, RenderPool
from cluster.topology import read_topology

MAX_TOLD = 10_000
"""Things that people were told and are not told again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """What a round sees when it looks for nodes that will go."""

    nodes: Sequence[Json]
    pods: Sequence[Json]
    ray_nodes: Sequence[NodeState]
    pools: Sequence[str]
    """Names of the farm's pools."""
    render_pools: Sequence[RenderPool]
    """Whom to tell."""


class DrainFarm(Protocol):
    """Drains nodes; FarmClient is one."""

    def drain(self, node: str, request: DrainRequest) -> None:
        """Raises FarmRefused, FarmUnavailable."""


class Drainer:
    """Drains what will go, round after round."""

    def __init__(
        self,
        *,
        kube: Kube,
        farm: DrainFarm,
        metrics: ControllerMetrics,
        namespace: str,
        limits: DrainLimits,
        heed_cordons: bool,
    ) -> None:
        self._kube, self._farm, self._metrics, self._namespace = kube, farm, metrics, namespace
        self._limits, self._heed_cordons = limits, heed_cordons
        self._asked: dict[str, float] = {}
        self._told: dict[tuple[str, str], None] = {}

    def drain(self, seen: Surroundings, acts: Acts, *, now: float) -> DrainPlan:
        """Do what is to be done about nodes that will go; returns what that was. Raises NotLeader."""
        outlook = look_out(seen.nodes, seen.pods, seen.ray_nodes, heed_cordons=self._heed_cordons, now=now)
        dangers = [self._remember(danger) for danger in outlook.dangers]
        plan = plan_drains(dangers, seen.ray_nodes, pools=seen.pools, limits=self._limits, now=now)
        self._show(seen, outlook, plan)
        self._asked = {node.id: self._asked[node.id] for node in seen.ray_nodes if node.id in self._asked}
        self._drain_all(plan.drains, seen, acts)
        for danger in outlook.dangers:
            self._note(danger, acts)
        for wait in plan.waits:
            self._tell_once(wait.danger, seen, acts, "DrainWaits", wait.words)
        for placed in outlook.heads:
            message = f"Ray's head runs in pod {placed.pod['metadata']['name']}, which cannot be drained"
            if self._is_new(placed.node, message):
                acts.tell(about_node(placed.node), reason="HeadLeaves", message=message, kind="Warning")
        return plan

    def _drain_all(self, drains: Sequence[Drain], seen: Surroundings, acts: Acts) -> None:
        """Forced drains first, and their events after all of them: the API server may be slow. If this process ends in
        between, the next one asks again, since nothing is noted yet, and tells. Nobody asks again for a drain that is
        not forced, so its event comes first, and only once however often the farm refuses."""
        forced = [drain for drain in drains if drain.danger.notice.signal.forced]
        for drain in [drain for drain in forced if self._ask(drain, seen, acts)]:
            self._tell_of(drain, seen, acts)
        for drain in (drain for drain in drains if not drain.danger.notice.signal.forced):
            danger = drain.danger
            if self._is_new(danger.node, f"{danger.notice.signal.name} {danger.ray_node.id} {danger.asked_until}"):
                self._tell_of(drain, seen, acts)
            self._ask(drain, seen, acts)

    def _ask(self, drain: Drain, seen: Surroundings, acts: Acts) -> bool:
        """Whether the farm will drain it. Why it refuses is told once."""
        danger, refusals = drain.danger, list[str]()

        def ask() -> None:
            try:
                self._farm.drain(danger.ray_node.id, drain.request)
            except FarmRefused as error:
                refusals.append(str(error))
                raise

        if acts.do("farm", "drain", ask) != "done":
            for refusal in refusals:
                message = f"the farm does not drain pod {danger.pod}: {refusal}"
                self._tell_once(danger, seen, acts, "DrainRefused", message, "Warning")
            return False
        self._asked[danger.ray_node.id] = drain.until
        self._metrics.drains.labels(drain.request.cause).inc()
        log.info("%s", drain.words, extra={"action": "drain", "node": danger.node, "pod": danger.pod})
        return True

    def _tell_of(self, drain: Drain, seen: Surroundings, acts: Acts) -> None:
        self._tell(drain.danger, seen, acts, "Draining", drain.words, "Warning" if drain.over else "Normal")

    def _note(self, danger: Danger, acts: Acts) -> None:
        """Write into the pod what the farm was asked for, where it does not stand there."""
        until = self._asked.get(danger.ray_node.id)
        # Annotations have whole seconds.
        if until is None or (danger.asked_until is not None and danger.asked_until <= until + 1):
            return
        notes = {"metadata": {"annotations": drain_annotations(danger, until)}}
        acts.do("kubernetes", "note", lambda: self._kube.patch(PODS, danger.pod, notes, namespace=self._namespace))

    def _remember(self, danger: Danger) -> Danger:
        known = [until for until in (danger.asked_until, self._asked.get(danger.ray_node.id)) if until is not None]
        return replace(danger, asked_until=min(known, default=None))

    def _show(self, seen: Surroundings, outlook: Outlook, plan: DrainPlan) -> None:
        self._metrics.show_nodes(read_topology(node) for node in seen.nodes)
        self._metrics.in_danger.set(len(outlook.dangers))
        self._metrics.draining.set(sum(node.state == "draining" for node in seen.ray_nodes))
        self._metrics.waiting.set(len(plan.waits))

    def _tell(
        self, danger: Danger, seen: Surroundings, acts: Acts, reason: str, message: str, kind: EventType = "Normal"
    ) -> None:
        """An event on the node, and one on each RenderPool whose gangs are concerned."""
        acts.tell(about_node(danger.node), reason=reason, message=message, kind=kind)
        concerned = {pool_of(gang, seen.pools) for gang in danger.ray_node.gangs}
        for pool in seen.render_pools:
            if pool.spec is not None and pool.spec.pool in concerned:
                acts.tell(about_pool(pool), reason=reason, message=f"node {danger.node}: {message}", kind=kind)

    def _tell_once(
        self, danger: Danger, seen: Surroundings, acts: Acts, reason: str, message: str, kind: EventType = "Normal"
    ) -> None:
        if self._is_new(danger.node, message):
            self._tell(danger, seen, acts, reason, message, kind)

    def _is_new(self, node: str, message: str) -> bool:
        """Whether this process says it for the first time."""
        if (node, message) in self._told:
            return False
        self._told[node, message] = None
        while len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]
        return True


def about_node(name: str) -> Json:
    """A node as an event is about it: like the kubelet's, whose events name the node as its own uid."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}}


def about_pool(pool: RenderPool) -> Json:
    """A RenderPool as an event is about it."""
    meta = {"name": pool.name, "namespace": pool.namespace, "uid": pool.uid}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta}
