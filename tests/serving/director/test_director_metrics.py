"""The metrics of a farm that works, loses a gang and a host, misses a due time, and finds takes that are there."""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from serving.director.director import Director
from serving.director.testing import LocalFarm
from serving.errors import GangDied, StoreUnavailable
from serving.models.testing import write_tiny_checkpoint
from serving.render.messages import CallInput
from serving.store.assets import Asset, AssetQuota, Assets
from serving.storyboard import Shot, Storyboard
from serving.storyboard.schema import Video
from serving.telemetry.histograms import ApiReport, Tally
from testkit.picture_files import drawing, written
from tests.serving.telemetry.metrics_table import declared

SHOWN_ELSEWHERE = {"longtake_pool_gangs_wanted", "longtake_pool_gangs_starting", "longtake_pool_gangs_draining"}
"""Need a pool that scales: test_director_scaling.py, test_counters.py."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder, "2.1")
    return str(folder)


def board(model: str, *, seed: int = 1) -> Storyboard:
    return Storyboard(
        version=1,
        title="Xylophone",
        model=model,
        seed=seed,
        quality="draft",
        video=Video(width=32, height=32, fps=16),
        shots=tuple(Shot(id=f"zebra{k}", prompt=f"a quokka {k}", seconds=2.0) for k in range(2)),
    )


def families(directors: Iterable[Director]) -> list[Metric]:
    return [
        family for director in directors for family in text_string_to_metric_families(director.metrics.text().decode())
    ]


def value(directors: Director | list[Director], name: str, **labels: str) -> float:
    """Of a series, summed over Directors and over labels that are not named."""
    several = [directors] if isinstance(directors, Director) else directors
    return sum(
        sample.value
        for family in families(several)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


class Watcher:
    """Remembers which metrics have ever been other than 0."""

    def __init__(self, director: Director) -> None:
        self._director = director
        self.moved: set[str] = set()

    def look(self) -> None:
        for family in families([self._director]):
            series = [one for one in family.samples if not one.name.endswith(("_sum", "_bucket"))]
            if any(one.value != 0 and not math.isnan(one.value) for one in series):
                self.moved.add(f"{family.name}_total" if family.type == "counter" else family.name)

    def seen(self, condition: Callable[[], bool]) -> Callable[[], bool]:
        """The condition, and a look each time that it is asked."""

        def asked() -> bool:
            self.look()
            return condition()

        return asked


def dies_at(number: int) -> Callable[[CallInput], None]:
    calls = itertools.count(1)

    def fault(call: CallInput) -> None:
        if next(calls) == number:
            raise GangDied("out of memory")

    return fault


def fail_once(monkeypatch: pytest.MonkeyPatch, farm: LocalFarm) -> None:
    """The store does not answer the next question of a kind."""
    ask = farm.jobs.changed_since

    def away(*arguments: object) -> object:
        monkeypatch.setattr(farm.jobs, "changed_since", ask)
        raise StoreUnavailable("it is away")

    monkeypatch.setattr(farm.jobs, "changed_since", away)


def test_every_metric_moves_in_a_farm_that_meets_everything(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"spend_limit_usd_per_day": 5.0}
    config = {"limits": limits, "checkpoint_every_s": 0.01, "checkpoint_every_steps": 1}
    farm = LocalFarm(tmp_path, model=model, gangs=0, config=config)
    farm.add_gang(dies_at(4))
    farm.add_gang()
    picture = written(drawing(), "PNG")
    asset = Asset(
        tenant="ada", sha256="a" * 64, media_type="image/png", bytes=len(picture), width=40, height=24,
        created_at=time.time(), used_at=time.time(),
    )  # fmt: skip
    Assets(farm.database, farm.artifacts).add(asset, picture, AssetQuota(10, 1 << 20))

    async def body() -> None:
        director = farm.director()
        watcher = Watcher(director)
        first = farm.submit(director, board(model), due_at=time.time() + 3600, budget_usd=1e5)
        async with farm.running(director):
            await farm.until(watcher.seen(lambda: farm.job(first.id).calls_done > 8))
            fail_once(monkeypatch, farm)
            farm.hosts[0].kill()
            farm.decoder.free.clear()
            await farm.until(watcher.seen(lambda: all(take.status == "rendered" for take in farm.jobs.takes(first.id))))
            spent = farm.job(first.id).usd
            late = time.time()
            farm.jobs.set_terms(first.id, actor="ada", now=late, budget_usd=spent * 1.1, due_at=late)
            await farm.until(watcher.seen(lambda: value(director, "longtake_jobs_near_budget") == 1))
            farm.decoder.free.set()
            await farm.until(watcher.seen(lambda: farm.status(first) == "completed"))
            second = farm.submit(director, board(model), due_at=time.time() + 3600)
            await farm.until(watcher.seen(lambda: farm.status(second) == "completed"))
            director.hear_api(api_report(director))
            await farm.until(watcher.seen(lambda: value(director, "longtake_films_delivered_total") == 2))
        assert {name for name, *_ in declared()} - watcher.moved <= SHOWN_ELSEWHERE
        assert_true_of_both(farm, director, first.id, second.id)

    asyncio.run(body())


def assert_true_of_both(farm: LocalFarm, director: Director, first: str, second: str) -> None:
    """What the metrics say of the film that was rendered and the one that was found."""
    takes = farm.jobs.takes(first)
    assert value(director, "longtake_calls_total", outcome="failed", reason="gang_died") == 1
    assert value(director, "longtake_gangs_lost_total", reason="died") == 1
    assert value(director, "longtake_gangs_started_total") == 3
    assert value(director, "longtake_hosts_lost_total") == 1
    assert value(director, "longtake_takes_total", source="rendered") == len(takes)
    assert value(director, "longtake_takes_total", source="cache") == len(takes)
    assert value(director, "longtake_due_times_total", outcome="missed") == 1
    assert value(director, "longtake_due_times_total", outcome="met") == 1
    assert value(director, "longtake_latents_finished_total") == sum(take.latents for take in takes)
    assert value(director, "longtake_video_seconds_delivered_total") == 8.0
    jobs = [farm.job(job_id) for job_id in (first, second)]
    assert value(director, "longtake_gpu_seconds_total", use="useful") == pytest.approx(
        sum(job.gpu_seconds for job in jobs)
    )
    assert value(director, "longtake_spent_usd_total") == pytest.approx(sum(job.usd for job in jobs))
    text = director.metrics.text().decode()
    for word in ("quokka", "zebra", "Xylophone", first, second, *(take.content_key or "" for take in takes)):
        assert word not in text


def api_report(director: Director) -> ApiReport:
    request, lag = Tally(director.metrics.api_requests.bounds), Tally(director.metrics.events_lag.bounds)
    request.observe(0.1)
    lag.observe(0.1)
    return ApiReport("api", 1, {("/v1/jobs", "GET", "2xx"): request.counted()}, lag.counted())


def charged(farm: LocalFarm) -> float:
    """GPU-seconds that the ledger holds of all jobs."""
    return sum(job.gpu_seconds + job.wasted_gpu_seconds for job in farm.jobs.list())


def test_a_director_that_takes_over_counts_nothing_that_was_counted(model: str, tmp_path: Path) -> None:
    farm = LocalFarm(tmp_path, model=model, gangs=2, config={"lease_s": 0.3})

    async def body() -> None:
        first = farm.director("first")
        job = farm.submit(first, board(model))
        farm.decoder.free.clear()  # so that all that can be rendered is, and is written down and counted
        async with farm.running(first):
            await farm.until(lambda: value(first, "longtake_takes_total", source="rendered") == 2)
            await farm.until(lambda: value(first, "longtake_gpu_seconds_total") == pytest.approx(charged(farm)))
            await farm.until(lambda: value(first, "longtake_job_queue_wait_seconds_count") == 1)
            await farm.until(lambda: len(farm.jobs.recall("gangs", "default") or []) == 2)
        for task in first.tasks.running:  # killed with its process
            task.cancel()
        farm.decoder.free.set()
        second = farm.director("second")
        other = farm.submit(second, board(model, seed=2))  # while there is none
        async with farm.running(second):
            await farm.until(lambda: farm.status(job) == farm.status(other) == "completed")
            both = [first, second]
            await farm.until(lambda: value(both, "longtake_jobs_finished_total", outcome="completed") == 2)
        takes = [take for one in (job, other) for take in farm.jobs.takes(one.id)]
        assert value(both, "longtake_jobs_submitted_total") == 2
        assert value(both, "longtake_job_queue_wait_seconds_count") == 2
        assert value(both, "longtake_films_delivered_total") == 2
        assert value(both, "longtake_takes_total", source="rendered") == len(takes)
        assert value(both, "longtake_takes_total", source="cache") == 0
        assert value(both, "longtake_latents_finished_total") == sum(take.latents for take in takes)
        assert value(both, "longtake_gangs_started_total") == 2
        assert value(both, "longtake_gpu_seconds_total") == pytest.approx(charged(farm))
        assert value(second, "longtake_director_generation") == value(first, "longtake_director_generation") + 1

    asyncio.run(body())
