"""Declares every metric of the controller, once. Each process has its own; what is said of pools only the leader says.

Labels are bounded: pools, causes, actions, outcomes. Times are seconds.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cluster.render_pool import RenderPool
from cluster.topology import NodeTopology

ROUND_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds."""


class ControllerMetrics:
    """The controller's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leads = self._gauge("leads", "1 in the process that acts, else 0.")
        self.farm_reachable = self._gauge("farm_reachable", "1 if the farm answered when it was last asked.")
        self.last_round = self._gauge("last_round_timestamp_seconds", "When the last round ended without a failure.")
        self.in_danger = self._gauge("nodes_in_danger", "Ray nodes on nodes that will go.")
        self.draining = self._gauge("nodes_draining", "Ray nodes that are being drained.")
        self.waiting = self._gauge("drains_waiting", "Ray nodes whose drain waits for others.")
        self.ready = self._gauge("pool_ready", "1 if the farm has the pool as its RenderPool says.", "pool")
        self.gpus = self._gauge("node_gpus", "GPUs that nodes offer to pods.", "product", "spot")
        self.rounds = Counter("longtake_controller_rounds", "Rounds.", ["outcome"], registry=self.registry)
        self.round_seconds = Histogram(
            "longtake_controller_round_seconds",
            "How long a round takes.",
            buckets=ROUND_BUCKETS,
            registry=self.registry,
        )
        self.actions = Counter(
            "longtake_controller_actions",
            "What was done, and how it went.",
            ["action", "outcome"],
            registry=self.registry,
        )
        self.drains = Counter(
            "longtake_controller_drains", "Drains that the farm was asked for.", ["cause"], registry=self.registry
        )

    def show_pools(self, pools: Iterable[RenderPool], ready: Mapping[str, bool]) -> None:
        """Which pools are as they should be; `ready` is by key of the RenderPool."""
        self.ready.clear()
        for pool in pools:
            if pool.spec is not None:
                # Of two RenderPools for one pool at most one is ready.
                self.ready.labels(pool.spec.pool).inc(ready.get(pool.key, False))

    def show_nodes(self, nodes: Iterable[NodeTopology]) -> None:
        """GPUs of the cluster's nodes."""
        self.gpus.clear()
        for node in nodes:
            if node.gpus:
                spot = {True: "true", False: "false", None: "unknown"}[node.spot]
                self.gpus.labels(node.product or "unknown", spot).inc(node.gpus)

    def stand_by(self) -> None:
        """Another process leads: say nothing of what only a leader knows."""
        for gauge in (self.leads, self.in_danger, self.draining, self.waiting):
            gauge.set(0)
        self.ready.clear()
        self.gpus.clear()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"longtake_controller_{name}", meaning, labels, registry=self.registry)
