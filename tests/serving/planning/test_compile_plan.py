"""A plan keeps the rules of time: takes partition the shots, and render just what holds their shots and handles."""

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import StoryboardError
from serving.planning.compile import FilmPlan, compile_storyboard, round_to_frames
from serving.planning.plan import plan_json
from serving.storyboard import parse_storyboard, storyboard_hash
from sharding.capabilities import Capabilities
from sharding.chunks import ChunkLimits, overlap_waste, plan_chunks
from sharding.prompts import prompt_weights
from sharding.spans import Grid


def capabilities(*, window: int = 8, frames_per_latent: int = 4, fps: int = 16) -> Capabilities:
    return Capabilities(
        grid=Grid(frames_per_latent),
        window=window,
        latent_channels=16,
        pixels_per_cell=8,
        size_multiple=16,
        width=96,
        height=64,
        fps=fps,
        guidance=(3.0,),
    )


def plan_of(
    shots: list[dict[str, Any]], *, steps: int | None = None, can: Capabilities | None = None, **keys: Any
) -> FilmPlan:
    board = parse_storyboard(json.dumps({"version": 1, "shots": shots, **keys}).encode(), form="json")
    return compile_storyboard(board, model_name="pocket", capabilities=can or capabilities(), steps=steps)


def shot(seconds: float, transition: object = "cut", prompt: str = "x", **keys: Any) -> dict[str, Any]:
    return {"prompt": prompt, "seconds": seconds, "transition": transition, **keys}


@st.composite
def films(draw: st.DrawFn) -> tuple[list[dict[str, Any]], Capabilities]:
    """Shots at 16 fps whose dissolves always fit: none is longer than a tenth of a second but one frame may be all."""
    shots = []
    for index in range(draw(st.integers(1, 7))):
        transition: object = "cut"
        if index:
            transition = draw(st.sampled_from(["cut", "continue", {"dissolve": draw(st.floats(0.01, 0.5))}]))
        prompt = draw(st.sampled_from(["x", "y"]))
        shots.append(shot(draw(st.floats(0.5, 6)), transition, prompt))
    can = capabilities(window=draw(st.integers(2, 21)), frames_per_latent=draw(st.sampled_from([1, 4, 8])))
    return shots, can


@settings(max_examples=80)
@given(films(), st.integers(1, 12))
def test_a_plan_keeps_the_rules_of_time(film: tuple[list[dict[str, Any]], Capabilities], steps: int) -> None:
    shots, can = film
    plan = plan_of(shots, steps=steps, can=can)
    planned = [s for take in plan.takes for s in take.shots]
    assert [s.id for s in planned] == [f"shot-{i + 1}" for i in range(len(shots))]
    assert [s.frames for s in planned] == [round_to_frames(raw["seconds"], plan.fps) for raw in shots]
    edges = [0, *(s.film.stop for s in planned)]
    assert [s.film.start for s in planned] == edges[:-1]
    assert plan.frames == edges[-1] == sum(len(s.film) for s in planned)
    for take in plan.takes:
        assert [s.transition == "continue" for s in take.shots] == [False, *[True] * (len(take.shots) - 1)]
        needed = take.head + take.shot_frames + take.tail
        assert take.frames == can.grid.frames_of(can.grid.latents_for(take.frames)) >= needed  # type: ignore[arg-type]
        assert take.latents == 1 or can.grid.frames_per_latent * (take.latents - 2) + 1 < needed
        assert take.surplus == take.frames - needed >= 0


@settings(max_examples=60)
@given(films(), st.integers(1, 12))
def test_dissolves_are_centred_and_never_overlap(film: tuple[list[dict[str, Any]], Capabilities], steps: int) -> None:
    shots, can = film
    plan = plan_of(shots, steps=steps, can=can)
    for before, after in zip(plan.takes, plan.takes[1:], strict=False):
        d = after.dissolve_in
        assert (after.head, before.tail) == (d // 2, d - d // 2)
        asked = after.shots[0].dissolve_seconds
        assert d == (0 if asked is None else round_to_frames(asked, plan.fps))
    assert plan.takes[0].head == plan.takes[-1].tail == 0
    for take, d_out in zip(plan.takes, [*(take.dissolve_in for take in plan.takes[1:]), 0], strict=True):
        assert math.ceil(take.dissolve_in / 2) + d_out // 2 <= take.shot_frames


@settings(max_examples=60)
@given(films(), st.integers(1, 12))
def test_calls_and_waste_are_those_of_the_chunk_schedule(
    film: tuple[list[dict[str, Any]], Capabilities], steps: int
) -> None:
    shots, can = film
    plan = plan_of(shots, steps=steps, can=can)
    limits = ChunkLimits(window=can.window)
    predicted = 0.0
    for take in plan.takes:
        cover = [plan_chunks(take.latents, limits, step, steps) for step in range(steps)]
        assert all({n for span in spans for n in span} == set(range(take.latents)) for spans in cover)
        assert take.chunks_per_step == tuple(len(spans) for spans in cover)
        parts = [len(prompt_weights(take.prompt_changes, span)) for spans in cover for span in spans]
        assert (take.calls, take.evaluations) == (len(parts), sum(parts))
        waste = overlap_waste(lambda step, cover=cover: cover[step], take.latents, steps)  # type: ignore[misc]
        predicted += (1 + waste) * take.latents * steps
    assert plan.overlap_waste == pytest.approx(predicted / (plan.latents * steps) - 1)
    assert plan.calls == sum(take.calls for take in plan.takes)


@settings(max_examples=60)
@given(films())
def test_prompts_ascend_from_zero_and_differ_from_their_neighbours(
    film: tuple[list[dict[str, Any]], Capabilities],
) -> None:
    shots, can = film
    for take in plan_of(shots, steps=1, can=can).takes:
        starts = [prompt.start_latent for prompt in take.prompts]
        assert starts[0] == 0
        assert starts == sorted(set(starts))
        assert starts[-1] < take.latents
        assert take.prompts[-1].text == take.shots[-1].prompt


def test_the_harbour_is_two_takes_with_handles() -> None:
    plan = plan_of(
        [
            shot(6, prompt="a"),
            shot(5, "continue", "b"),
            shot(4, {"dissolve": 0.5}, "c", seed=9, negative="text", id="dusk"),
        ],
        seed=7,
        identity=0.3,
        negative="blurry",
        style="soft light",
        title="Harbour",
    )
    first, second = plan.takes
    assert (plan.frames, plan.fps, plan.steps, plan.width, plan.height) == (240, 16, 24, 96, 64)
    assert (plan.title, plan.identity, plan.seed) == ("Harbour", 0.3, 7)
    assert (first.key, first.seed, first.latents, first.frames, first.head, first.tail) == ("shot-1", 7, 46, 181, 0, 4)
    assert (second.key, second.seed, second.latents, second.frames) == ("dusk", 9, 18, 69)
    assert (second.head, second.tail, second.dissolve_in) == (4, 0, 8)
    assert [(p.text, p.negative, p.start_latent) for p in first.prompts] == [
        ("a, soft light", "blurry", 0),
        ("b, soft light", "blurry", 24),
    ]
    assert second.prompts[0].negative == "text"


def test_the_handles_of_a_dissolve_shift_the_prompts_behind_them() -> None:
    plan = plan_of([shot(2), shot(2, {"dissolve": 1}, "a"), shot(2, "continue", "b")])
    take = plan.takes[1]
    assert take.head == 8
    assert take.prompt_changes == (capabilities().grid.latent_at(8 + 32),)  # type: ignore[arg-type]


def test_an_odd_dissolve_has_its_larger_half_after_the_cut() -> None:
    plan = plan_of([shot(2), shot(2, {"dissolve": 5 / 16})])
    assert (plan.takes[0].tail, plan.takes[1].head, plan.takes[1].dissolve_in) == (3, 2, 5)


def test_equal_prompts_in_a_row_are_no_change_unless_the_negative_changes() -> None:
    same = plan_of([shot(3), shot(3, "continue"), shot(3, "continue", negative="text")]).takes[0]
    assert [(p.text, p.negative) for p in same.prompts] == [("x", ""), ("x", "text")]
    alone = plan_of([shot(3), shot(3, "continue")]).takes[0]
    assert alone.evaluations == alone.calls


def test_of_prompts_in_one_latent_the_last_is_kept() -> None:
    take = plan_of([shot(2, prompt="a"), shot(1 / 16, "continue", "b"), shot(2, "continue", "c")]).takes[0]
    assert [p.text for p in take.prompts] == ["a", "c"] or len({p.start_latent for p in take.prompts}) == 3
    take = plan_of([shot(33 / 16, prompt="a"), shot(1 / 16, "continue", "b"), shot(2, "continue", "c")]).takes[0]
    assert [(p.text, p.start_latent) for p in take.prompts] == [("a", 0), ("c", 9)]


@pytest.mark.parametrize(
    ("seconds", "frames"), [(1, 16), (0.001, 1), (1 / 32, 1), (1.5 / 16, 2), (2.5 / 16, 3), (2.4 / 16, 2)]
)
def test_lengths_are_rounded_to_whole_frames_halves_up_and_at_least_one(seconds: float, frames: int) -> None:
    assert round_to_frames(seconds, 16) == frames


@pytest.mark.parametrize(("quality", "steps"), [("draft", 8), ("standard", 24), ("final", 40)])
def test_quality_is_a_number_of_steps_and_changes_nothing_else(quality: str, steps: int) -> None:
    plan = plan_of([shot(3)], quality=quality)
    assert plan.steps == steps == len(plan.takes[0].chunks_per_step)
    assert plan_of([shot(3)], quality=quality, steps=3).steps == 3
    assert (plan.takes[0].latents, plan.width) == (13, 96)


def test_the_video_may_be_set_in_part() -> None:
    plan = plan_of([shot(1)], video={"width": 128, "fps": 8})
    assert (plan.width, plan.height, plan.fps, plan.frames) == (128, 64, 8, 8)


def test_a_plan_can_be_written_as_json() -> None:
    board = parse_storyboard(b'{"version": 1, "shots": [{"prompt": "x", "seconds": 1.03}]}', form="json")
    plan = compile_storyboard(board, model_name="pocket", capabilities=capabilities())
    described: dict[str, Any] = json.loads(json.dumps(plan_json(plan)))
    assert described["storyboard_hash"] == storyboard_hash(board)
    assert {"frames", "fps", "calls", "overlap_waste", "takes"} <= described.keys()
    (take,) = described["takes"]
    assert {"shots", "latents", "chunks_per_step"} <= take.keys()
    assert (take["shots"][0]["requested_seconds"], take["shots"][0]["real_seconds"]) == (1.03, 1.0)
    json.dumps(dataclasses.asdict(plan))


def test_a_long_film_of_many_prompts_is_planned_in_bounded_time() -> None:
    shots = [shot(3.6, "continue" if i else "cut", f"x{i}") for i in range(1000)]
    plan = plan_of(shots, steps=4)
    assert plan.frames == 1000 * 58
    assert plan.takes[0].evaluations > plan.takes[0].calls


@pytest.mark.parametrize(
    ("video", "path", "nearest"),
    [
        ({"width": 100}, "video.width", "96"),
        ({"height": 72}, "video.height", "64"),
        ({"width": 24}, "video.width", "32"),
    ],
)
def test_a_size_off_the_models_grid_is_refused(video: dict[str, int], path: str, nearest: str) -> None:
    with pytest.raises(StoryboardError) as caught:
        plan_of([shot(1)], video=video)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line, problem.nearest) == (path, 1, nearest)


def test_too_many_pixels_are_refused() -> None:
    with pytest.raises(StoryboardError) as caught:
        plan_of([shot(1)], video={"width": 4096, "height": 4096})
    assert caught.value.problems[0].path == "video"


def test_a_dissolve_longer_than_a_take_beside_it_is_refused_with_what_would_fit() -> None:
    shots = [shot(2), shot(0.5, {"dissolve": 1}), shot(0.25, "continue"), shot(2, {"dissolve": 0.8})]
    with pytest.raises(StoryboardError) as caught:
        plan_of(shots)
    told = [(problem.path, problem.value) for problem in caught.value.problems]
    assert told == [("shots[1].transition.dissolve", "1 seconds"), ("shots[3].transition.dissolve", "0.8 seconds")]
    assert all("at most 0.75 seconds" in problem.message for problem in caught.value.problems)


@pytest.mark.parametrize("side", ["width", "height"])
def test_a_side_beyond_the_models_positions_is_refused_with_the_limit(side: str) -> None:
    can = dataclasses.replace(capabilities(), max_width=512, max_height=512)
    plan_of([shot(1)], can=can, video={side: 512})
    with pytest.raises(StoryboardError, match=rf"video\.{side}: must be at most 512 pixels for this model.*got 528"):
        plan_of([shot(1)], can=can, video={side: 528})
