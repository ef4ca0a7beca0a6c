"""What is counted, is counted once, whoever dies; and labels stay few, whatever jobs are called."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serving.director.pools.gangs import GANG_SILENT_S, Gangs
from serving.director.reporting.counters import Counters, EventCounters
from serving.errors import StoreUnavailable
from serving.jobs.lifecycle import Lifecycle
from serving.render.farm_messages import (
    Assembled,
    CallReport,
    CallTimes,
    CheckpointCounts,
    Decoded,
    GangHello,
    Outcome,
    TakeProgress,
)
from serving.scheduler.cost_model import CostModel
from serving.scheduler.state import FarmState, PoolSpec
from serving.store.database import Database
from serving.store.jobs import JobStore
from serving.store.records import JobFact, JobStatus, LedgerEntry
from serving.telemetry.histograms import ApiReport, Counted, MergedHistogram, Tally
from serving.telemetry.metrics import CALL_REASONS, CALL_STAGES, FAILURES, FarmMetrics
from testkit.records import NOW, new_job
from testkit.test_tools import NO_PROMETHEUS
from tests.serving.telemetry.metrics_table import PAGE, declared, with_table

POOL = "default"
FILM = {"sha256": "ab" * 32, "frames": 32, "seconds": 2.5}
OUTCOMES: tuple[Outcome, ...] = ("done", "gang_died", "call_raised", "timed_out", "bad_prediction", "not_ready")


def opened() -> FarmMetrics:
    metrics = FarmMetrics()
    metrics.open([POOL], spend_limit_usd_per_day=None)
    return metrics


def value(metrics: Iterable[FarmMetrics] | FarmMetrics, name: str, **labels: str) -> float:
    """Of a series, summed over Directors and over labels that are not named."""
    several = [metrics] if isinstance(metrics, FarmMetrics) else metrics
    return sum(
        sample.value
        for one in several
        for family in text_string_to_metric_families(one.text().decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def report(outcome: Outcome = "done", **values: Any) -> CallReport:
    return CallReport(outcome, 1.0, values.pop("detail", ""), (), TakeProgress((0, 1), 0, 0), **values)


# ------------------------------------------------------------------------------------------------ what is durable


def counting_of(database: Database) -> tuple[FarmMetrics, EventCounters]:
    metrics = opened()
    return metrics, EventCounters(JobStore(database), Counters(metrics), clock=lambda: NOW)


def test_what_happened_is_counted_by_what_became_of_it(database: Database) -> None:
    store, lifecycle = JobStore(database), Lifecycle(database)
    metrics, events = counting_of(database)
    done, late, failed, cancelled = (
        store.insert(new_job(NOW + number, due_at=due), [], actor="longtake")
        for number, due in enumerate((NOW + 100, NOW + 20, NOW + 100, None))
    )
    for job in (done, late, failed):
        lifecycle.apply(job.id, "start", reason="", now=NOW + 10)
    for job in (done, late):
        lifecycle.apply(job.id, "complete", reason="", now=NOW + 60, film=FILM)
    lifecycle.apply(failed.id, "fail", reason="", now=NOW + 60, error={"code": "poison_call", "message": "a ball"})
    lifecycle.apply(cancelled.id, "cancel", reason="", now=NOW + 60)
    store.delete(done.id, actor="ada", now=NOW + 70)

    async def body() -> None:
        await events.begin(1)
        await events.count()
        await events.count()

    asyncio.run(body())
    assert value(metrics, "longtake_jobs_submitted_total") == 4
    assert value(metrics, "longtake_jobs_finished_total", outcome="completed") == 2
    assert value(metrics, "longtake_jobs_finished_total", outcome="failed", code="poison_call") == 1
    assert value(metrics, "longtake_jobs_finished_total", outcome="cancelled") == 1
    assert value(metrics, "longtake_due_times_total", outcome="met") == 1
    assert value(metrics, "longtake_due_times_total", outcome="missed") == 2
    assert value(metrics, "longtake_films_delivered_total") == 2
    assert value(metrics, "longtake_video_seconds_delivered_total") == 5.0
    assert value(metrics, "longtake_job_queue_wait_seconds_count") == 3
    assert value(metrics, "longtake_job_queue_wait_seconds_sum") == pytest.approx(10 + 9 + 8)
    assert value(metrics, "longtake_job_duration_seconds_sum") == pytest.approx(60 + 59)


def test_the_next_director_counts_what_came_after_the_last_one_and_nothing_twice(database: Database) -> None:
    store = JobStore(database)
    (first, counted), (second, counting) = counting_of(database), counting_of(database)

    async def body() -> None:
        store.insert(new_job(NOW), [], actor="longtake")
        await counted.begin(1)
        await counted.count()
        store.insert(new_job(NOW + 1), [], actor="longtake")  # while there is no Director
        await counting.begin(2)
        await counting.count()

    asyncio.run(body())
    assert [value(metrics, "longtake_jobs_submitted_total") for metrics in (first, second)] == [1, 1]


def test_two_directors_at_once_count_each_event_once(database: Database) -> None:
    store = JobStore(database)
    both = [counting_of(database) for _ in range(2)]

    async def body() -> None:
        for generation, (_, events) in enumerate(both, 1):
            await events.begin(generation)
        for number in range(20):
            store.insert(new_job(NOW + number), [], actor="longtake")
            await asyncio.gather(*(events.count() for _, events in both))
        for _, events in both:  # who had lost the race goes on from where the other is
            await events.count()

    asyncio.run(body())
    assert value([metrics for metrics, _ in both], "longtake_jobs_submitted_total") == 20


def test_an_answer_of_the_store_that_is_lost_loses_no_count(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JobStore(database)
    metrics, events = counting_of(database)
    advance = JobStore.advance

    def advance_and_lose_the_answer(self: JobStore, name: str, **values: Any) -> bool:
        advance(self, name, **values)
        monkeypatch.setattr(JobStore, "advance", advance)
        raise StoreUnavailable("it went away at the very end")

    async def body() -> None:
        await events.begin(1)
        store.insert(new_job(NOW), [], actor="longtake")
        monkeypatch.setattr(JobStore, "advance", advance_and_lose_the_answer)
        with pytest.raises(StoreUnavailable):
            await events.count()
        store.insert(new_job(NOW + 1), [], actor="longtake")
        await events.count()

    asyncio.run(body())
    assert value(metrics, "longtake_jobs_submitted_total") == 2


def test_a_farm_that_worked_before_events_were_counted_begins_with_what_comes(database: Database) -> None:
    store = JobStore(database)
    metrics, events = counting_of(database)

    async def body() -> None:
        store.insert(new_job(NOW), [], actor="longtake")
        await events.begin(7)
        store.insert(new_job(NOW + 1), [], actor="longtake")
        await events.count()

    asyncio.run(body())
    assert value(metrics, "longtake_jobs_submitted_total") == 1


# ------------------------------------------------------------------------------------------------ what one sees


def test_calls_are_counted_by_outcome_and_reason() -> None:
    metrics = opened()
    counting = Counters(metrics)
    for outcome in OUTCOMES:
        counting.call_ended(POOL, report(outcome), waited=False)
    counting.call_ended(POOL, report("gang_died"), waited=True)
    counting.call_lost(POOL)
    assert value(metrics, "longtake_calls_total") == 8
    for ended, reasons in CALL_REASONS.items():
        for reason in reasons:
            assert value(metrics, "longtake_calls_total", outcome=ended, reason=reason) == 1


def test_a_report_of_the_api_that_comes_twice_counts_once() -> None:
    metrics = opened()
    counting = Counters(metrics)
    tally = Tally(metrics.api_requests.bounds)
    tally.observe(0.07)
    lag = Tally(metrics.events_lag.bounds)
    lag.observe(0.3)
    said = ApiReport("one", 1, {("/v1/jobs", "GET", "2xx"): tally.counted()}, lag.counted())
    for _ in range(2):
        counting.hear_api(said)
    counting.hear_api(ApiReport("two", 1, said.requests, said.events_lag))
    assert value(metrics, "longtake_api_request_seconds_count", route="/v1/jobs", method="GET", code="2xx") == 2
    assert value(metrics, "longtake_api_request_seconds_bucket", le="0.05") == 0
    assert value(metrics, "longtake_api_request_seconds_bucket", le="0.1") == 2
    assert value(metrics, "longtake_events_lag_seconds_sum") == pytest.approx(0.6)


@given(st.lists(st.floats(0, 100), max_size=30), st.lists(st.floats(0, 100), max_size=30))
def test_histograms_that_are_added_are_those_of_all_observations(some: list[float], others: list[float]) -> None:
    bounds = (0.5, 1.0, 7.0)
    apart = MergedHistogram("x", "x", (), buckets=bounds)
    for values in (some, others):
        tally = Tally(bounds)
        for one in values:
            tally.observe(one)
        apart.add((), tally.counted())
    [family] = apart.collect()
    shown = {sample.labels["le"]: sample.value for sample in family.samples if sample.name == "x_bucket"}
    assert shown == {
        **{str(bound): sum(one <= bound for one in some + others) for bound in bounds},
        "+Inf": len(some + others),
    }


def test_gangs_are_lost_by_what_befell_them() -> None:
    metrics = opened()
    state = FarmState(CostModel())
    state.put_pool(PoolSpec(POOL, 2, gpus_per_gang=1, max_gangs=9))
    gangs = Gangs(state, metrics)
    gangs.load({POOL: ["old"]})

    def hello(name: str, **values: Any) -> None:
        gangs.hello(GangHello(name, POOL, {"weights": "w"}, values.pop("node", "n"), **values), None, NOW + 5)

    hello("old", draining=False)
    hello("hung", draining=False)
    hello("dead", draining=False)
    hello("gone", draining=False, node="m")
    hello("moved", draining=True, moves=True)
    hello("many", draining=True)
    assert sorted(gangs.count_started(POOL)) == ["dead", "gone", "hung", "many", "moved", "old"]
    assert value(metrics, "longtake_gangs_started_total") == 5
    gangs.condemn("hung", NOW + 6, why="hung")
    gangs.condemn("hung", NOW + 6, why="died")
    silent_at = NOW + 6 + GANG_SILENT_S
    assert sorted(gangs.silent(silent_at)) == ["dead", "gone", "many", "moved", "old"]
    gangs.drop_silent(silent_at, lost_nodes={"m"})
    lost = {reason: value(metrics, "longtake_gangs_lost_total", reason=reason) for reason in ("hung", "died")}
    assert lost == {"hung": 1, "died": 2}
    assert value(metrics, "longtake_gangs_started_total") == 5
    for reason in ("drained", "scaled_down", "node_lost"):
        assert value(metrics, "longtake_gangs_lost_total", reason=reason) == 1


def test_a_host_that_many_takes_miss_is_lost_once_until_it_works_again() -> None:
    metrics = opened()
    counting = Counters(metrics)
    for _ in range(3):
        counting.host_lost(0)
    counting.host_works(0)
    counting.host_lost(0)
    assert value(metrics, "longtake_hosts_lost_total") == 2


# ------------------------------------------------------------------------------------------------ labels

ALLOWED: dict[str, set[str]] = {
    "pool": {POOL},
    "status": {str(status) for status in JobStatus},
    "outcome": {"done", "failed", "moot", "completed", "cancelled", "met", "missed", "written"},
    "reason": {reason for reasons in CALL_REASONS.values() for reason in reasons}
    | {"died", "hung", "broken", "drained", "scaled_down", "node_lost"},
    "code": {"", *FAILURES, "2xx"},
    "stage": set(CALL_STAGES),
    "use": {"useful", "wasted"},
    "source": {"rendered", "cache"},
    "store": {"database", "artifacts"},
    "route": {"/v1/jobs"},
    "method": {"GET"},
}

WORDS = st.text(min_size=1, max_size=40)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS, st.sampled_from(OUTCOMES)), max_size=20))
def test_no_name_of_a_job_take_user_or_prompt_becomes_a_label(names: list[tuple[str, str, str, Outcome]]) -> None:
    metrics = opened()
    counting = Counters(metrics)
    for job, take, prompt, outcome in names:
        counting.call_ended(POOL, report(outcome, detail=prompt), waited=False)
        counting.charged([LedgerEntry(job, prompt, POOL, take, prompt, 1.0, 1.0, 1.0, NOW)])
        counting.happened(JobFact(kind=take, at=NOW, pool=POOL, created_at=NOW, due_at=NOW, film_s=1.0, code=prompt))
        counting.happened(JobFact(kind="fail", at=NOW, pool=POOL, created_at=NOW, due_at=NOW, film_s=0.0, code=prompt))
        counting.assembled(POOL, Assembled({"title": prompt}, 1.0, (1.1,)))
        counting.store_failed(StoreUnavailable(prompt))
        requests: dict[tuple[str, ...], Counted] = {("/v1/jobs", "GET", "2xx"): Counted((1,) * 12, 1.0)}
        counting.hear_api(ApiReport(job, 1, requests, Counted((0,) * 11, 0.0)))
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            for label, found in sample.labels.items():
                assert label in ("le", "version") or found in ALLOWED[label], (sample.name, label, found)


def test_every_label_is_one_whose_values_are_known() -> None:
    labels = {label for _, _, names, _ in declared() for label in names}
    assert labels <= {*ALLOWED, "version"}


def test_the_page_about_metrics_lists_those_that_are_declared() -> None:
    assert PAGE.read_text() == with_table(PAGE.read_text()), "python -m tests.serving.telemetry.metrics_table"


@pytest.mark.skipif(shutil.which("promtool") is None, reason=NO_PROMETHEUS)
def test_the_exposition_is_as_prometheus_wants_it() -> None:
    metrics = opened()
    counting = Counters(metrics)
    times = CallTimes(0.1, 0.1, 0.1, 0.1)
    counting.call_ended(POOL, report(times=times, checkpoints=CheckpointCounts(1, 1, 100)), waited=False)
    counting.decoded(POOL, Decoded(1, 1, complete=False, seconds=1.0))
    checked = subprocess.run(["promtool", "check", "metrics"], input=metrics.text(), capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
