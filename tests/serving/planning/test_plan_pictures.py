"""Pictures of shots become latents of takes: which one, at which real frame, and what is refused with who could."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import StoryboardError
from serving.planning.content_keys import content_key
from serving.planning.plan import FilmPlan, TakePicture, plan_json
from sharding.capabilities import Capabilities, PictureSupport
from sharding.timeline import Timeline
from tests.serving.planning.test_compile_plan import capabilities, plan_of, shot

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")

ANY = PictureSupport(first=True, last=True, keyframes=True, strength=True, context=True, given=True)
FIRST = PictureSupport(first=True, given=True)
BESIDE = PictureSupport(first=True, last=True, sections=True, needs_first=True, shown=True)


def able(support: PictureSupport, **keys: Any) -> Capabilities:
    return replace(capabilities(**keys), pictures=support)


def pictures_of(plan: FilmPlan) -> list[TakePicture]:
    return [picture for take in plan.takes for picture in take.pictures]


def refused(shots: list[dict[str, Any]], support: PictureSupport, **keys: Any) -> str:
    with pytest.raises(StoryboardError) as caught:
        plan_of(shots, can=able(support), **keys)
    return str(caught.value)


def test_each_picture_lands_at_the_latent_whose_last_frame_is_nearest() -> None:
    shots = [shot(6, image=A, last_image=B, keyframes=[{"at": 2.5, "image": C}, {"at": 4.1, "image": A}])]
    plan = plan_of(shots, can=able(ANY))
    found = [(p.place, p.latent, p.frame, p.real_frame) for p in pictures_of(plan)]
    assert found == [("first", 0, 0, 0), ("keyframe", 10, 40, 40), ("keyframe", 17, 66, 68), ("last", 24, 95, 96)]
    shares = plan.takes[0].shares
    assert [n for n, share in enumerate(shares) if share == 0] == [0, 10, 17, 24]


@settings(max_examples=100)
@given(
    seconds=st.floats(0.5, 8), at=st.floats(0, 1), frames_per_latent=st.sampled_from([1, 4, 8]), fps=st.integers(8, 30)
)
def test_a_keyframe_is_seen_within_half_a_latent_of_when_it_was_asked_for(
    seconds: float, at: float, frames_per_latent: int, fps: int
) -> None:
    can = able(ANY, frames_per_latent=frames_per_latent, fps=fps)
    plan = plan_of([shot(seconds, keyframes=[{"at": at * seconds, "image": A}])], can=can)
    (picture,) = pictures_of(plan)
    last = plan.takes[0].shot_frames - 1
    assert picture.frame == min(last, int(at * seconds * fps + 0.5))
    assert picture.real_frame == frames_per_latent * picture.latent
    assert (
        abs(picture.real_frame - picture.frame) <= frames_per_latent / 2 or picture.latent == plan.takes[0].latents - 1
    )
    assert 0 <= picture.latent < plan.takes[0].latents


def test_a_picture_behind_a_dissolve_lands_at_its_shot_and_where_it_must_at_the_start_of_the_take() -> None:
    shots = [shot(3), shot(3, {"dissolve": 1.0}, image=A)]
    (landed,) = pictures_of(plan_of(shots, can=able(ANY)))
    assert (landed.frame, landed.latent, landed.real_frame) == (8, 2, 8)
    (forced,) = pictures_of(plan_of(shots, can=able(FIRST)))
    assert (forced.frame, forced.latent, forced.real_frame) == (8, 0, 0)


def test_the_film_tells_when_each_picture_is_seen() -> None:
    plan = plan_of([shot(2), shot(3, keyframes=[{"at": 1.6, "image": A}])], can=able(ANY))
    told: Any = plan_json(plan)["takes"]
    assert "pictures" not in told[0]
    (picture,) = told[1]["pictures"]
    assert (picture["requested_frame"], picture["real_frame"], picture["real_seconds"]) == (58, 60, 3.75)


def test_pictures_of_several_shots_in_one_take_land_in_that_take() -> None:
    shots = [shot(2, image=A), shot(2, "continue", image=B, last_image=C)]
    plan = plan_of(shots, can=able(ANY))
    assert [(p.asset[0], p.latent) for p in plan.takes[0].pictures] == [("a", 0), ("b", 8), ("c", 16)]


def test_what_is_given_needs_no_call() -> None:
    words, given_all = plan_of([shot(1)], can=able(ANY)), plan_of([shot(0.05, image=A)], can=able(ANY))
    assert words.calls == words.steps
    assert (given_all.calls, given_all.evaluations, given_all.latents_evaluated) == (0, 0, 0)


def test_the_calls_of_a_plan_are_those_of_its_timeline() -> None:
    import torch

    from serving.render.takes import open_recipe
    from sharding.solver import EulerSolver, flow_sigmas

    keyframes = [{"at": k / 4, "image": A} for k in range(1, 24)]
    can = able(ANY, window=4)
    plan = plan_of([shot(6, image=A, keyframes=keyframes)], can=can)
    take = plan.takes[0]
    timeline = Timeline(
        torch.zeros(take.latents, 1, 1, 1),
        open_recipe(plan, take, capabilities=can, solver_of=lambda count: EulerSolver(flow_sigmas(count, shift=3))),
    )
    calls = 0
    while not timeline.done:
        call = timeline.ready()[0]
        timeline.accept(call, torch.zeros(len(call.reads), 1, 1, 1))
        calls += 1
    assert calls == take.calls == timeline.num_reported()


def test_a_window_that_is_shown_a_picture_holds_one_latent_less() -> None:
    plan = plan_of([shot(6, image=A)], can=able(BESIDE, window=8))
    assert plan.takes[0].window == 7
    assert plan.takes[0].shares == ()
    assert plan_of([shot(1, image=A)], can=able(BESIDE, window=8)).takes[0].window == 8
    sliced = plan_of([shot(6, image=A)], can=able(replace(BESIDE, shown=False), window=8))
    assert sliced.takes[0].window == 8
    assert sliced.latents_evaluated < plan.latents_evaluated


@pytest.mark.parametrize(
    ("shots", "support", "said"),
    [
        (
            [shot(2, image=A)],
            PictureSupport(),
            "shots[0].image: pocket takes words alone, and not a first picture (image)",
        ),
        ([shot(2, last_image=A)], FIRST, "shots[0].last_image: pocket takes a first picture (image), and not a last"),
        ([shot(2, keyframes=[{"at": 1, "image": A}])], FIRST, "shots[0].keyframes[0]: pocket takes a first picture"),
        ([shot(2, image=A), shot(2, "continue", image=B)], FIRST, "shots[1].image: pocket takes a first picture"),
        ([shot(2, image=A), shot(2)], BESIDE, "shots[1].image: is missing; pocket makes no take without one"),
        ([shot(2, image=A, keyframes=[{"at": 0.05, "image": B}])], ANY, "lands in the same latent as shots[0].image"),
        ([shot(2, image="a.png")], ANY, "shots[0].image: is not an asset: send the picture first"),
    ],
)
def test_what_a_model_does_not_take_is_refused_with_the_shot_and_who_does(
    shots: list[dict[str, Any]], support: PictureSupport, said: str
) -> None:
    message = refused(shots, support)
    assert said in message
    if "and not" in said:
        assert "models that do: pocket" in message


def test_a_strength_is_refused_where_there_is_none() -> None:
    half = [shot(2, image=A, keyframes=[{"at": 1, "image": B, "strength": 0.5}])]
    assert "and not a strength below 1" in refused(half, replace(ANY, strength=False))
    (_, keyframe) = pictures_of(plan_of(half, can=able(ANY)))
    assert keyframe.strength == 0.5
    assert plan_of(half, can=able(ANY)).takes[0].shares[4] == 0.5


HERO = {"hero": {"text": "a ball", "images": [A]}}


def test_a_picture_of_a_character_is_a_first_frame_only_when_the_storyboard_says_so() -> None:
    shots = [shot(2), shot(2, prompt="{hero} runs"), shot(2, prompt="{hero} sits"), shot(2, prompt="{hero}", image=B)]
    message = refused(shots, ANY, characters=HERO)
    assert "characters.hero.images: pocket takes" in message
    assert "as: first_frame would begin the first shot that names it with its picture" in message
    first = {"hero": {**HERO["hero"], "as": "first_frame"}}
    plan = plan_of(shots, can=able(ANY), characters=first)
    assert [(p.shot, p.asset[0], p.place) for p in pictures_of(plan)] == [
        ("shot-2", "a", "first"), ("shot-4", "b", "first"),
    ]  # fmt: skip
    taken = plan_of(shots, can=able(replace(ANY, references=True)), characters=HERO)
    assert [take.references for take in taken.takes] == [(), ("a" * 64,), ("a" * 64,), ("a" * 64,)]


def test_a_character_that_no_shot_names_is_no_problem() -> None:
    assert plan_of([shot(1)], can=able(ANY), characters=HERO).takes[0].references == ()


def test_the_content_key_covers_pictures_and_how_they_are_fitted_and_is_unchanged_without_them() -> None:
    def keys(video: dict[str, Any] | None = None, **more: Any) -> list[str]:
        plan = plan_of([shot(2, **more), shot(2)], can=able(ANY), video=video or {})
        return [content_key(plan, take, numerics={}) for take in plan.takes]

    plain, first, other = keys(), keys(image=A), keys(image=B)
    assert len({plain[0], first[0], other[0], keys({"fit": "contain"}, image=A)[0]}) == 4
    assert plain[1] == first[1] == other[1] == keys({"fit": "contain"}, image=A)[1]
    assert keys({"background": "#123456"}) == plain


def test_a_take_with_too_many_pictures_of_characters_is_refused_with_their_number() -> None:
    cast = {f"c{k}": {"text": "a red ball", "images": [f"sha256:{4 * k + n:064x}" for n in range(4)]} for k in range(3)}
    together = [shot(1, prompt="{c0} and {c1}"), shot(2, "continue", prompt="{c2}")]
    message = refused(together, replace(ANY, references=True), characters=cast)
    assert "shots[0].prompt" in message
    assert "characters with 12 pictures in all; at most 8" in message
    apart = [shot(1, prompt="{c0} and {c1}"), shot(2, prompt="{c2}")]
    assert [
        len(take.references) for take in plan_of(apart, can=able(replace(ANY, references=True)), characters=cast).takes
    ] == [8, 4]


def test_a_take_of_words_alone_has_a_condition_only_if_its_model_always_reads_one() -> None:
    plain, always = (plan_of([shot(1)], can=able(can)).takes[0] for can in (ANY, replace(ANY, always=True)))
    assert not plain.conditioned
    assert always.conditioned


def test_pictures_of_characters_are_computed_with_every_call_and_counted() -> None:
    shots = [shot(4, prompt="{hero} moving")]
    can = replace(ANY, references=True)
    with_hero = plan_of(shots, can=able(can), characters=HERO).takes[0]
    without = plan_of([shot(4)], can=able(can)).takes[0]
    assert (with_hero.calls, with_hero.window) == (without.calls, without.window)
    assert with_hero.latents_evaluated == without.latents_evaluated + without.evaluations
