"""A take is stitched as the storyboard asks or as its model does best, and counts, keys and refusals follow from it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import StoryboardError
from serving.models.registry import open_model
from serving.planning.content_keys import content_key
from serving.planning.plan import plan_json
from serving.planning.stitching import stitchings_of
from serving.render.takes import open_recipe
from serving.storyboard import parse_storyboard, storyboard_hash
from sharding.capabilities import Capabilities, PictureSupport
from sharding.solver import EulerSolver, flow_sigmas
from sharding.stitching import JOINT, STITCHING_KINDS, Stitching, StitchingKind
from sharding.timeline import Timeline
from tests.serving.planning.test_compile_plan import capabilities, plan_of, shot

WITH_CONTEXT = PictureSupport(first=True, last=True, keyframes=True, context=True, given=True)
A = f"sha256:{'a' * 64}"


def able(stitching: Stitching = JOINT) -> Capabilities:
    return replace(capabilities(), pictures=WITH_CONTEXT, stitching=stitching)


@pytest.mark.parametrize("kind", STITCHING_KINDS)
def test_a_long_take_is_stitched_as_the_storyboard_asks_with_the_settings_of_its_model(kind: StitchingKind) -> None:
    can = able(Stitching("drafted", context=3, sweeps=0.25))
    take = plan_of([shot(6)], can=can, stitching=kind).takes[0]
    assert take.stitching == Stitching(kind, context=3, sweeps=0.25)
    assert take.stitching_reason == "the storyboard asks for it"


def test_without_a_word_of_the_storyboard_a_take_is_stitched_as_its_model_does_best() -> None:
    drafted = plan_of([shot(6)], can=able(Stitching("drafted"))).takes[0]
    assert (drafted.stitching, "does best" in drafted.stitching_reason) == (Stitching("drafted"), True)
    joint = plan_of([shot(6)]).takes[0]
    assert (joint.stitching, joint.stitching_reason) == (JOINT, "it is what the model can do")


def test_a_take_of_few_steps_is_chained_rather_than_drafted_unless_that_is_asked_for() -> None:
    can = able(Stitching("drafted"))
    assert [plan_of([shot(6)], can=can, steps=steps).takes[0].stitching.kind for steps in (8, 7)] == [
        "drafted",
        "chained",
    ]
    assert plan_of([shot(6)], can=can, steps=4, stitching="drafted").takes[0].stitching.kind == "drafted"


def test_a_take_of_one_chunk_is_joint_whatever_is_asked() -> None:
    take = plan_of([shot(1)], can=able(Stitching("drafted")), stitching="chained").takes[0]
    assert (take.stitching, take.stitching_reason) == (JOINT, "it is one chunk")


@pytest.mark.parametrize("kind", ["chained", "drafted", "keyed"])
def test_a_model_that_reads_no_context_refuses_with_models_that_do(kind: str) -> None:
    with pytest.raises(StoryboardError, match=rf"stitching: .* can do joint alone; models that can: pocket.*{kind}"):
        plan_of([shot(6)], stitching=kind)
    assert plan_of([shot(6)], stitching="joint").takes[0].stitching == JOINT


def test_a_word_that_is_no_stitching_is_refused_with_the_nearest() -> None:
    with pytest.raises(StoryboardError) as caught:
        parse_storyboard(b"version: 1\nstitching: chain\nshots: [{prompt: x, seconds: 1}]\n")
    (problem,) = caught.value.problems
    assert (problem.path, problem.line, problem.nearest) == ("stitching", 2, "chained")


def test_a_storyboard_without_it_has_the_hash_that_it_had() -> None:
    plain, asked = (
        parse_storyboard(b"version: 1\n" + line + b"shots: [{prompt: x, seconds: 1}]\n")
        for line in (b"", b"stitching: joint\n")
    )
    assert "stitching" not in plain.model_dump()
    assert storyboard_hash(plain) != storyboard_hash(asked)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(STITCHING_KINDS),
    seconds=st.floats(0.5, 12),
    steps=st.integers(1, 12),
    sweeps=st.sampled_from([0.0, 0.4]),
    pictures=st.sets(st.integers(0, 10), max_size=4),
)
def test_the_calls_of_a_plan_are_those_of_its_timeline(
    kind: StitchingKind, seconds: float, steps: int, sweeps: float, pictures: set[int]
) -> None:
    can = able(Stitching(kind, sweeps=sweeps))
    keyframes = [{"at": at * seconds / 12, "image": A} for at in sorted(pictures)]
    try:
        plan = plan_of([shot(seconds, keyframes=keyframes)], can=can, steps=steps)
    except StoryboardError:
        return  # two pictures in one latent
    take = plan.takes[0]
    recipe = open_recipe(
        plan, take, capabilities=can, solver_of=lambda count: EulerSolver(flow_sigmas(count, shift=3.0))
    )
    shape = can.latent_shape(width=plan.width, height=plan.height)
    timeline = Timeline(torch.zeros(take.latents, *shape), recipe)
    assert len(timeline.ready()) == take.ready_calls
    calls, latents, most, rounds = 0, 0, 0, 0
    while not timeline.done:
        ready = timeline.ready()
        most, rounds = max(most, len(ready)), rounds + 1
        for call in ready:
            timeline.accept(call, torch.zeros(len(call.reads), *shape))
            calls, latents = calls + 1, latents + len(call.reads)
    assert (calls, latents) == (take.calls, take.latents_evaluated)
    assert rounds <= take.longest_chain, "on gangs without end it takes no longer than its longest chain"


def test_a_chain_is_as_long_as_all_its_calls_and_a_draft_is_shorter() -> None:
    chained, drafted, joint = (
        plan_of([shot(10)], can=able(), stitching=kind).takes[0] for kind in ("chained", "drafted", "joint")
    )
    assert chained.longest_chain == chained.calls == 7 * 24
    assert (chained.ready_calls, chained.calls_at_once) == (1, 1)
    assert drafted.longest_chain == 7 * 6 + 18
    assert drafted.calls_at_once == joint.calls_at_once > 5
    assert (joint.longest_chain, joint.ready_calls) == (24, joint.chunks_per_step[0])
    assert (drafted.draft_steps(24), chained.draft_steps(24)) == (6, 0)


def test_takes_that_are_stitched_otherwise_have_other_keys_and_those_of_one_chunk_share_theirs() -> None:
    plans = [plan_of([shot(6), shot(1)], can=able(), stitching=kind) for kind in STITCHING_KINDS]
    keys = [[content_key(plan, take, numerics={}) for take in plan.takes] for plan in plans]
    assert len({long for long, _ in keys}) == len(STITCHING_KINDS)
    assert len({short for _, short in keys}) == 1


def test_a_plan_says_how_its_takes_are_stitched_and_why() -> None:
    described: Any = plan_json(plan_of([shot(6)], can=able(), stitching="chained"))
    (take,) = described["takes"]
    assert (take["stitching"]["kind"], take["stitching"]["reason"]) == ("chained", "the storyboard asks for it")
    assert take["longest_chain"] == take["calls"]


def test_pocket_can_do_every_stitching_and_a_model_of_words_alone_joint() -> None:
    assert sorted(stitchings_of(open_model("pocket").capabilities)) == sorted(STITCHING_KINDS)
    assert stitchings_of(capabilities()) == ["joint"]
