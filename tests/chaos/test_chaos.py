"""Two seeded runs with eight faults each, on a farm on Postgres and a bucket and on a local one.

Between them every kind of fault happens at least once. `python -m benchmarks.chaos` does many more runs.
"""

import contextlib

import pytest

from testkit.chaos.faults import FAULTS, draw_faults, which_testbed
from testkit.chaos.runner import play
from testkit.chaos.testbeds import TESTBEDS
from testkit.test_tools import NO_MOUNT, NO_POSTGRES

SEED = 3
RUNS = range(2)
DRAWN = draw_faults(RUNS, seed=SEED, per_run=8)


def test_every_kind_of_fault_is_drawn() -> None:
    assert {fault.name for faults in DRAWN.values() for fault in faults} == {fault.name for fault in FAULTS}


@pytest.mark.farm
@pytest.mark.parametrize("run", RUNS, ids=which_testbed)
def test_faults_change_no_byte_and_leave_nothing(run: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    name = which_testbed(run)
    with contextlib.ExitStack() as stack:
        try:
            testbed = stack.enter_context(TESTBEDS[name](tmp_path_factory.mktemp(name)))
        except FileNotFoundError:
            pytest.skip(NO_POSTGRES)
        except PermissionError:
            pytest.skip(NO_MOUNT)
        outcome = play(testbed, run, DRAWN[run], seed=SEED)
    assert outcome.violations == (), outcome
