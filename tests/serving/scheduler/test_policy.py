"""In which order calls are given out, to whom, and what limits that."""

from collections import Counter, defaultdict

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serving.scheduler.cost_model import CostModel, Curve
from serving.scheduler.due_times import DUE_LEAD_S
from serving.scheduler.policy import MAX_PRESSING_IN_A_ROW, assign, wake_at
from serving.scheduler.state import (
    FIRST_CALL_S,
    Assignment,
    CallKey,
    FarmState,
    JobSpec,
    PoolSpec,
    ReadyCall,
    TenantSpec,
)
from serving.settings import DUE_REVIEW_S, SEND_AHEAD_S

POOL = "p"


def new_farm(*, gangs: int = 1, slots: int = 1) -> FarmState:
    """A call takes as many seconds as it has latents."""
    state = FarmState(CostModel({"cost": Curve(linear_s=1.0)}))
    state.put_pool(PoolSpec(POOL, slots))
    for index in range(gangs):
        state.gang_joined(f"g{index}", POOL)
    return state


def spec(name: str, **changes: object) -> JobSpec:
    terms: dict[str, object] = {
        "id": name,
        "tenant": "t",
        "pool": POOL,
        "priority": 50,
        "due_at": None,
        "created_at": 0.0,
        "cost_key": "cost",
        "work_s": 100.0,
        "path_s": 1.0,
    }
    return JobSpec(**{**terms, **changes})  # type: ignore[arg-type]


def call(
    job: str, number: int, *, latents: int = 1, take: str = "a", take_index: int = 0, calls_left: int = 1
) -> ReadyCall:
    key = CallKey(job, take, 0, number)
    return ReadyCall(key, latents, evaluations=1, start=number, calls_left=calls_left, take_index=take_index)


def submit(
    state: FarmState, name: str, num_calls: int = 1, *, now: float = 0.0, latents: int = 1, **terms: object
) -> None:
    """A job and its ready calls."""
    state.put_job(spec(name, **{"created_at": now, "work_s": float(num_calls * latents), **terms}))
    state.calls_ready(name, [call(name, number, latents=latents) for number in range(num_calls)], now)


def finish(state: FarmState, given: list[Assignment]) -> None:
    for one in given:
        assert state.call_finished(one.call, one.gang, one.expected_s)


def jobs_of(given: list[Assignment]) -> list[str]:
    return [one.call.job_id for one in given]


def work_off(state: FarmState, rounds: int, now: float = 0.0) -> list[str]:
    """Whose calls were given out, in order, when all that is given out is done before the next look."""
    order: list[str] = []
    for turn in range(rounds):
        given = assign(state, now + turn)
        order += jobs_of(given)
        finish(state, given)
    return order


# ------------------------------------------------------------------------------------------------ order


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 4)), min_size=1, max_size=8), st.integers(1, 6))
def test_a_call_waits_while_one_of_higher_priority_is_ready(jobs: list[tuple[int, int]], gangs: int) -> None:
    state = new_farm(gangs=gangs)
    priorities = []
    for index, (priority, num_calls) in enumerate(jobs):
        submit(state, f"j{index}", num_calls, priority=priority)
        priorities += [priority] * num_calls
    order = work_off(state, rounds=sum(num for _, num in jobs))
    assert [jobs[int(name[1:])][0] for name in order] == sorted(priorities, reverse=True)


def test_jobs_of_equal_rank_go_by_age() -> None:
    state = new_farm()
    submit(state, "younger", 2, created_at=2.0)
    submit(state, "older", 2, created_at=1.0)
    assert work_off(state, rounds=4) == ["older", "older", "younger", "younger"]


def test_takes_go_in_the_order_of_the_film_and_their_heads_first() -> None:
    state = new_farm()
    state.put_job(spec("j", work_s=1000.0))
    calls = [call("j", start, take=take, take_index=index) for index, take in ((1, "b"), (0, "a")) for start in (5, 0)]
    state.calls_ready("j", calls, 0.0)
    order = []
    for turn in range(4):
        (one,) = assign(state, float(turn))
        order.append((one.call.take_key, one.call.chunk))
        finish(state, [one])
    assert order == [("a", 0), ("a", 5), ("b", 0), ("b", 5)]


def test_the_longest_path_goes_first_where_it_would_be_left_to_the_end() -> None:
    state = new_farm()
    state.put_job(spec("j", work_s=12.0))
    state.calls_ready("j", [call("j", 0, take="a"), call("j", 7, take="b", take_index=1, calls_left=10)], 0.0)
    (first,) = assign(state, 0.0)
    assert first.call.take_key == "b"  # ten seconds of path are left of it, and twelve of work in all


# ------------------------------------------------------------------------------------------------ shares


@given(
    weights=st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=2, max_size=5),
    gangs=st.integers(1, 7),
    data=st.data(),
)
@settings(max_examples=50)
def test_tenants_are_served_by_weight_and_none_starves(weights: list[float], gangs: int, data: st.DataObject) -> None:
    state = new_farm(gangs=gangs)
    longest = 0
    for index, weight in enumerate(weights):
        state.put_tenant(TenantSpec(f"t{index}", weight))
        for job in range(data.draw(st.integers(1, 3))):
            latents = data.draw(st.integers(1, 6))
            longest = max(longest, latents)
            submit(state, f"j{index}.{job}", 400, tenant=f"t{index}", latents=latents)
    served: dict[str, float] = defaultdict(float)
    for turn in range(60):
        given = assign(state, float(turn))
        for one in given:
            served[state.jobs[one.call.job_id].spec.tenant] += one.expected_s
        finish(state, given)
        shares = [served[f"t{index}"] / weight for index, weight in enumerate(weights)]
        # start-time fair queueing keeps shares within a call of each; looking for prompts may add as much again
        assert max(shares) - min(shares) <= 4 * longest + 1e-6


def test_a_tenant_that_returns_gets_no_credit_for_having_had_nothing_to_do() -> None:
    state = new_farm()
    submit(state, "a", 300, tenant="a")
    submit(state, "first of b", 1, tenant="b")
    work_off(state, rounds=100)
    submit(state, "b", 100, tenant="b", now=100.0)
    order = work_off(state, rounds=40, now=100.0)
    assert 18 <= order.count("b") <= 22


def test_a_tenant_that_waited_at_its_cap_gets_no_credit_for_it() -> None:
    state = new_farm(gangs=2)
    state.put_tenant(TenantSpec("capped", max_calls=1))
    submit(state, "stuck", 100, tenant="capped")
    submit(state, "other", 300, tenant="other")
    given = assign(state, 0.0)
    (long,) = [one for one in given if one.call.job_id == "stuck"]
    finish(state, [one for one in given if one is not long])
    assert work_off(state, rounds=100, now=1.0) == ["other"] * 100
    finish(state, [long])
    state.gang_left(long.gang, 101.0)
    order = work_off(state, rounds=20, now=101.0)
    assert 8 <= order.count("stuck") <= 12


def test_a_tenant_that_comes_late_does_not_wait_for_those_that_were_served_less() -> None:
    state = new_farm()
    submit(state, "a", 300, tenant="a")
    work_off(state, rounds=100)
    submit(state, "b", 300, tenant="b", now=100.0)
    submit(state, "c", 300, tenant="c", now=100.0)
    order = work_off(state, rounds=60, now=100.0)
    assert all(18 <= order.count(name) <= 22 for name in "abc")


def test_service_that_failed_is_not_charged() -> None:
    state = new_farm(gangs=1)
    submit(state, "fails", 100, tenant="a", latents=5)
    submit(state, "works", 100, tenant="b", latents=5)
    for _ in range(5):
        (one,) = assign(state, 0.0)
        assert one.call.job_id == "fails"
        state.call_failed(one.call, one.gang, "host_lost", "", 0.0)


# ------------------------------------------------------------------------------------------------ limits


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 12))
@settings(max_examples=40)
def test_caps_of_tenants_and_jobs_hold(of_tenant: int, of_job: int, gangs: int) -> None:
    state = new_farm(gangs=gangs)
    state.put_tenant(TenantSpec("t", max_calls=of_tenant))
    submit(state, "a", 20, max_calls=of_job)
    submit(state, "b", 20, max_calls=of_job)
    given = assign(state, 0.0)
    assert len(given) == min(of_tenant, 2 * of_job, gangs)
    assert all(count <= of_job for count in Counter(jobs_of(given)).values())
    finish(state, given[:1])
    assert len(assign(state, 1.0)) == 1


def test_a_larger_cap_counts_at_once() -> None:
    state = new_farm(gangs=4)
    state.put_tenant(TenantSpec("t", max_calls=1))
    submit(state, "j", 9)
    assert len(assign(state, 0.0)) == 1
    state.put_tenant(TenantSpec("t", max_calls=3))
    assert len(assign(state, 0.0)) == 2


def test_a_job_that_is_held_gets_nothing_until_it_is_freed() -> None:
    state = new_farm(gangs=2)
    submit(state, "j", 3)
    state.hold_job("j", "its owner paused it")
    assert assign(state, 0.0) == []
    state.free_job("j")
    assert len(assign(state, 0.0)) == 2


def test_a_job_may_not_change_its_pool() -> None:
    state = new_farm()
    submit(state, "j")
    state.put_pool(PoolSpec("other"))
    with pytest.raises(ValueError, match="pool other"):
        state.put_job(spec("j", pool="other"))
    with pytest.raises(ValueError, match="pool unknown"):
        state.put_job(spec("k", pool="unknown"))


# ------------------------------------------------------------------------------------------------ gangs


def test_a_gang_gets_its_second_call_when_all_have_a_first() -> None:
    state = new_farm(gangs=3, slots=2)
    submit(state, "j", 20)
    given = assign(state, 0.0)
    assert sorted(one.gang for one in given[:3]) == ["g0", "g1", "g2"]
    assert Counter(one.gang for one in given) == {"g0": 2, "g1": 2, "g2": 2}


def test_a_gang_gets_its_second_call_shortly_before_it_is_done_with_the_first() -> None:
    state = new_farm(slots=2)
    submit(state, "j", 20, latents=60)
    assert len(assign(state, 0.0)) == 1
    soon = 60 - SEND_AHEAD_S
    assert assign(state, soon - 1) == []
    assert wake_at(state, soon - 1) == soon
    assert len(assign(state, soon)) == 1


def test_a_gang_that_drains_gets_nothing_and_may_finish_what_it_has() -> None:
    state = new_farm(slots=2)
    submit(state, "j", 9)
    (first, second) = assign(state, 0.0)
    state.gang_draining("g0")
    finish(state, [first, second])
    assert assign(state, 1.0) == []
    assert state.num_gangs(POOL) == 0


def test_calls_of_a_gang_that_left_are_given_out_again() -> None:
    state = new_farm(gangs=1)
    submit(state, "j")
    (lost,) = assign(state, 0.0)
    assert state.gang_left("g0", 5.0) == [lost.call]
    assert not state.call_finished(lost.call, "g0", 1.0), "a report of a gang that is gone counts"
    state.gang_joined("g1", POOL)
    (again,) = assign(state, 5.0)
    assert (again.call, again.gang) == (lost.call, "g1")
    assert not state.call_finished(lost.call, "g0", 1.0)
    finish(state, [again])


def test_a_gang_stays_busy_with_a_call_of_a_job_that_was_dropped() -> None:
    state = new_farm()
    submit(state, "gone", latents=60)
    (lost,) = assign(state, 0.0)
    state.drop_job("gone")
    submit(state, "next", now=1.0)
    assert assign(state, 1.0) == []
    assert not state.call_finished(lost.call, "g0", 60.0)
    assert len(assign(state, 2.0)) == 1


def test_a_gang_that_never_reports_a_dropped_call_is_used_again() -> None:
    state = new_farm()
    submit(state, "gone", latents=60)
    assign(state, 0.0)
    state.drop_job("gone")
    submit(state, "next", now=1.0)
    at = wake_at(state, 1.0)
    assert at is not None
    assert at >= 60.0
    assert len(assign(state, at)) == 1


def test_an_idle_gang_that_holds_the_prompts_is_preferred() -> None:
    state = new_farm(gangs=3)
    for name in ("a", "b", "c"):
        submit(state, name)
    homes = {one.call.job_id: one for one in assign(state, 0.0)}
    for name in ("a", "b", "c"):
        finish(state, [homes[name]])
    state.calls_ready("a", [call("a", 1)], 1.0)
    (again,) = assign(state, 1.0)
    assert again.gang == homes["a"].gang


def test_pools_do_not_take_from_each_other() -> None:
    state = new_farm(gangs=1)
    state.put_pool(PoolSpec("q", 1))
    state.gang_joined("of q", "q")
    submit(state, "j", 5)
    assert [one.gang for one in assign(state, 0.0)] == ["g0"]
    submit(state, "k", 5, pool="q")
    assert [(one.gang, one.call.job_id) for one in assign(state, 0.0)] == [("of q", "k")]


# ------------------------------------------------------------------------------------------------ due times


def test_a_job_whose_due_time_presses_goes_before_its_turn() -> None:
    state = new_farm(gangs=1)
    submit(state, "older", 1000, now=0.0)
    submit(state, "due", 10, now=1.0, due_at=1000.0)
    assert set(work_off(state, rounds=3, now=1.0)) == {"older"}
    late = 1000 - 10 / 0.9 - DUE_LEAD_S
    order = work_off(state, rounds=10, now=late + DUE_REVIEW_S)
    assert order.count("due") >= 8
    assert not state.jobs["due"].at_risk


def test_those_that_hurry_leave_some_turns_to_others() -> None:
    state = new_farm(gangs=1)
    submit(state, "other", 1000, tenant="other")
    submit(state, "due", 100, due_at=200.0)
    order = work_off(state, rounds=5 * (MAX_PRESSING_IN_A_ROW + 1), now=100.0 - DUE_LEAD_S)
    assert order.count("other") == 5
    assert order.count("due") == 5 * MAX_PRESSING_IN_A_ROW


def test_a_job_that_cannot_be_in_time_is_flagged_and_still_served() -> None:
    state = new_farm(gangs=1)
    submit(state, "late", 50, due_at=10.0)
    assert work_off(state, rounds=50) == ["late"] * 50
    assert state.jobs["late"].at_risk


def test_a_job_that_cannot_be_in_time_does_not_make_others_late() -> None:
    state = new_farm(gangs=1)
    submit(state, "hopeless", 500, due_at=100.0)
    submit(state, "possible", 20, due_at=110.0, created_at=1.0)
    order = work_off(state, rounds=20, now=110.0 - DUE_LEAD_S - 20.0)
    assert order.count("possible") == 20 * MAX_PRESSING_IN_A_ROW // (MAX_PRESSING_IN_A_ROW + 1)
    assert (state.jobs["hopeless"].at_risk, state.jobs["possible"].at_risk) == (True, False)


def test_a_due_time_that_is_taken_back_presses_no_more() -> None:
    state = new_farm(gangs=1)
    submit(state, "due", 10, due_at=60.0, created_at=5.0)
    submit(state, "older", 10, created_at=1.0)
    assert work_off(state, rounds=1) == ["due"]
    state.put_job(spec("due", created_at=5.0, work_s=9.0))
    assert work_off(state, rounds=3, now=1.0) == ["older"] * 3


# ------------------------------------------------------------------------------------------------ time and repetition


def test_a_call_that_failed_waits_before_it_is_tried_again_and_elsewhere() -> None:
    state = new_farm(gangs=2)
    submit(state, "j")
    (first,) = assign(state, 0.0)
    verdict = state.call_failed(first.call, first.gang, "call_raised", "out of memory", 10.0)
    assert verdict is not None
    assert verdict.retry_at is not None
    assert verdict.retry_at > 10.0
    assert assign(state, 10.0) == []
    assert wake_at(state, 10.0) == verdict.retry_at
    (again,) = assign(state, verdict.retry_at)
    assert again.gang != first.gang


def test_a_call_that_failed_waits_for_another_gang_while_there_is_one() -> None:
    state = new_farm(gangs=2)
    submit(state, "j", 2)
    bad, good = assign(state, 0.0)
    verdict = state.call_failed(bad.call, bad.gang, "call_raised", "", 0.0)
    assert verdict is not None
    assert verdict.retry_at is not None
    assert assign(state, verdict.retry_at) == []
    state.check_invariants()
    finish(state, [good])
    (again,) = assign(state, verdict.retry_at)
    assert (again.call, again.gang) == (bad.call, good.gang)


def test_a_call_that_failed_is_tried_on_the_same_gang_where_there_is_no_other() -> None:
    state = new_farm(gangs=1)
    submit(state, "j")
    (first,) = assign(state, 0.0)
    verdict = state.call_failed(first.call, first.gang, "call_raised", "", 0.0)
    assert verdict is not None
    assert verdict.retry_at is not None
    assert len(assign(state, verdict.retry_at)) == 1


def test_a_farm_with_nothing_to_do_need_not_be_woken() -> None:
    state = new_farm(gangs=2)
    assert wake_at(state, 0.0) is None
    assert assign(state, 0.0) == []
    submit(state, "j")
    finish(state, assign(state, 0.0))
    assert wake_at(state, 1.0) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=40), st.integers(1, 3))
@settings(max_examples=40)
def test_the_same_events_give_the_same_assignments(events: list[tuple[int, int]], slots: int) -> None:
    assume(events)

    def play() -> list[list[Assignment]]:
        state = new_farm(gangs=3, slots=slots)
        out: list[Assignment] = []
        told: list[list[Assignment]] = []
        for now, (what, number) in enumerate(events):
            if what == 0:
                submit(state, f"j{number}", number, now=float(now), tenant=f"t{number % 3}", priority=number % 2)
            elif what == 1:
                state.gang_left(f"g{number % 3}", float(now))
                state.gang_joined(f"g{number}", POOL)
            elif what == 2 and out:
                one = out.pop(number % len(out))
                state.call_finished(one.call, one.gang, float(number + 1))
            told.append(assign(state, float(now)))
            out += told[-1]
        return told

    assert play() == play()


# ------------------------------------------------------------------------------------------------ demand


def test_demand_counts_what_waits_and_who_is_there() -> None:
    state = FarmState(CostModel({"cost": Curve(linear_s=1.0)}))
    state.put_pool(PoolSpec(POOL, 1, gpus_per_gang=4))
    for name in ("g0", "g1", "g2"):
        state.gang_joined(name, POOL)
    state.gang_draining("g2")
    submit(state, "a", 5, latents=2)
    submit(state, "held", 7)
    state.hold_job("held", "paused")
    assign(state, 0.0)
    load = state.load(POOL, 30.0)
    assert load.backlog_gpu_s == 4 * 10
    assert (load.calls_ready, load.calls_running) == (3, 2)
    assert (load.gangs_ready, load.gangs_draining, load.gangs_idle) == (2, 1, 0)
    assert load.oldest_wait_s == 30.0


@pytest.mark.parametrize("capped", ["job", "tenant"])
def test_calls_that_wait_for_a_cap_alone_are_no_backlog(capped: str) -> None:
    state = new_farm(gangs=3)
    if capped == "tenant":
        state.put_tenant(TenantSpec("ada", max_calls=2))
    submit(state, "a", 50, tenant="ada", max_calls=2 if capped == "job" else None)
    given = assign(state, 0.0)
    assert len(given) == 2
    load = state.load(POOL, 100.0)
    assert (load.calls_ready, load.calls_running, load.oldest_wait_s) == (0, 2, 0.0)
    assert load.backlog_gpu_s == 50.0, "it is still to be done"
    assert state.backlog_s(POOL, within_s=10.0) == 20.0, "but two gangs are all that it can use"
    assert state.backlog_s(POOL, within_s=1e6) == 50.0
    submit(state, "b", 4, tenant="bob")
    assert state.load(POOL, 101.0).calls_ready == 4
    finish(state, given[:1])
    load = state.load(POOL, 100.0)
    assert load.calls_ready == 5, "there is room for one more call"
    assert load.oldest_wait_s <= 100.0


def test_a_call_that_waited_for_a_cap_waits_for_a_gang_from_when_there_is_room() -> None:
    state = new_farm(gangs=1)
    submit(state, "a", 9, max_calls=1)
    [given] = assign(state, 0.0)
    state.pass_time(60.0)
    finish(state, [given])
    assert state.load(POOL, 65.0).oldest_wait_s == 5.0


def test_a_gang_is_given_time_to_load_the_model_with_its_first_call_of_each_expert() -> None:
    state = new_farm()
    submit(state, "job", 4)
    [first] = assign(state, 0.0)
    assert first.deadline_s > FIRST_CALL_S
    finish(state, [first])
    [second] = assign(state, 1.0)
    assert second.deadline_s < FIRST_CALL_S, "it is loaded, and calls were measured"
    state.gang_joined("fresh", POOL)
    [third] = assign(state, 1.0)
    assert (third.gang, third.deadline_s > FIRST_CALL_S) == ("fresh", True)
    other = ReadyCall(CallKey("job", "a", 0, 9), 1, evaluations=1, start=9, expert=1)
    finish(state, [second, third])
    state.gang_left("fresh", 2.0)
    state.calls_ready("job", [other], 2.0)
    given = {one.call: one for one in [*assign(state, 2.0)]}
    while other.key not in given:
        finish(state, list(given.values()))
        given = {one.call: one for one in assign(state, 2.0)}
    assert given[other.key].deadline_s > FIRST_CALL_S, "another expert is not loaded yet"
