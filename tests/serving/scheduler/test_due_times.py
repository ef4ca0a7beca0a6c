"""Which due times press and which cannot be kept: as many jobs as possible in time, nobody before it must."""

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.scheduler.cost_model import CostModel, Curve
from serving.scheduler.due_times import DUE_CAPACITY, DUE_LEAD_S, DUE_MARGIN, gangs_for, least_s, review
from serving.scheduler.specs import DueWork
from serving.scheduler.state import CallKey, FarmState, JobSpec, JobState, PoolSpec, ReadyCall, TenantSpec

GANGS = 10
RATE = DUE_CAPACITY * GANGS
"""Gangs that due times may count on."""


def new_farm() -> FarmState:
    state = FarmState(CostModel({"cost": Curve(linear_s=1.0)}))
    state.put_pool(PoolSpec("p", 1))
    for index in range(GANGS):
        state.gang_joined(f"g{index}", "p")
    return state


def submit(
    state: FarmState, name: str, *, work_s: float, due_at: float | None, path_s: float = 0.0, priority: int = 50
) -> JobState:
    """A job with one ready call."""
    spec = JobSpec(name, "t", "p", priority, due_at, 0.0, "cost", work_s, path_s)
    state.put_job(spec)
    state.calls_ready(name, [ReadyCall(CallKey(name, "a", 0, 0), 1, 1, 0)], 0.0)
    return state.jobs[name]


def look(state: FarmState, now: float = 0.0) -> None:
    review(state.pools["p"], now)
    state.check_invariants()


def is_pressing(job: JobState) -> bool:
    """Asked anew each time, which a type checker does not believe of an attribute."""
    return job.pressing


def test_a_job_with_time_to_spare_neither_presses_nor_is_at_risk() -> None:
    state = new_farm()
    job = submit(state, "j", work_s=1000, due_at=10_000.0)
    look(state)
    assert (job.pressing, job.at_risk) == (False, False)


def test_a_job_presses_from_its_latest_start_on_and_until_it_is_done() -> None:
    state = new_farm()
    job = submit(state, "j", work_s=10 * GANGS, path_s=400.0, due_at=10_000.0)
    look(state)
    look(state, job.start_by - 1)
    assert not is_pressing(job)
    look(state, job.start_by)
    assert is_pressing(job)
    job.work_s = 1.0  # nearly done: there would be time to wait again
    look(state, job.start_by)
    assert is_pressing(job)


def test_a_job_leaves_enough_time_to_those_due_after_it() -> None:
    state = new_farm()
    first = submit(state, "first", work_s=400 * RATE, due_at=3000.0)
    second = submit(state, "second", work_s=1400 * RATE, due_at=3001.0)
    latest_start = 3001.0 - DUE_MARGIN * 1800 - DUE_LEAD_S
    look(state, latest_start - 1)
    assert (first.pressing, second.pressing) == (False, False)
    look(state, latest_start)
    assert first.pressing
    assert not first.at_risk
    assert not second.at_risk


def test_a_job_leaves_enough_time_to_higher_priorities() -> None:
    state = new_farm()
    job = submit(state, "j", work_s=100 * RATE, due_at=3000.0)
    look(state)
    latest_start = 3000.0 - DUE_MARGIN * 100 - DUE_LEAD_S
    submit(state, "urgent", work_s=1000 * RATE, due_at=None, priority=90)
    look(state, latest_start - 1001)
    assert not is_pressing(job)
    look(state, latest_start - 1000)
    assert is_pressing(job)
    assert not job.at_risk


def test_a_job_cannot_be_in_time_beyond_the_cap_of_its_tenant() -> None:
    state = new_farm()
    job = submit(state, "j", work_s=100 * GANGS, due_at=400.0)
    assert least_s(state.pools["p"], job) == 100
    state.put_tenant(TenantSpec("t", max_calls=GANGS // 5))
    assert least_s(state.pools["p"], job) == 500
    look(state)
    assert job.at_risk


def test_the_longest_of_too_many_jobs_is_let_go() -> None:
    state = new_farm()
    jobs = [submit(state, f"j{s}", work_s=s * RATE, due_at=100.0 + s / 100) for s in (30, 40, 60)]
    look(state)
    assert [job.at_risk for job in jobs] == [False, False, True]


def test_a_job_that_would_be_a_little_late_goes_before_its_turn_and_is_at_risk() -> None:
    state = new_farm()
    job = submit(state, "j", work_s=10.0, path_s=100.0, due_at=100.0 - DUE_LEAD_S / 2)
    look(state)
    assert (job.pressing, job.at_risk) == (True, True)


def test_work_of_higher_priority_goes_before() -> None:
    state = new_farm()
    submit(state, "urgent", work_s=90 * RATE, due_at=None, priority=90)
    job = submit(state, "j", work_s=20 * RATE, due_at=100.0)
    look(state)
    assert job.at_risk
    state.drop_job("urgent")
    look(state)
    assert not job.at_risk


def test_a_job_before_that_cannot_use_the_whole_pool_leaves_the_rest() -> None:
    state = new_farm()
    submit(state, "narrow", work_s=90 * RATE, path_s=90 * RATE, due_at=None, priority=90)  # one gang all the time
    job = submit(state, "j", work_s=80 * RATE, due_at=100.0)
    look(state)
    assert not job.at_risk


def test_a_pool_without_gangs_decides_nothing() -> None:
    state = FarmState(CostModel())
    state.put_pool(PoolSpec("p"))
    job = submit(state, "j", work_s=10.0, due_at=5.0)
    look(state)
    assert (job.pressing, job.at_risk) == (False, False)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 100)), min_size=1, max_size=7))
@settings(max_examples=200)
def test_as_many_jobs_as_possible_are_kept(jobs: list[tuple[int, int]]) -> None:
    state = new_farm()
    states = [
        submit(state, f"j{index}", work_s=work * RATE, due_at=float(due + DUE_LEAD_S))
        for index, (work, due) in enumerate(jobs)
    ]
    look(state)
    kept = [job for job, one in zip(jobs, states, strict=True) if one.pressing or not one.at_risk]
    assert in_time(kept)
    most = max(num for num in range(len(jobs) + 1) if any(map(in_time, combinations(jobs, num))))
    assert len(kept) == most


def in_time(jobs: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> bool:
    """Whether all jobs (work, due) can be in time, one after the other, earliest due first."""
    clock = 0.0
    for work, due in sorted(jobs, key=lambda job: job[1]):
        clock += work
        if clock > due + DUE_LEAD_S + 1e-6:
            return False
    return True


@given(
    due=st.lists(st.builds(DueWork, st.floats(1, 1000), st.floats(0.1, 500), st.floats(0.1, 100)), max_size=12),
    most=st.integers(1, 20),
)
def test_gangs_for_due_times_are_enough_and_never_more_than_there_may_be(due: list[DueWork], most: int) -> None:
    now = 0.0
    gangs, slack_s = gangs_for(due, most=most, now=now)
    assert 0 <= gangs <= most + 1e-6
    hopeless = [work for work in due if work.path_s > work.due_at]
    assert gangs_for([work for work in due if work not in hopeless], most=most, now=now) == (gangs, slack_s)
    if slack_s is not None:
        assert slack_s >= -1e-6, "what cannot be kept is not tried"


def test_a_due_time_that_only_gangs_yet_to_come_can_keep_asks_for_them() -> None:
    easy, hard = DueWork(100.0, 50.0, 1.0), DueWork(100.0, 350.0, 1.0)
    assert gangs_for([easy], most=8, now=0.0)[0] == 0.5
    assert gangs_for([easy, hard], most=8, now=0.0)[0] == 4.0
    assert gangs_for([easy, hard], most=2, now=0.0)[0] == 0.5, "it cannot be kept: it moves no gang"
    assert gangs_for([], most=8, now=0.0) == (0.0, None)
