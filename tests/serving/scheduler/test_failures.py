"""What follows from a failed call: tried elsewhere, a gang replaced, or a job given up with the evidence."""

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.scheduler.cost_model import CostModel, Curve
from serving.scheduler.failures import (
    CALL_BACKOFF,
    GANG_LOST,
    GANG_STRIKES,
    MAX_CALL_TRIES,
    NOT_COUNTED,
    POISON_GANGS,
    Attempt,
    CallVerdict,
    FailureKind,
    GangRecord,
    Trouble,
    judge,
)
from serving.scheduler.policy import assign, wake_at
from serving.scheduler.state import Assignment, CallKey, FarmState, JobSpec, PoolSpec, ReadyCall

KINDS: tuple[FailureKind, ...] = (
    "gang_died",
    "call_raised",
    "timed_out",
    "bad_prediction",
    "host_lost",
    "drained",
    "preempted",
)
COUNTED = [kind for kind in KINDS if kind not in NOT_COUNTED]


def verdicts(attempts: list[tuple[str, FailureKind]]) -> list[CallVerdict]:
    """What follows from each attempt at one call, until its job fails."""
    trouble, found = Trouble(), []
    for at, (gang, kind) in enumerate(attempts):
        found.append(judge(trouble, Attempt(gang, kind, f"detail {at}", float(at)), gang_to_blame=False))
        if found[-1].retry_at is None:
            break
    return found


# ------------------------------------------------------------------------------------------------ one call


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(KINDS)), max_size=30))
def test_a_call_is_given_up_after_so_many_counted_failures_or_lost_gangs(
    attempts: list[tuple[str, FailureKind]],
) -> None:
    found = verdicts(attempts)
    tried = attempts[: len(found)]
    counted = [(gang, kind) for gang, kind in tried if kind not in NOT_COUNTED]
    lost = {gang for gang, kind in counted if kind in GANG_LOST}
    failed = bool(found) and found[-1].retry_at is None
    assert failed == (len(counted) >= MAX_CALL_TRIES or len(lost) >= POISON_GANGS)
    if failed:
        assert found[-1].poison == (len(lost) >= POISON_GANGS)
        assert found[-1].code == ("poison_call" if found[-1].poison else "call_failed")
    if found:
        evidence = [(attempt.gang, attempt.kind) for attempt in found[-1].evidence]
        assert evidence == counted, "the evidence is every counted attempt"
        assert all(attempt.detail for attempt in found[-1].evidence)


@given(st.lists(st.sampled_from(NOT_COUNTED), max_size=200))
def test_drains_preemptions_and_lost_hosts_never_count(kinds: list[FailureKind]) -> None:
    found = verdicts([("a", kind) for kind in kinds])
    assert len(found) == len(kinds)
    for at, verdict in enumerate(found):
        assert verdict == CallVerdict(retry_at=float(at), replace_gang=False)


def test_waits_double_until_they_are_long() -> None:
    trouble = Trouble()
    waits = []
    for at in range(MAX_CALL_TRIES - 1):
        verdict = judge(trouble, Attempt("a", "call_raised", "", float(at)), gang_to_blame=False)
        assert verdict.retry_at is not None
        waits.append(verdict.retry_at - at)
    for index, wait_s in enumerate(waits):
        assert abs(wait_s - CALL_BACKOFF.wait_s(index + 1)) < 1e-6


def test_a_gang_is_replaced_when_it_died_hung_or_is_to_blame() -> None:
    for kind in COUNTED:
        replaced = judge(Trouble(), Attempt("a", kind, "", 0.0), gang_to_blame=False).replace_gang
        assert replaced == (kind in GANG_LOST)
        assert judge(Trouble(), Attempt("a", kind, "", 0.0), gang_to_blame=True).replace_gang


# ------------------------------------------------------------------------------------------------ one gang


def test_a_gang_is_to_blame_when_it_fails_again_and_again_and_others_do_not() -> None:
    record = GangRecord()
    blamed = []
    for _ in range(GANG_STRIKES):
        blamed.append(record.failed("cost", "bad"))
        record.succeeded("cost", "good")
    assert blamed == [False] * (GANG_STRIKES - 1) + [True]


def test_a_success_clears_a_gang() -> None:
    record = GangRecord()
    for _ in range(5 * GANG_STRIKES):
        assert not record.failed("cost", "a")
        record.succeeded("cost", "a")


def test_strikes_of_one_class_say_nothing_about_another() -> None:
    record = GangRecord()
    for name in ("x", "y", "z"):
        for _ in range(GANG_STRIKES - 1):
            assert not record.failed(name, "a")


@given(st.lists(st.sampled_from("abcdef"), max_size=100))
def test_calls_that_fail_everywhere_empty_no_farm(gangs: list[str]) -> None:
    record = GangRecord()
    record.failed("cost", "a")
    record.failed("cost", "b")
    assert not any(record.failed("cost", gang) for gang in gangs)


def test_a_gang_that_is_gone_is_forgotten() -> None:
    record = GangRecord()
    for _ in range(GANG_STRIKES - 1):
        record.failed("cost", "a")
    record.forget("a")
    assert not record.failed("cost", "a")


# ------------------------------------------------------------------------------------------------ on the farm


def new_farm(gangs: int) -> FarmState:
    state = FarmState(CostModel({"cost": Curve(linear_s=1.0)}))
    state.put_pool(PoolSpec("p", slots=2))
    for index in range(gangs):
        state.gang_joined(f"g{index}", "p")
    return state


def submit(state: FarmState, name: str, num_calls: int, *, cost_key: str = "cost") -> None:
    spec = JobSpec(name, "t", "p", 50, None, 0.0, cost_key, work_s=float(num_calls), path_s=1.0)
    state.put_job(spec)
    calls = [ReadyCall(CallKey(name, "a", 0, number), 1, evaluations=1, start=number) for number in range(num_calls)]
    state.calls_ready(name, calls, 0.0)


def test_a_call_that_kills_gangs_fails_its_job_with_the_evidence_and_spares_the_farm() -> None:
    state = new_farm(gangs=10)
    submit(state, "poison", 1)
    submit(state, "good", 30)
    now, dead, verdict, done = 0.0, [], None, 0
    while done < 30 or not state.jobs["poison"].held:
        for one in assign(state, now):
            if one.call.job_id == "poison":
                verdict = state.call_failed(one.call, one.gang, "gang_died", "signal 9", now)
                assert verdict is not None
                dead.append(one.gang)
                state.gang_left(one.gang, now)
            elif state.call_finished(one.call, one.gang, 1.0):
                done += 1
        now = wake_at(state, now) or now + 1.0
        state.check_invariants()
        assert now < 1000
    for _ in range(20):
        now += 1
        assert assign(state, now) == []
    assert verdict is not None
    assert verdict.poison
    assert len(dead) == POISON_GANGS == len(set(dead))
    assert [attempt.gang for attempt in verdict.evidence] == dead
    assert all(attempt.detail == "signal 9" for attempt in verdict.evidence)
    assert state.num_gangs("p") == 10 - POISON_GANGS
    assert "fails" in state.jobs["poison"].held
    assert done == 30


def test_a_job_whose_calls_all_fail_is_given_up_and_no_gang_is_replaced() -> None:
    state = new_farm(gangs=4)
    submit(state, "broken", 20, cost_key="cost")
    now, code = 0.0, ""
    while not state.jobs["broken"].held:
        for one in assign(state, now):
            verdict = state.call_failed(one.call, one.gang, "call_raised", "ValueError", now)
            if verdict is not None and verdict.retry_at is None:
                code = verdict.code
        now = wake_at(state, now) or now + 1.0
        assert now < 1000
    assert code == "call_failed"
    assert state.num_gangs("p") == 4


def test_a_bad_gang_is_taken_out_and_its_calls_are_done_elsewhere() -> None:
    state = new_farm(gangs=3)
    submit(state, "j", 60)
    now, done = 0.0, 0
    while done < 60:
        for one in assign(state, now):
            if one.gang == "g1":
                state.call_failed(one.call, one.gang, "bad_prediction", "not finite", now)
            elif state.call_finished(one.call, one.gang, 1.0):
                done += 1
        now = wake_at(state, now) or now + 1.0
        assert now < 1000
    assert state.gangs["g1"].draining
    assert state.num_gangs("p") == 2
    assert not state.jobs["j"].held
    assert not state.jobs["j"].trouble


def test_a_gang_that_comes_back_starts_afresh() -> None:
    state = new_farm(gangs=1)
    submit(state, "j", 2 * GANG_STRIKES)
    now = 0.0
    for turn in range(GANG_STRIKES):
        if turn == GANG_STRIKES - 1:
            state.gang_left("g0", now)
            state.gang_joined("g0", "p")
        one = assign(state, now)[0]
        verdict = state.call_failed(one.call, one.gang, "call_raised", "", now)
        assert verdict is not None
        assert not verdict.replace_gang


@given(st.integers(1, 40))
@settings(max_examples=10)
def test_a_call_may_be_drained_as_often_as_it_likes(times: int) -> None:
    state = new_farm(gangs=1)
    submit(state, "j", 1)
    for turn in range(times):
        (one,) = assign(state, float(turn))
        verdict = state.call_failed(one.call, one.gang, "drained", "", float(turn))
        assert verdict is not None
        assert verdict.retry_at == turn
    assert not state.jobs["j"].trouble
    assert state.num_gangs("p") == 1


def test_a_call_that_is_stuck_is_given_up_after_a_multiple_of_what_it_should_take() -> None:
    state = new_farm(gangs=1)
    submit(state, "j", 3)

    def deadline_of(given: list[Assignment]) -> float:
        return given[0].deadline_s

    unmeasured = assign(state, 0.0)
    assert state.call_finished(unmeasured[0].call, "g0", 1.0)
    assert state.call_finished(unmeasured[1].call, "g0", 1.0)
    measured = assign(state, 2.0)
    assert deadline_of(unmeasured) > deadline_of(measured) > measured[0].expected_s
    assert unmeasured[1].deadline_s > unmeasured[0].deadline_s, "the wait in the gang's slot is included"
