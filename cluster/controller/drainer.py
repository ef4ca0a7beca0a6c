"""Carries out drains: asks the farm, writes into the pod that it did, and emits events on the node and the pools.

drain_plan.py decides what is drained when. What is remembered here only saves repetitions while a mirror lags behind;
everything is right without it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cluster.contract.pools_and_nodes import DrainRequest, NodeState
from cluster.controller.actions import Actions
from cluster.controller.departures import Departures, drain_annotations, find_departures
from cluster.controller.drain_plan import Departure, Drain, DrainLimits, DrainPlan, plan_drains, pool_of
from cluster.controller.metrics import ControllerMetrics
from cluster.errors import FarmRefused
from cluster.kube.client import Json, Kube
from cluster.kube.events import EventType
from cluster.kube.resources import PODS
from cluster.render_pool import API_VERSION, KIND, RenderPool
from cluster.topology import read_topology

MAX_ANNOUNCED = 10_000
"""Messages that are remembered so that they are not sent again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DrainInputs:
    """What a round knows when it looks for nodes that will go."""

    nodes: Sequence[Json]
    pods: Sequence[Json]
    ray_nodes: Sequence[NodeState]
    pools: Sequence[str]
    """Names of the farm's pools."""
    render_pools: Sequence[RenderPool]
    """They get events about their gangs."""


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
        self._requested_until: dict[str, float] = {}
        self._announced: dict[tuple[str, str], None] = {}

    def drain(self, inputs: DrainInputs, actions: Actions, *, now: float) -> DrainPlan:
        """Drain what is due, and return the plan that was followed. Raises NotLeader."""
        found = find_departures(inputs.nodes, inputs.pods, inputs.ray_nodes, heed_cordons=self._heed_cordons, now=now)
        departures = [self._with_requested(departure) for departure in found.departures]
        plan = plan_drains(departures, inputs.ray_nodes, pools=inputs.pools, limits=self._limits, now=now)
        self._export(inputs, found, plan)
        known = {node.id for node in inputs.ray_nodes}
        self._requested_until = {node: until for node, until in self._requested_until.items() if node in known}
        self._drain_all(plan.drains, inputs, actions)
        for departure in found.departures:
            self._annotate(departure, actions)
        for wait in plan.waits:
            self._announce_once(wait.departure, inputs, actions, "DrainWaits", wait.message)
        for placed in found.heads:
            message = f"Ray's head runs in pod {placed.pod['metadata']['name']}, which cannot be drained"
            if self._is_new(placed.node, message):
                actions.emit(about_node(placed.node), reason="HeadLeaves", message=message, kind="Warning")
        return plan

    def _drain_all(self, drains: Sequence[Drain], inputs: DrainInputs, actions: Actions) -> None:
        """Forced drains first, and their events after all of them: the API server may be slow. If this process ends in
        between, the next one asks again, since nothing is noted yet, and announces. Nobody asks again for a drain that
        is not forced, so its event comes first, and only once however often the farm refuses."""
        forced = [drain for drain in drains if drain.departure.notice.signal.forced]
        for drain in [drain for drain in forced if self._request(drain, inputs, actions)]:
            self._announce_drain(drain, inputs, actions)
        for drain in (drain for drain in drains if not drain.departure.notice.signal.forced):
            departure = drain.departure
            what = f"{departure.notice.signal.name} {departure.ray_node.id} {departure.requested_until}"
            if self._is_new(departure.node, what):
                self._announce_drain(drain, inputs, actions)
            self._request(drain, inputs, actions)

    def _request(self, drain: Drain, inputs: DrainInputs, actions: Actions) -> bool:
        """Whether the farm will drain it. If it refuses, that is announced once."""
        departure, refusals = drain.departure, list[str]()

        def request() -> None:
            try:
                self._farm.drain(departure.ray_node.id, drain.request)
            except FarmRefused as error:
                refusals.append(str(error))
                raise

        if actions.run("farm", "drain", request) != "done":
            for refusal in refusals:
                message = f"the farm does not drain pod {departure.pod}: {refusal}"
                self._announce_once(departure, inputs, actions, "DrainRefused", message, "Warning")
            return False
        self._requested_until[departure.ray_node.id] = drain.until
        self._metrics.drains.labels(drain.request.cause).inc()
        log.info("%s", drain.message, extra={"action": "drain", "node": departure.node, "pod": departure.pod})
        return True

    def _annotate(self, departure: Departure, actions: Actions) -> None:
        """Write into the pod what the farm was asked for, unless it is there."""
        until = self._requested_until.get(departure.ray_node.id)
        # Annotations have whole seconds.
        if until is None or (departure.requested_until is not None and departure.requested_until <= until + 1):
            return
        patch = {"metadata": {"annotations": drain_annotations(departure, until)}}
        actions.run(
            "kubernetes", "note", lambda: self._kube.patch(PODS, departure.pod, patch, namespace=self._namespace)
        )

    def _with_requested(self, departure: Departure) -> Departure:
        """With the earliest end that was requested, by the pod's annotations or by this process."""
        ends = (departure.requested_until, self._requested_until.get(departure.ray_node.id))
        return replace(departure, requested_until=min((end for end in ends if end is not None), default=None))

    def _export(self, inputs: DrainInputs, found: Departures, plan: DrainPlan) -> None:
        self._metrics.show_nodes(read_topology(node) for node in inputs.nodes)
        self._metrics.in_danger.set(len(found.departures))
        self._metrics.draining.set(sum(node.state == "draining" for node in inputs.ray_nodes))
        self._metrics.waiting.set(len(plan.waits))

    def _announce_drain(self, drain: Drain, inputs: DrainInputs, actions: Actions) -> None:
        kind: EventType = "Warning" if drain.exceeded else "Normal"
        self._announce(drain.departure, inputs, actions, "Draining", drain.message, kind)

    def _announce_once(
        self,
        departure: Departure,
        inputs: DrainInputs,
        actions: Actions,
        reason: str,
        message: str,
        kind: EventType = "Normal",
    ) -> None:
        if self._is_new(departure.node, message):
            self._announce(departure, inputs, actions, reason, message, kind)

    def _announce(
        self, departure: Departure, inputs: DrainInputs, actions: Actions, reason: str, message: str, kind: EventType
    ) -> None:
        """An event on the node, and one on each RenderPool whose gangs are concerned."""
        actions.emit(about_node(departure.node), reason=reason, message=message, kind=kind)
        concerned = {pool_of(gang, inputs.pools) for gang in departure.ray_node.gangs}
        for pool in inputs.render_pools:
            if pool.spec is not None and pool.spec.pool in concerned:
                actions.emit(about_pool(pool), reason=reason, message=f"node {departure.node}: {message}", kind=kind)

    def _is_new(self, node: str, message: str) -> bool:
        """Whether this process has not announced it yet; from now on it has."""
        if (node, message) in self._announced:
            return False
        self._announced[node, message] = None
        while len(self._announced) > MAX_ANNOUNCED:
            del self._announced[next(iter(self._announced))]
        return True


def about_node(name: str) -> Json:
    """A node as the object of an event; as in the kubelet's events, its uid is its name."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}}


def about_pool(pool: RenderPool) -> Json:
    """A RenderPool as the object of an event."""
    meta = {"name": pool.name, "namespace": pool.namespace, "uid": pool.uid}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta}
