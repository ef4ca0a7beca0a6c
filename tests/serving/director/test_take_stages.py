"""A take's way through its stages: which may follow which, whatever happens in whatever order."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.director.runs import NEXT, Stage, TakeRun
from serving.planning.plan import TakePlan
from serving.render.farm_messages import TakeId, TakeProgress
from sharding.stitching import JOINT

EVENTS: dict[str, Callable[[TakeRun], None]] = {
    "open_on": lambda take: take.open_on(1),
    "opened": lambda take: take.opened(moves=False),
    "opened at a host that moves": lambda take: take.opened(moves=True),
    "rest": TakeRun.rest,
    "finish": TakeRun.finish,
    "rendered": TakeRun.rendered,
    "release": TakeRun.release,
    "found": lambda take: take.found(frames=False),
    "found with frames": lambda take: take.found(frames=True),
    "made_by": lambda take: take.made_by(new_take()),
    "has_frames": TakeRun.has_frames,
    "begin_again": TakeRun.begin_again,
}


def new_take() -> TakeRun:
    plan = TakePlan("red", 1, (), 8, 29, 0, 0, 0, (), (), (), False, (), 8, JOINT, "", (1, 1), 2, 2, 16, 2, 1, 1)
    return TakeRun(TakeId("job", "red"), 0, plan, "content")


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=40))
def test_a_take_only_goes_where_the_table_lets_it_and_is_left_as_it_was_elsewhere(names: list[str]) -> None:
    take = new_take()
    for name in names:
        before, refused = take.stage, False
        try:
            EVENTS[name](take)
        except ValueError:
            refused = True
        if refused:
            assert take.stage is before
        elif name == "found with frames":  # two steps at once
            assert (Stage.RENDERED in NEXT[before], take.stage) == (True, Stage.DECODED)
        else:
            assert take.stage in NEXT[before]
        assert take.record().status in ("waiting", "rendering", "rendered", "decoded")
        assert (take.host is None) or take.stage is not Stage.WAITING
        assert not (take.held and take.done)
        assert take.calls_done == (take.plan.calls if take.done else 0)


@pytest.mark.parametrize("stage", list(Stage))
def test_from_every_stage_a_take_can_still_be_done_and_can_begin_again(stage: Stage) -> None:
    reached, new = {stage}, {stage}
    while new:
        new = {after for one in new for after in NEXT[one]} - reached
        reached |= new
    assert {Stage.WAITING, Stage.DECODED} <= reached, "no stage is a trap"


def test_a_take_whose_latents_become_durable_while_its_host_moves_needs_the_host_no_more() -> None:
    take = new_take()
    for name in ("open_on", "opened", "rest", "finish"):
        EVENTS[name](take)
    held = [take.held]
    take.rendered()
    held.append(take.held)
    assert held == [True, False]
    with pytest.raises(ValueError, match="take red is rendered and cannot be releasing next"):
        take.release()


def test_a_take_that_is_found_was_not_rendered_for_its_job_until_it_is_begun_again() -> None:
    take = new_take()
    take.found(frames=True)
    assert (take.stage, take.cached, take.decoded.complete) == (Stage.DECODED, True, True)
    take.begin_again()
    assert (take.stage, take.cached, take.decoded.complete) == (Stage.WAITING, False, False)


def test_a_take_that_was_in_work_when_its_director_died_counts_as_rendered_with_all_its_latents() -> None:
    before = new_take()
    before.open_on(1)
    before.opened(moves=False)
    before.report(TakeProgress((3, 2, 3), 0, 1), now=0.0)
    after = TakeRun.claimed("job", 0, before.plan, "content", before.record())
    after.found(frames=False)  # what its host had finished meanwhile is in the artifact store
    assert after.count(after.record()) == (5, "rendered"), "3 of 8 were counted from the record"
    assert after.count(after.record()) == (0, None)

    elsewhere = TakeRun.claimed("job", 0, before.plan, "content", None)
    elsewhere.found(frames=False)
    assert elsewhere.count(elsewhere.record()) == (0, "cache")
