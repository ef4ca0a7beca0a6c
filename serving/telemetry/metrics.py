"""Declares every metric of the farm, once. One exporter holds them: the Director's.

Labels are bounded: pools, statuses, outcomes, reasons, routes. Never a job, shot, user or prompt. Times are seconds,
sizes bytes, money US dollars. Counters begin at 0 with each Director and are never set: a value that was restored would
look like a reset to who scrapes it. What lasts longer than a Director is counted by the one that writes it down, or
from the store's events (director/reporting/counters.py), so that no two count it.
"""

import importlib.metadata
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Literal, get_args

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cluster.contract.pools_and_nodes import PoolSupply
from serving.telemetry.histograms import LAG_BUCKETS, REQUEST_BUCKETS, ApiReport, MergedHistogram

WAIT_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
"""Seconds."""

CALL_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 80, 160)
"""Seconds: a call of pocket takes 0.05, one of a large model up to a minute."""

FINISH_BUCKETS = (0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 900)
"""Seconds."""

SEAM_BUCKETS = (0.8, 0.9, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5, 2, 3)
"""The jump at a seam over that between other frames; 1 is none."""

ERROR_BUCKETS = (0.25, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4)
"""Measured over predicted; 1 is exact."""

FAILURES = (
    "cannot_render",
    "cannot_start",
    "host_failed",
    "poison_call",
    "call_failed",
    "decode_failed",
    "finishing_failed",
    "internal_error",
    "other",
)
"""Codes that jobs fail with."""

CALL_REASONS = {
    "done": ("",),
    "failed": ("gang_died", "call_raised", "timed_out", "bad_prediction", "host_lost"),
    "moot": ("not_ready", "waited"),
}
"""Why calls end as they do. Moot: it cost nothing that counts. Waited: beside the call that its gang died of."""

CALL_STAGES = ("input", "wait", "compute", "answer")
"""Of a call: its input is put together; it travels and waits at its gang; it is predicted; the timeline takes it in."""

Loss = Literal["died", "hung", "broken", "drained", "scaled_down", "node_lost"]
"""How a gang went: its process died; a call hung; its calls failed repeatedly; its node is emptied; it was one too
many, or replaced by another configuration; its node is gone."""

# The time at which each series began, which nobody reads here, would double their number.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class FarmMetrics:
    """The farm's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._declare_jobs()
        self._declare_calls()
        self._declare_pools()
        self._declare_finishing()
        self._declare_the_farm_itself()

    def _declare_jobs(self) -> None:
        gauge, counter = partial(Gauge, registry=self.registry), partial(Counter, registry=self.registry)
        waits = partial(Histogram, registry=self.registry, buckets=WAIT_BUCKETS)
        self.jobs = gauge("longtake_jobs", "Jobs by status.", ["status"])
        self.submitted = counter("longtake_jobs_submitted", "Jobs that were accepted.", ["pool"])
        self.finished = counter(
            "longtake_jobs_finished",
            "Jobs that ended, by how: completed, failed or cancelled; code says why they failed.",
            ["pool", "outcome", "code"],
        )
        self.queue_wait = waits("longtake_job_queue_wait_seconds", "From acceptance to the first call.", ["pool"])
        self.end_to_end = waits("longtake_job_duration_seconds", "From acceptance to the film.", ["pool"])
        self.due_times = counter(
            "longtake_due_times", "Due times of jobs that completed or failed, met or missed.", ["pool", "outcome"]
        )
        self.at_risk = gauge("longtake_pool_jobs_at_risk", "Jobs that will probably miss their due time.", ["pool"])
        self.near_budget = gauge(
            "longtake_jobs_near_budget", "Jobs at work that have spent 80 % of their budget or more.", ["pool"]
        )
        self.spent_usd = counter("longtake_spent_usd", "Money charged to jobs.", ["pool"])
        self.spend_limit = gauge(
            "longtake_spend_limit_usd_per_day",
            "The money that the farm should not spend in a day; NaN without a limit.",
        )
        self.assets = gauge("longtake_assets", "Pictures that tenants keep.")
        self.asset_bytes = gauge("longtake_assets_bytes", "Bytes of the pictures that tenants keep.")

    def _declare_calls(self) -> None:
        counter, histogram = partial(Counter, registry=self.registry), partial(Histogram, registry=self.registry)
        self.calls = counter("longtake_calls", "Calls by how they ended, and why.", ["pool", "outcome", "reason"])
        self.call_seconds = histogram(
            "longtake_call_seconds",
            "Seconds of calls that were done, by stage: input, wait, compute, answer.",
            ["pool", "stage"],
            buckets=CALL_BUCKETS,
        )
        self.gpu_seconds = counter("longtake_gpu_seconds", "GPU-seconds of calls, useful or wasted.", ["pool", "use"])
        self.cost_error = histogram(
            "longtake_cost_model_error_ratio",
            "Measured over predicted seconds of a call; 1 is exact.",
            ["pool"],
            buckets=ERROR_BUCKETS,
        )
        self.latents_finished = counter("longtake_latents_finished", "Latents that took their last step.", ["pool"])
        self.takes = counter(
            "longtake_takes",
            "Takes whose latents are there, by source: rendered for their job, or cache.",
            ["pool", "source"],
        )

    def _declare_pools(self) -> None:
        gauge, counter = partial(Gauge, registry=self.registry), partial(Counter, registry=self.registry)
        self.backlog = gauge("longtake_pool_backlog_gpu_seconds", "GPU-seconds still to do.", ["pool"])
        self.calls_ready = gauge("longtake_pool_calls_ready", "Calls that no gang has.", ["pool"])
        self.demand_at = gauge(
            "longtake_demand_timestamp_seconds", "Unix time at which the pool's demand was measured last.", ["pool"]
        )
        self.gangs_wanted = gauge("longtake_pool_gangs_wanted", "Gangs that the pool should have.", ["pool"])
        self.gangs_starting = gauge("longtake_pool_gangs_starting", "Gangs asked for that take no calls yet.", ["pool"])
        self.cold_start = gauge(
            "longtake_pool_cold_start_seconds",
            "From asking for a gang until it takes calls, as measured lately or assumed.",
            ["pool"],
        )
        self.gangs_ready = gauge("longtake_pool_gangs_ready", "Gangs that take calls.", ["pool"])
        self.gangs_idle = gauge("longtake_pool_gangs_idle", "Gangs with no call.", ["pool"])
        self.gangs_draining = gauge("longtake_pool_gangs_draining", "Gangs that take no more calls.", ["pool"])
        self.gangs_started = counter("longtake_gangs_started", "Gangs that came to take calls.", ["pool"])
        self.gangs_lost = counter("longtake_gangs_lost", "Gangs that went, by why.", ["pool", "reason"])
        self.due_slack = gauge(
            "longtake_pool_due_slack_seconds",
            "Slack in seconds of the tightest due time that max_gangs could keep; NaN if there is none.",
            ["pool"],
        )

    def _declare_finishing(self) -> None:
        gauge, counter = partial(Gauge, registry=self.registry), partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.films = counter("longtake_films_delivered", "Films that were delivered.", ["pool"])
        self.video_seconds = counter("longtake_video_seconds_delivered", "Seconds of delivered films.", ["pool"])
        self.decode_seconds = histogram(
            "longtake_decode_seconds", "Seconds that a decoder took for one order.", ["pool"], buckets=FINISH_BUCKETS
        )
        self.encode_seconds = histogram(
            "longtake_encode_seconds", "Seconds to assemble and encode a film.", ["pool"], buckets=FINISH_BUCKETS
        )
        self.seam_jumps = histogram(
            "longtake_seam_jump_ratio",
            "The jump at a seam over that between other frames; 1 is none.",
            ["pool"],
            buckets=SEAM_BUCKETS,
        )
        self.checkpoints = counter("longtake_checkpoints", "Checkpoints of takes, written or failed.", ["outcome"])
        self.checkpoint_bytes = counter("longtake_checkpoint_bytes", "Bytes of checkpoints that were written.")
        self.checkpoint_age = gauge(
            "longtake_checkpoint_age_seconds", "Time since its last checkpoint of the take that waits longest for one."
        )

    def _declare_the_farm_itself(self) -> None:
        gauge, counter = partial(Gauge, registry=self.registry), partial(Counter, registry=self.registry)
        self.hosts_lost = counter("longtake_hosts_lost", "Timeline hosts that were lost with what they held.")
        self.store_errors = counter(
            "longtake_store_errors", "Times that the database or the artifacts did not answer.", ["store"]
        )
        self.api_requests = MergedHistogram(
            "longtake_api_request_seconds",
            "Seconds until the Api began to answer, by route, method and class of status.",
            ["route", "method", "code"],
            buckets=REQUEST_BUCKETS,
        )
        self.events_lag = MergedHistogram(
            "longtake_events_lag_seconds",
            "From the writing of an event until it was sent to who watches its job.",
            [],
            buckets=LAG_BUCKETS,
        )
        self.registry.register(self.api_requests)
        self.registry.register(self.events_lag)
        self.build_info = gauge("longtake_build_info", "The release that the Director runs; always 1.", ["version"])
        self.build_info.labels(importlib.metadata.version("longtake")).set(1)
        self.generation = gauge("longtake_director_generation", "Number of the Director; it rises with each.")
        self.leases = gauge("longtake_director_leases", "Jobs that the Director holds.")

    # ------------------------------------------------------------------------------------------------ setting

    def open(self, pools: Iterable[str], *, spend_limit_usd_per_day: float | None) -> None:
        """Let every series that these pools may have begin at 0, so that its first count is an increase too."""
        self.spend_limit.set(math.nan if spend_limit_usd_per_day is None else spend_limit_usd_per_day)
        for outcome in ("written", "failed"):
            self.checkpoints.labels(outcome)
        for store in ("database", "artifacts"):
            self.store_errors.labels(store)
        self.events_lag.open()
        for pool in pools:
            self._open_pool(pool)

    def _open_pool(self, pool: str) -> None:
        for metric in (self.submitted, self.latents_finished, self.films, self.video_seconds, self.spent_usd):
            metric.labels(pool)
        for plain in (self.gangs_started, self.queue_wait, self.end_to_end, self.seam_jumps, self.cost_error):
            plain.labels(pool)
        self.decode_seconds.labels(pool)
        self.encode_seconds.labels(pool)
        for outcome, reasons in CALL_REASONS.items():
            for reason in reasons:
                self.calls.labels(pool, outcome, reason)
        for labelled, values in (
            (self.gpu_seconds, ("useful", "wasted")),
            (self.takes, ("rendered", "cache")),
            (self.due_times, ("met", "missed")),
            (self.gangs_lost, get_args(Loss)),
        ):
            for value in values:
                labelled.labels(pool, value)
        for outcome in ("completed", "cancelled"):
            self.finished.labels(pool, outcome, "")
        for code in FAILURES:
            self.finished.labels(pool, "failed", code)
        for stage in CALL_STAGES:
            self.call_seconds.labels(pool, stage)

    def set_gangs(self, pool: str, *, wanted: int, supply: PoolSupply) -> None:
        """Set how many gangs a pool should have, and how it stands with them."""
        self.gangs_wanted.labels(pool).set(wanted)
        self.gangs_ready.labels(pool).set(supply.ready)
        self.gangs_idle.labels(pool).set(supply.idle)
        self.gangs_draining.labels(pool).set(supply.draining)
        self.gangs_starting.labels(pool).set(supply.starting)
        self.cold_start.labels(pool).set(supply.cold_start_s)

    def count_jobs(self, counts: Mapping[str, int]) -> None:
        """Set how many jobs have each status; `counts` names every status."""
        for status, number in counts.items():
            self.jobs.labels(status).set(number)

    def hear_api(self, report: ApiReport) -> None:
        """Add what a process of the Api has measured since it reported last."""
        for (route, method, code), counted in report.requests.items():
            self.api_requests.add((route, method, code), counted)
        self.events_lag.add((), report.events_lag)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
