"""The API places a job by what calls cost now, as the Director has written it down, and not by what it knew before."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.config.farm import PoolConfig
from serving.scheduler.cost_model import CostModel
from tests.serving.api.api_double import STORYBOARD, ApiDouble, running

POOLS = (
    PoolConfig(name="one", price_per_gpu_second=0.1),
    PoolConfig(name="pair", gang_shape="cfg=2", price_per_gpu_second=0.1),
)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiDouble]:
    with running(tmp_path, pools=POOLS) as api:
        yield api


def teach(api: ApiDouble, **seconds: float) -> None:
    """What a full call takes on a gang of each pool, as a Director would write it down; each has an idle gang."""
    costs, now = CostModel(), time.time()
    for pool in POOLS:
        costs.observe(f"pocket|96x64|{pool.gang_shape}", latents=8, evaluations=1, seconds=seconds[pool.name])
        api.services.jobs.learn("supply", pool.name, {"gangs_ready": 1, "backlog_gpu_s": 0.0, "at": now}, now=now)
    api.services.jobs.learn("costs", "calls", costs.dump(), now=now)


def test_a_job_goes_to_the_pool_that_is_cheapest_by_what_was_measured_last(api: ApiDouble) -> None:
    teach(api, one=1.0, pair=0.3)
    assert api.submit()["pool"] == "pair"
    teach(api, one=0.5, pair=0.3)
    assert api.submit()["pool"] == "one"
    assert api.submit(pool="pair")["pool"] == "pair"


def test_a_job_that_is_due_goes_to_the_pool_that_is_in_time(api: ApiDouble) -> None:
    teach(api, one=1000.0, pair=600.0)
    quotes = {
        pool.name: api.http.post("/v1/quote", json={"storyboard": STORYBOARD, "pool": pool.name}).json()
        for pool in POOLS
    }
    assert quotes["one"]["usd"] < quotes["pair"]["usd"]
    between = (quotes["one"]["finishes_at"] + quotes["pair"]["finishes_at"]) // 2
    assert api.submit()["pool"] == "one"
    assert api.submit(due_at=between)["pool"] == "pair"
