"""Declares every metric of the farm, once. One exporter holds them: the Director's.

Labels are bounded: pools, statuses, outcomes. Never a job, shot, user or prompt. Times are seconds, money US dollars.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cluster.contract import PoolSupply

WAIT_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
"""Seconds."""


class FarmMetrics:
    """The farm's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = Gauge("longtake_jobs", "Jobs by status.", ["status"], registry=self.registry)
        self.calls = Counter("longtake_calls", "Calls by how they ended.", ["pool", "outcome"], registry=self.registry)
        self.gpu_seconds = Counter(
            "longtake_gpu_seconds", "GPU-seconds of calls, useful or wasted.", ["pool", "use"], registry=self.registry
        )
        self.spent_usd = Counter("longtake_spent_usd", "Money charged to jobs.", ["pool"], registry=self.registry)
        self.backlog = Gauge(
            "longtake_pool_backlog_gpu_seconds", "GPU-seconds still to do.", ["pool"], registry=self.registry
        )
        self.calls_ready = Gauge(
            "longtake_pool_calls_ready", "Calls that no gang has.", ["pool"], registry=self.registry
        )
        self.gangs_wanted = Gauge(
            "longtake_pool_gangs_wanted", "Gangs that the pool should have.", ["pool"], registry=self.registry
        )
        self.gangs_starting = Gauge(
            "longtake_pool_gangs_starting", "Gangs asked for that take no calls yet.", ["pool"], registry=self.registry
        )
        self.cold_start = Gauge(
            "longtake_pool_cold_start_seconds",
            "From asking for a gang until it takes calls, as measured lately or assumed.",
            ["pool"],
            registry=self.registry,
        )
        self.gangs_ready = Gauge(
            "longtake_pool_gangs_ready", "Gangs that take calls.", ["pool"], registry=self.registry
        )
        self.gangs_idle = Gauge("longtake_pool_gangs_idle", "Gangs with no call.", ["pool"], registry=self.registry)
        self.gangs_draining = Gauge(
            "longtake_pool_gangs_draining", "Gangs that take no more calls.", ["pool"], registry=self.registry
        )
        self.due_slack = Gauge(
            "longtake_pool_due_slack_seconds",
            "Time to spare of the tightest due time; absent jobs with one, it is NaN.",
            ["pool"],
            registry=self.registry,
        )
        self.queue_wait = Histogram(
            "longtake_job_queue_wait_seconds",
            "From acceptance to the first call.",
            ["pool"],
            buckets=WAIT_BUCKETS,
            registry=self.registry,
        )
        self.end_to_end = Histogram(
            "longtake_job_duration_seconds",
            "From acceptance to the film.",
            ["pool"],
            buckets=WAIT_BUCKETS,
            registry=self.registry,
        )
        self.store_errors = Counter(
            "longtake_store_errors", "Times that the store did not answer the Director.", registry=self.registry
        )

    def set_gangs(self, pool: str, *, wanted: int, supply: PoolSupply) -> None:
        """Set how many gangs a pool should have, and how it stands with them."""
        self.gangs_wanted.labels(pool).set(wanted)
        self.gangs_ready.labels(pool).set(supply.ready)
        self.gangs_idle.labels(pool).set(supply.idle)
        self.gangs_draining.labels(pool).set(supply.draining)
        self.gangs_starting.labels(pool).set(supply.starting)
        self.cold_start.labels(pool).set(supply.cold_start_s)

    def count_jobs(self, counts: Mapping[str, int]) -> None:
        """Set the jobs of every status; those not named are none."""
        for status in ("queued", "in_progress", "paused", "completed", "failed", "cancelled"):
            self.jobs.labels(status).set(counts.get(status, 0))

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
