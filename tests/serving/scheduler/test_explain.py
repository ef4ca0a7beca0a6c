"""Why a job is where it is, in sentences a person understands, and times that come true."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.scheduler.cost_model import CostModel, Curve
from serving.scheduler.explain import Explanation, estimate, explain
from serving.scheduler.policy import assign
from serving.scheduler.state import CallKey, FarmState, JobSpec, PoolSpec, ReadyCall, TenantSpec

POOL = "gpus"


def new_farm(*, gangs: int = 1, gpus_per_gang: int = 1) -> FarmState:
    state = FarmState(CostModel({"cost": Curve(linear_s=1.0)}))
    state.put_pool(PoolSpec(POOL, slots=1, gpus_per_gang=gpus_per_gang))
    for index in range(gangs):
        state.gang_joined(f"g{index}", POOL)
    return state


def submit(
    state: FarmState,
    name: str,
    num_calls: int,
    *,
    tenant: str = "anna",
    priority: int = 50,
    due_at: float | None = None,
    max_calls: int | None = None,
) -> None:
    """Jobs are as old as they were submitted before others; a call takes a second."""
    spec = JobSpec(
        name,
        tenant,
        POOL,
        priority,
        due_at,
        created_at=float(len(state.jobs)),
        cost_key="cost",
        work_s=float(num_calls),
        path_s=1.0,
        max_calls=max_calls,
    )
    state.put_job(spec)
    calls = [ReadyCall(CallKey(name, "a", 0, number), 1, evaluations=1, start=number) for number in range(num_calls)]
    state.calls_ready(name, calls, 0.0)


def said(state: FarmState, job: str, now: float = 0.0) -> Explanation:
    found = explain(state, job, now)
    assert found is not None
    return found


def test_a_job_that_the_scheduler_does_not_have_is_not_explained() -> None:
    assert explain(new_farm(), "unknown", 0.0) is None


def test_the_next_job_is_next() -> None:
    state = new_farm(gangs=2)
    submit(state, "j", 60)
    found = said(state, "j", 1000.0)
    assert found.words == "It is next in pool gpus, which has 2 gangs. It should be done in about 30 seconds."
    assert (found.position, found.ahead_gpu_seconds) == (1, 0.0)
    assert (found.starts_at, found.finishes_at) == (1000.0, 1030.0)
    assert not found.at_risk


def test_a_job_behind_others_says_how_much_goes_before_it_and_when_it_starts() -> None:
    state = new_farm(gangs=1, gpus_per_gang=8)
    submit(state, "first", 600)
    submit(state, "second", 1200)
    submit(state, "third", 3600)
    found = said(state, "third")
    assert found.position == 3
    assert found.ahead_gpu_seconds == 8 * 1800
    assert (found.starts_at, found.finishes_at) == (1800.0, 5400.0)
    assert found.words == (
        "It is number 3 in pool gpus: before it 1 gang should be busy for about 30 minutes. "
        "It should start in about 30 minutes and be done in about 2 hours."
    )


def test_a_job_that_renders_says_so_and_has_no_position() -> None:
    state = new_farm(gangs=2)
    submit(state, "j", 5)
    assign(state, 7.0)
    found = said(state, "j", 8.0)
    assert found.words.startswith("It is rendering: 2 calls with gangs; 3 more could run now.")
    assert found.position is None
    assert found.starts_at == 7.0


def test_a_job_that_is_held_says_why() -> None:
    state = new_farm()
    submit(state, "j", 5)
    state.hold_job("j", "its budget is spent")
    found = said(state, "j")
    assert found.words == "It is held: its budget is spent."
    assert (found.position, found.starts_at, found.finishes_at) == (None, None, None)


def test_a_job_without_gangs_says_what_it_waits_for() -> None:
    state = new_farm(gangs=0)
    submit(state, "j", 5, due_at=50.0)
    found = said(state, "j")
    assert found.words.startswith("It waits for a gang: pool gpus has none ready.")
    assert found.finishes_at is None
    assert found.at_risk


def test_higher_priorities_are_named() -> None:
    state = new_farm()
    submit(state, "one", 5, priority=90)
    submit(state, "j", 5)
    assert "1 job has a higher priority than its 50." in said(state, "j").words
    submit(state, "two", 5, priority=60)
    assert "2 jobs have a higher priority than its 50." in said(state, "j").words
    assert "higher priority" not in said(state, "one").words


def test_sharing_with_other_tenants_is_named() -> None:
    state = new_farm()
    state.put_tenant(TenantSpec("bob", weight=3.0))
    submit(state, "of anna", 100)
    submit(state, "of bob", 100, tenant="bob")
    assert "Tenant anna shares the pool with 1 other tenant and has 25% of it." in said(state, "of anna").words
    assert "Tenant bob shares the pool with 1 other tenant and has 75% of it." in said(state, "of bob").words


def test_limits_are_named() -> None:
    state = new_farm(gangs=8)
    state.put_tenant(TenantSpec("bob", max_calls=3))
    submit(state, "capped", 9, max_calls=2)
    submit(state, "of bob", 9, tenant="bob")
    assign(state, 0.0)
    assert "It has as many calls out as a job may: 2." in said(state, "capped").words
    assert "Tenant bob has as many calls out as it may: 3." in said(state, "of bob").words


def test_a_due_time_that_will_be_missed_is_flagged() -> None:
    state = new_farm()
    submit(state, "j", 100, due_at=20.0)
    for now in (0.0, 1.0):
        found = said(state, "j", now)
        assert found.at_risk
        assert found.finishes_at == now + 100.0
        assert "It will probably miss its due time." in found.words
        state.pass_time(now)


def test_a_due_time_that_will_be_kept_is_not_flagged() -> None:
    state = new_farm(gangs=10)
    submit(state, "older", 1000, tenant="anna")
    submit(state, "j", 100, due_at=400.0)
    found = said(state, "j")
    assert not found.at_risk
    assert found.finishes_at is not None
    assert found.finishes_at <= 400.0


def test_a_job_that_hurries_says_so_and_others_say_that_it_does() -> None:
    state = new_farm()
    submit(state, "older", 1000)
    submit(state, "due", 20, due_at=100.0)
    assign(state, 60.0)
    assert "It goes before its turn, to be done in time." in said(state, "due", 60.0).words
    assert "1 job must hurry to be done in time." in said(state, "older", 60.0).words


def test_calls_that_are_tried_again_are_named() -> None:
    state = new_farm()
    submit(state, "j", 2)
    (one,) = assign(state, 0.0)
    state.call_failed(one.call, one.gang, "call_raised", "", 0.0)
    assert "1 call of it failed and is tried again." in said(state, "j").words


def test_a_job_without_a_ready_call_says_so() -> None:
    state = new_farm()
    submit(state, "j", 0)
    assert "None of its calls is ready yet." in said(state, "j").words


@given(
    jobs=st.lists(
        st.tuples(
            st.integers(1, 40),
            st.sampled_from("abc"),
            st.sampled_from([20, 50, 80]),
            st.none() | st.floats(0, 500),
            st.none() | st.integers(1, 3),
        ),
        min_size=1,
        max_size=10,
    ),
    gangs=st.integers(0, 4),
    held=st.integers(0, 9),
    placed=st.booleans(),
)
def test_every_job_of_every_farm_is_explained(
    jobs: list[tuple[int, str, int, float | None, int | None]], gangs: int, held: int, placed: bool
) -> None:
    state = new_farm(gangs=gangs)
    for index, (num_calls, tenant, priority, due_at, max_calls) in enumerate(jobs):
        submit(state, f"j{index}", num_calls, tenant=tenant, priority=priority, due_at=due_at, max_calls=max_calls)
    state.hold_job(f"j{held}", "paused")
    if placed:
        assign(state, 10.0)
    found = estimate(state, 10.0)
    working = [name for name, job in state.jobs.items() if not job.held]
    assert sorted(found) == sorted(working)
    assert sorted(one.position for one in found.values()) == list(range(1, len(working) + 1))
    for name in state.jobs:
        one = said(state, name, 10.0)
        assert re.fullmatch(r"(It|Tenant|None|\d+)\b.*\.", one.words)
        assert "None" not in one.words.replace("None of its calls", "")
        assert json.loads(json.dumps(one.to_json()))["words"] == one.words
        if one.starts_at is not None and one.finishes_at is not None:
            assert one.starts_at <= one.finishes_at
            assert one.finishes_at >= 10.0
    assert len(state.jobs) == len(jobs)


@given(
    st.lists(st.tuples(st.integers(1, 60), st.sampled_from("ab")), min_size=1, max_size=6),
    st.integers(1, 4),
)
@settings(max_examples=40)
def test_estimated_ends_come_true_where_nothing_else_comes(jobs: list[tuple[int, str]], gangs: int) -> None:
    state = new_farm(gangs=gangs)
    for index, (num_calls, tenant) in enumerate(jobs):
        submit(state, f"j{index}", num_calls, tenant=tenant)
    estimated = {name: one.finishes_at for name, one in estimate(state, 0.0).items()}
    ended: dict[str, float] = {}
    now = 0.0
    while state.jobs:
        given = assign(state, now)
        now += 1.0
        for one in given:
            state.call_finished(one.call, one.gang, 1.0)
        for name in [name for name, job in state.jobs.items() if not job.waiting and not job.flights]:
            ended[name] = now
            state.drop_job(name)
    for name, at in ended.items():
        assert estimated[name] == pytest.approx(at, abs=4.0)
