"""Four seeded runs with four faults each, on a farm in the cloud's manner and on a local one; benchmarks/chaos.py does
more. Between them every fault that is known happens at least once."""

from collections.abc import Iterator

import pytest

from tests.chaos.chaos import play
from tests.chaos.faults import FAULTS, draw_faults, stage_of
from tests.chaos.ground import NO_DISK
from tests.chaos.stage import STAGES, Stage
from tests.postgres import MISSING

pytestmark = pytest.mark.slow

SEED = 3
RUNS = {"cloud": (0, 2), "local": (1, 3)}
DRAWN = draw_faults(sorted([*RUNS["cloud"], *RUNS["local"]]), seed=SEED, per_run=4)


@pytest.fixture(scope="module", params=list(RUNS))
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    make = STAGES[request.param](tmp_path_factory.mktemp(request.param))
    try:
        stage = make.__enter__()
    except FileNotFoundError:
        pytest.skip(MISSING)
    except PermissionError:
        pytest.skip(NO_DISK)
    try:
        yield stage
    finally:
        make.__exit__(None, None, None)


def test_every_fault_that_is_known_is_drawn() -> None:
    assert {fault.name for faults in DRAWN.values() for fault in faults} == {fault.name for fault in FAULTS}


@pytest.mark.parametrize("index", range(2))
def test_faults_change_no_byte_and_leave_nothing(stage: Stage, index: int) -> None:
    run = RUNS[stage.name][index]
    assert stage_of(run) == stage.name
    outcome = play(stage, run, DRAWN[run], seed=SEED)
    assert outcome.broken == (), outcome
