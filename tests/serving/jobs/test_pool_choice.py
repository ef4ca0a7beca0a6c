"""Which pool a job goes to where several serve its model: the cheapest that is in time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.config.farm import FarmConfig, PoolConfig
from serving.errors import StoryboardError, UserError
from serving.jobs.admission import Admission
from serving.scheduler.cost_model import CostModel
from serving.store.artifacts import Artifacts
from serving.store.database import open_database
from serving.store.jobs import JobStore
from serving.storyboard import Shot, Storyboard

NOW = 1000.0
BOARD = Storyboard(version=1, title="A film", shots=(Shot(id="a", prompt="a red ball", seconds=4.0),))
ONE, SPLIT = (
    PoolConfig(name="one", price_per_gpu_second=0.1),
    PoolConfig(name="split", gang_shape="ulysses=4", price_per_gpu_second=0.1),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    database = open_database(f"sqlite:///{tmp_path / 'farm.db'}")
    yield JobStore(database)
    database.close()


def admission(store: JobStore, tmp_path: Path, *pools: PoolConfig) -> Admission:
    """The pools have one idle gang each, and a call on one rank takes a second."""
    (tmp_path / "artifacts").mkdir(exist_ok=True)
    costs = CostModel()
    for pool in pools:
        store.learn("supply", pool.name, {"gangs_ready": 1, "backlog_gpu_s": 0.0, "at": NOW}, now=NOW)
    made = Admission(FarmConfig(pools=pools), store, Artifacts.open(str(tmp_path / "artifacts")), lambda: costs)
    costs.observe("pocket|96x64|1", latents=8, evaluations=1, seconds=1.0)
    return made


def finishing(made: Admission, pool: str) -> float:
    finishes_at = made.quote(made.plan(BOARD, pool=pool), tenant="ada", due_at=None, now=NOW).finishes_at
    assert finishes_at is not None
    return finishes_at


def test_without_a_due_time_the_cheapest_pool_renders_it(store: JobStore, tmp_path: Path) -> None:
    assert admission(store, tmp_path, SPLIT, ONE).plan(BOARD, now=NOW).pool.name == "one"


def test_a_shape_of_which_nothing_was_measured_is_expected_to_share_the_work_out(
    store: JobStore, tmp_path: Path
) -> None:
    made = admission(store, tmp_path, ONE, SPLIT)
    plans = (made.plan(BOARD, pool=name) for name in ("one", "split"))
    one, split = (made.quote(plan, tenant="ada", due_at=None, now=NOW) for plan in plans)
    assert split.gpu_seconds == pytest.approx(one.gpu_seconds / 0.9)
    assert split.usd > one.usd
    assert finishing(made, "split") - NOW == pytest.approx((finishing(made, "one") - NOW) / (4 * 0.9))


def test_a_due_time_that_only_a_larger_gang_keeps_goes_to_it(store: JobStore, tmp_path: Path) -> None:
    made = admission(store, tmp_path, ONE, SPLIT)
    between = (finishing(made, "one") + finishing(made, "split")) / 2
    assert made.plan(BOARD, due_at=between, now=NOW).pool.name == "split"
    assert made.plan(BOARD, due_at=finishing(made, "one") + 1, now=NOW).pool.name == "one"


def test_where_no_pool_is_in_time_the_first_to_be_done_renders_it(store: JobStore, tmp_path: Path) -> None:
    assert admission(store, tmp_path, ONE, SPLIT).plan(BOARD, due_at=NOW + 1, now=NOW).pool.name == "split"


def test_a_pool_that_is_named_renders_it_whatever_it_costs(store: JobStore, tmp_path: Path) -> None:
    assert admission(store, tmp_path, ONE, SPLIT).plan(BOARD, pool="split", now=NOW).pool.name == "split"
    with pytest.raises(StoryboardError, match="no such pool"):
        admission(store, tmp_path, ONE, SPLIT).plan(BOARD, pool="spilt", now=NOW)


def test_a_pool_whose_gangs_cannot_share_the_film_out_is_passed_over(store: JobStore, tmp_path: Path) -> None:
    wide = PoolConfig(name="wide", gang_shape="ulysses=8")
    assert admission(store, tmp_path, wide, ONE).plan(BOARD, now=NOW).pool.name == "one"
    with pytest.raises(UserError, match=r"pool wide cannot render it: .* at most ulysses=4"):
        admission(store, tmp_path, wide).plan(BOARD, now=NOW)
