"""Every stitching covers a take within the window, spends the steps it is given, and waits for nothing in a circle."""

import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.noise import unit_normal
from sharding.solver import EulerSolver, flow_sigmas
from sharding.stitching import STITCHING_KINDS, Schedule, Stitching, StitchingKind, Visit, schedule
from sharding.timeline import Recipe, Timeline

SHAPE = (1, 2, 2)

stitchings = st.builds(
    Stitching,
    kind=st.sampled_from(STITCHING_KINDS),
    sweeps=st.floats(0, 0.9),
    sweeps_until=st.floats(0.01, 1),
    renew_above=st.floats(0.5, 1.5),
    overlap_early=st.integers(-1, 4),
    overlap_late=st.integers(-1, 4),
    context=st.integers(1, 6),
    draft=st.floats(0.01, 0.99),
    draft_kept=st.floats(0, 0.9),
)


@st.composite
def scheduled(draw: st.DrawFn) -> tuple[Schedule, int, int, int, list[int]]:
    """A schedule, its latents, window, steps and given latents."""
    latents, window, steps = draw(st.integers(1, 60)), draw(st.integers(1, 9)), draw(st.integers(1, 30))
    keys = sorted(draw(st.sets(st.integers(0, latents - 1), max_size=5)))
    return (
        schedule(draw(stitchings), num_latents=latents, window=window, steps=steps, given=keys),
        latents,
        window,
        steps,
        keys,
    )


@settings(max_examples=150)
@given(scheduled())
def test_every_step_covers_the_take_and_no_call_reads_more_than_a_window(
    case: tuple[Schedule, int, int, int, list[int]],
) -> None:
    plan, latents, window, steps, _ = case
    assert plan.num_steps == steps
    for step in range(steps):
        spans = plan.cover(step)
        assert set().union(*spans) == set(range(latents))
        for span in spans:
            beside = plan.context(step, span)
            reads = range(max(0, span.start - beside.before), min(latents, span.stop + beside.after))
            assert len(reads) <= window
            assert len(reads) == beside.before + len(span) + beside.after, "context lies in the take"


@settings(max_examples=100)
@given(scheduled(), st.integers(0, 2**32).map(random.Random))
def test_every_take_ends_whatever_the_order(
    case: tuple[Schedule, int, int, int, list[int]], order: random.Random
) -> None:
    plan, latents, _, _, keys = case
    recipe = Recipe.of(
        plan,
        solver_of=lambda count: EulerSolver(flow_sigmas(count, shift=3.0)),
        step_noise=lambda n, step: unit_normal(SHAPE, n, step),
        shares=tuple(float(n not in keys) for n in range(latents)),
    )
    timeline = Timeline(torch.zeros(latents, *SHAPE), recipe)
    while not timeline.done:
        call = order.choice(timeline.ready())
        timeline.accept(call, torch.zeros(len(call.reads), *SHAPE))


@settings(max_examples=100)
@given(st.builds(Stitching, sweeps=st.floats(0, 0.9), sweeps_until=st.floats(0.01, 1)), st.integers(1, 60))
def test_levels_fall_and_only_what_was_visited_before_is_visited_again(stitching: Stitching, steps: int) -> None:
    visits = schedule(stitching, num_latents=50, window=8, steps=steps).visits
    levels = [visit.step for visit in visits]
    assert levels == sorted(levels)
    assert set(levels) == set(range(visits[0].of_steps))
    assert [visit.renewed for visit in visits] == [k > 0 and levels[k] == levels[k - 1] for k in range(len(levels))]


def test_24_steps_with_ten_sweeps_are_14_levels_of_which_five_are_visited_three_times() -> None:
    visits = schedule(Stitching(sweeps=10 / 24), num_latents=41, window=8, steps=24).visits
    assert {visit.of_steps for visit in visits} == {14}
    assert Counter(visit.step for visit in visits) == {k: 3 if 1 <= k <= 5 else 1 for k in range(14)}


@pytest.mark.parametrize("kind", STITCHING_KINDS)
def test_a_take_of_one_window_is_denoised_as_the_model_alone_does_it(kind: StitchingKind) -> None:
    plan = schedule(Stitching(kind, sweeps=0.4), num_latents=8, window=8, steps=6)
    assert plan.visits == tuple(Visit(6, k) for k in range(6))
    assert all(len(plan.cover(step)) == 1 for step in range(6))


def test_a_chain_reads_the_end_of_the_chunk_before_when_it_is_finished() -> None:
    plan = schedule(Stitching("chained", context=2), num_latents=20, window=8, steps=6)
    assert [(span.start, span.stop) for span in plan.cover(3)] == [(0, 8), (8, 14), (14, 20)]
    assert [plan.context(3, span).before for span in plan.cover(3)] == [0, 2, 2]
    assert all(plan.context(3, span).at is None for span in plan.cover(3))


def test_keyed_spans_lie_between_given_latents_and_read_both() -> None:
    plan = schedule(Stitching("keyed"), num_latents=21, window=8, steps=6, given=[0, 7, 20])
    shown = {(span.start, span.stop): plan.context(0, span) for span in plan.cover(0)}
    assert [key for key in shown if key not in ((0, 1), (7, 8), (20, 21))] == [(1, 7), (8, 15), (15, 20)]
    assert [(shown[key].before, shown[key].after) for key in ((1, 7), (8, 15), (15, 20))] == [(1, 1), (1, 0), (2, 1)]


def test_a_draft_is_refined_from_new_noise_at_the_level_that_is_kept() -> None:
    plan = schedule(Stitching("drafted", draft_kept=0.25), num_latents=20, window=8, steps=24)
    assert plan.visits[:6] == tuple(Visit(6, k) for k in range(6))
    assert plan.visits[6:] == tuple(Visit(24, k, renewed=k == 6) for k in range(6, 24))
    assert {plan.context(0, span).at for span in plan.cover(0)} == {6}


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "joined"}, {"sweeps": 1.0}, {"context": 0}, {"overlap_late": -2}, {"draft": 0.0}, {"draft_kept": 1.0}],
)
def test_a_setting_out_of_its_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong)) if "kind" not in wrong else "stitching must be one of")):
        Stitching(**wrong)  # type: ignore[arg-type]
