"""What the farm is told and what RenderPools say, decided from both."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.contract.pools_and_nodes import PoolState, PoolSupply, PoolTerms
from cluster.controller.pool_plan import (
    check_pool,
    plan_first_replicas,
    plan_statuses,
    plan_terms,
    with_terms,
)
from cluster.controller.pool_status import (
    PATIENCE_S,
    REFRESH_S,
    FarmReport,
    Readiness,
    as_patch,
    describe_pool,
)
from cluster.kube.timestamps import write_time
from cluster.render_pool import RenderPool, RenderPoolStatus, read_render_pool
from testkit.json_object import Json
from tests.cluster.controller.farm_double import pool_state

NOW = 1_785_744_000.0


def render_pool(
    name: str = "wan", *, created: float = NOW - 3600, status: Json | None = None, **spec: Any
) -> RenderPool:
    whole = {"pool": "wan", "model": "Wan-AI/Wan2.2", "gangShape": "ulysses=2", "minGangs": 1, "maxGangs": 8, **spec}
    meta = {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": 3, "resourceVersion": "7"}
    meta["creationTimestamp"] = write_time(created)
    return read_render_pool({"metadata": meta, "spec": whole, "status": status or {}})


def report(*pools: PoolState, at: float = NOW) -> FarmReport:
    return FarmReport(pools, at)


AWAY = FarmReport(None, NOW, "the farm at http://farm does not answer in time")


def settled(pool: RenderPool, farm: FarmReport, now: float = NOW) -> RenderPool:
    """The RenderPool after what was planned for it was written."""
    for write in plan_statuses([pool], farm, failed={}, now=now):
        assert write.render_pool == pool
        status = {name: value for name, value in as_patch(write.status).items() if value is not None}
        spec = pool.spec.model_dump(mode="json", by_alias=True, exclude_none=True) if pool.spec else {}
        return render_pool(pool.name, created=pool.created_at, status=status, **spec)
    return pool


def condition(status: RenderPoolStatus, kind: str) -> tuple[str, str]:
    found = status.condition(kind)
    assert found is not None
    return found.status, found.reason


def test_terms_that_differ_are_told_and_those_that_are_right_are_not() -> None:
    pool = render_pool()
    (order,) = plan_terms([pool], report(pool_state()))
    assert order.pool == "wan"
    assert order.terms == PoolTerms(min_gangs=1, max_gangs=8)
    assert plan_terms([pool], with_terms(report(pool_state()), [order])) == ()


def test_in_external_mode_replicas_are_passed_on_and_in_native_mode_they_are_not() -> None:
    external = render_pool(scaling="external", replicas=5)
    (order,) = plan_terms([external], report(pool_state()))
    assert (order.terms.mode, order.terms.replicas) == ("external", 5)
    (order,) = plan_terms([render_pool(replicas=5)], report(pool_state()))
    assert (order.terms.mode, order.terms.replicas) == ("native", None)


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"pool": "wam"}, "PoolUnknown", "the farm has no pool 'wam'; did you mean 'wan'?"),
        ({"model": "Wan-AI/Wan2.1"}, "ModelDiffers", "pool 'wan' serves 'Wan-AI/Wan2.2', not 'Wan-AI/Wan2.1'"),
        ({"model": "pocket"}, "ModelDiffers", "pool 'small' serves that"),
        ({"gangShape": "ring=2"}, "ShapeDiffers", "have the shape 'ulysses=2', not 'ring=2'"),
    ],
)
def test_a_pool_that_the_farm_has_otherwise_is_left_alone_and_says_why(spec: Json, reason: str, words: str) -> None:
    pool = render_pool(**spec)
    farm = report(pool_state(), pool_state("small", model="pocket"))
    assert plan_terms([pool], farm) == ()
    verdict = check_pool(pool, [pool], farm)
    assert (verdict.truth, verdict.reason) == ("False", reason)
    assert words in verdict.message


def test_a_spec_that_cannot_be_understood_says_what_is_wrong() -> None:
    pool = render_pool(scaling="manual")
    assert plan_terms([pool], report(pool_state())) == ()
    (write,) = plan_statuses([pool], report(pool_state()), failed={}, now=NOW)
    assert condition(write.status, "Ready") == ("False", "InvalidSpec")
    assert condition(write.status, "FarmReachable") == ("True", "Answered")


def test_of_two_render_pools_for_one_pool_the_oldest_wins_and_the_other_says_so() -> None:
    old, new = render_pool("old", created=NOW - 100, maxGangs=4), render_pool("new", created=NOW - 50, maxGangs=6)
    for pools in ([old, new], [new, old]):
        (order,) = plan_terms(pools, report(pool_state()))
        assert order.render_pool == old
    verdict = check_pool(new, [old, new], report(pool_state()))
    assert verdict.reason == "PoolTaken"
    assert "default/old, which is older" in verdict.message


def test_made_in_the_same_second_the_name_decides() -> None:
    a, b = render_pool("a", maxGangs=4), render_pool("b", maxGangs=6)
    for pools in ([a, b], [b, a]):
        (order,) = plan_terms(pools, report(pool_state()))
        assert order.render_pool == a


def test_the_status_has_the_farms_numbers() -> None:
    pool = render_pool(minGangs=0, maxGangs=1)
    (write,) = plan_statuses([pool], report(pool_state()), failed={}, now=NOW)
    status = write.status
    assert (status.gangs.wanted, status.gangs.ready, status.replicas) == (1, 1, 1)
    assert status.backlog_gpu_seconds == 1230, "to three digits"
    assert status.selector == "longtake.dev/pool=wan"
    assert status.observed_generation == 3
    assert status.measured_at == write_time(NOW)
    assert condition(status, "Ready") == ("True", "AsSpecified")
    assert condition(status, "SpotPolicyApplied") == ("True", "Applied")


def test_gangs_that_start_count_as_replicas_or_an_autoscaler_asks_for_them_twice() -> None:
    supply = PoolSupply(ready=2, idle=0, starting=3, draining=1, cold_start_s=1)
    (write,) = plan_statuses([render_pool()], report(pool_state(supply=supply)), failed={}, now=NOW)
    assert write.status.replicas == 5


def test_another_spot_policy_waits_for_the_next_deployment_and_says_what_to_do() -> None:
    (write,) = plan_statuses([render_pool(spotPolicy="avoid")], report(pool_state()), failed={}, now=NOW)
    assert condition(write.status, "SpotPolicyApplied") == ("False", "NextDeployment")
    told = write.status.condition("SpotPolicyApplied")
    assert told is not None
    assert "deployed with spot policy 'allow'" in told.message
    assert "upgrade the chart's release with spotPolicy 'avoid' at pool 'wan'" in told.message


def test_replicas_that_mean_nothing_are_said_to_mean_nothing() -> None:
    assert "replicas, 5, is ignored" in check_pool(render_pool(replicas=5), [], report(pool_state())).message
    assert (
        "nobody has written replicas" in check_pool(render_pool(scaling="external"), [], report(pool_state())).message
    )


@pytest.mark.parametrize(("replicas", "clamped"), [(0, 1), (1, None), (8, None), (9, 8)])
def test_replicas_outside_the_limits_are_said_to_be_clamped(replicas: int, clamped: int | None) -> None:
    message = check_pool(render_pool(scaling="external", replicas=replicas), [], report(pool_state())).message
    assert (f"replicas, {replicas}, counts as {clamped}" in message) == (clamped is not None)


def test_without_a_director_the_pool_is_not_ready_and_the_last_numbers_stay() -> None:
    pool = settled(render_pool(), report(pool_state()))
    (write,) = plan_statuses([pool], report(pool_state(supply=None, demand=None, decision=None)), failed={}, now=NOW)
    assert condition(write.status, "Ready") == ("False", "NotMeasured")
    assert len(plan_terms([render_pool()], report(pool_state(supply=None)))) == 1, (
        "its store keeps them for the Director"
    )
    assert write.status.gangs.ready == 1
    assert write.status.measured_at == pool.status.measured_at


def test_why_the_farm_was_not_told_is_said() -> None:
    untold = {"default/wan": Readiness("False", "TermsRefused", "max_gangs is more than your quota")}
    (write,) = plan_statuses([render_pool()], report(pool_state()), failed=untold, now=NOW)
    assert condition(write.status, "Ready") == ("False", "TermsRefused")
    assert write.news == "max_gangs is more than your quota"


def test_a_farm_that_is_away_changes_nothing_but_says_so() -> None:
    pool = settled(render_pool(), report(pool_state(), at=NOW - 5), NOW - 5)
    assert plan_terms([pool], AWAY) == ()
    assert plan_first_replicas([pool], AWAY) == ()
    (write,) = plan_statuses([pool], AWAY, failed={}, now=NOW)
    assert condition(write.status, "FarmReachable") == ("False", "NoAnswer")
    assert condition(write.status, "Ready") == ("True", "AsSpecified"), "for a while"
    assert write.status.gangs == pool.status.gangs
    assert write.status.measured_at == write_time(NOW - 5)
    away = settled(pool, AWAY)
    assert plan_statuses([away], AWAY, failed={}, now=NOW + 30) == (), "it is said once"
    (late,) = plan_statuses([away], AWAY, failed={}, now=NOW + PATIENCE_S + 1)
    assert condition(late.status, "Ready") == ("Unknown", "FarmUnreachable")
    assert late.status.gangs == pool.status.gangs


def test_a_farm_that_never_answered_leaves_a_pool_unknown() -> None:
    (write,) = plan_statuses([render_pool()], AWAY, failed={}, now=NOW)
    assert condition(write.status, "Ready") == ("Unknown", "FarmUnreachable")


def test_a_condition_keeps_the_time_at_which_it_began() -> None:
    pool = settled(render_pool(), report(pool_state()))
    supply = PoolSupply(ready=2, idle=0, starting=0, draining=0, cold_start_s=1)
    later = settled(pool, report(pool_state(supply=supply)), NOW + 100)
    assert later.status.gangs.ready == 2
    before, after = pool.status.condition("Ready"), later.status.condition("Ready")
    assert before is not None
    assert after is not None
    assert after.last_transition_time == before.last_transition_time == write_time(NOW)
    gone = settled(later, report(pool_state("other")), NOW + 200).status.condition("Ready")
    assert gone is not None
    assert gone.last_transition_time == write_time(NOW + 200)


def test_conditions_of_others_stay() -> None:
    theirs = {"type": "Audited", "status": "True", "reason": "Yes", "message": "", "lastTransitionTime": write_time(1)}
    pool = render_pool(status={"conditions": [theirs]})
    (write,) = plan_statuses([pool], report(pool_state()), failed={}, now=NOW)
    assert condition(write.status, "Audited") == ("True", "Yes")


def test_numbers_that_always_move_are_written_only_now_and_then() -> None:
    pool = settled(render_pool(), report(pool_state()))
    assert pool_state().demand is not None
    busier = pool_state(demand=pool_state().demand.model_copy(update={"backlog_gpu_s": 99.0}))  # type: ignore[union-attr]
    soon, later = NOW + REFRESH_S - 1, NOW + REFRESH_S
    assert plan_statuses([pool], report(busier, at=soon), failed={}, now=soon) == ()
    (write,) = plan_statuses([pool], report(busier, at=later), failed={}, now=later)
    assert write.status.backlog_gpu_seconds == 99
    assert write.news is None
    back = NOW - 3600  # the clock was set back
    assert len(plan_statuses([pool], report(busier, at=back), failed={}, now=back)) == 1


def test_a_change_that_autoscalers_act_on_is_written_at_once() -> None:
    pool = settled(render_pool(), report(pool_state()))
    supply = PoolSupply(ready=2, idle=0, starting=0, draining=0, cold_start_s=1)
    assert len(plan_statuses([pool], report(pool_state(supply=supply), at=NOW + 1), failed={}, now=NOW + 1)) == 1


def test_external_scaling_begins_with_the_gangs_that_there_are() -> None:
    # An HPA leaves a target with 0 replicas, or none, alone forever.
    pool = render_pool(scaling="external", minGangs=0)
    none = PoolSupply(ready=0, idle=0, starting=0, draining=0, cold_start_s=1)
    for supply, replicas in ((none, 1), (none.model_copy(update={"ready": 2, "starting": 1}), 3)):
        farm = report(pool_state(supply=supply, terms=pool.spec.terms if pool.spec else None))
        assert [one.replicas for one in plan_first_replicas([pool], farm)] == [replicas]
    assert plan_first_replicas([render_pool(scaling="external", replicas=0, minGangs=0)], report(pool_state())) == ()
    assert plan_first_replicas([render_pool()], report(pool_state())) == ()


_names = st.sampled_from(["wan", "wan", "small", "nosuch"])
_pools = st.lists(
    st.builds(
        lambda name, pool, created, low, more, scaling, replicas: render_pool(
            name,
            created=NOW - created,
            pool=pool,
            minGangs=low,
            maxGangs=max(1, low + more),
            scaling=scaling,
            **({} if replicas is None else {"replicas": min(replicas, max(1, low + more))}),
        ),
        st.sampled_from([f"rp{n}" for n in range(5)]),
        _names,
        st.integers(0, 3),
        st.integers(0, 4),
        st.integers(0, 4),
        st.sampled_from(["native", "external"]),
        st.none() | st.integers(0, 8),
    ),
    max_size=4,
    unique_by=lambda pool: pool.name,
)


@given(_pools, st.booleans())
def test_after_one_round_there_is_nothing_left_to_do(pools: list[RenderPool], away: bool) -> None:
    farm = AWAY if away else report(pool_state(), pool_state("small"))
    orders = plan_terms(pools, farm)
    assert len({order.pool for order in orders}) == len(orders), "a pool has one voice"
    after = with_terms(farm, orders)
    assert plan_terms(pools, after) == ()
    writes = {write.render_pool.key: write.status for write in plan_statuses(pools, after, failed={}, now=NOW)}
    assert set(writes) == {pool.key for pool in pools}, "each says something the first time"
    for pool in pools:
        done = RenderPool(**{**vars(pool), "status": writes[pool.key]})
        verdict = check_pool(done, pools, after)
        assert describe_pool(done, verdict, after, now=NOW + 1) == writes[pool.key]
