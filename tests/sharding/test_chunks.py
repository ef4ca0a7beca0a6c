"""The chunk schedule covers, stays within its limits, wastes little and never leaves a seam where it was."""

import itertools
import math
from typing import get_args

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from sharding.chunks import ChunkLimits, overlap_waste, plan_chunks, shifted_chunks, static_chunks
from sharding.fusion import Profile, weigh
from sharding.spans import LatentSpan


@st.composite
def limits_and_step(draw: st.DrawFn) -> tuple[int, ChunkLimits, int, int]:
    window = draw(st.integers(2, 40))
    shortest = math.ceil(3 * window / 8)
    early = draw(st.integers(-1, shortest - 1))
    late = draw(st.integers(-1, shortest - 1))
    limits = ChunkLimits(window, early, late, draw(st.integers(1, 8)))
    num_steps = draw(st.integers(1, 60))
    return draw(st.integers(1, 300)), limits, draw(st.integers(0, num_steps - 1)), num_steps


@given(limits_and_step())
def test_every_latent_is_covered_by_chunks_within_the_limits(case: tuple[int, ChunkLimits, int, int]) -> None:
    num_latents, limits, step, num_steps = case
    spans = plan_chunks(num_latents, limits, step, num_steps)
    assert spans[0].start == 0
    assert spans[-1].stop == num_latents
    overlap = limits.overlap_at(step, num_steps)
    for a, b in itertools.pairwise(spans):
        assert a.start < b.start
        assert a.stop - b.start == overlap
    assert all(len(span) <= limits.window for span in spans)
    if len(spans) > 1:
        assert all(limits.shortest <= len(span) for span in spans)
        assert all(len(span) > overlap for span in spans)


@given(limits_and_step(), st.sampled_from(get_args(Profile)))
def test_weights_sum_to_one_at_every_latent(case: tuple[int, ChunkLimits, int, int], profile: Profile) -> None:
    num_latents, limits, step, num_steps = case
    spans = plan_chunks(num_latents, limits, step, num_steps)
    total = torch.zeros(num_latents, dtype=torch.float64)
    for span, weights in zip(spans, weigh(spans, profile), strict=True):
        assert weights.dtype == torch.float32
        assert bool((weights > 0).all())
        total[span.start : span.stop] += weights.double()
    assert torch.allclose(total, torch.ones_like(total), atol=1e-6)


@pytest.mark.parametrize(("window", "bound"), [(21, 0.15), (8, 0.22)])
def test_redundant_work_stays_within_its_bound_for_every_long_take(window: int, bound: float) -> None:
    limits = ChunkLimits(window)

    def waste_of(num_latents: int) -> float:
        return overlap_waste(lambda step: plan_chunks(num_latents, limits, step, 24), num_latents, 24)

    waste = {n: waste_of(n) for n in range(4 * window, 30 * window)}
    worst = max(waste, key=waste.__getitem__)
    assert waste[worst] <= bound, f"N = {worst}: {waste[worst]:.3f}"


@pytest.mark.parametrize("window", [8, 21])
def test_seams_never_sit_where_they_sat_the_step_before(window: int) -> None:
    """But for the take's last seam, which the tail's length moves, and the step at which the stride itself changes."""
    limits = ChunkLimits(window)
    for n in range(3 * window, 20 * window):
        spans = [plan_chunks(n, limits, step, 24) for step in range(24)]
        inner = [{span.start for span in row[1:-1]} for row in spans]
        for step, (a, b) in enumerate(itertools.pairwise(inner)):
            if limits.overlap_at(step, 24) == limits.overlap_at(step + 1, 24):
                assert a.isdisjoint(b), f"N = {n}, step {step}"


def test_no_seam_of_a_take_rests_for_more_than_two_steps() -> None:
    limits = ChunkLimits(21)
    for n in range(63, 420):
        spans = [{span.start for span in plan_chunks(n, limits, step, 24)} - {0} for step in range(24)]
        assert not any(a & b & c for a, b, c in zip(spans, spans[1:], spans[2:], strict=False)), f"N = {n}"


def test_the_first_chunk_takes_at_most_the_stated_number_of_lengths() -> None:
    for lengths in (4, 8):
        limits = ChunkLimits(21, first_lengths=lengths)
        assert len({len(plan_chunks(193, limits, step, 50)[0]) for step in range(50)}) <= lengths


@given(st.integers(1, 300), st.integers(2, 40), st.integers(0, 30), st.data())
def test_the_usual_schedules_cover_with_full_chunks(n: int, window: int, step: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, window - 1))
    for spans in (
        static_chunks(n, window=window, overlap=overlap),
        shifted_chunks(n, window=window, overlap=overlap, step=step),
    ):
        assert {k for span in spans for k in span} == set(range(n))
        assert all(len(span) == min(n, window) for span in spans)


def test_ours_wastes_a_third_of_the_usual_default() -> None:
    limits = ChunkLimits(21)
    ours = overlap_waste(lambda step: plan_chunks(193, limits, step, 24), 193, 24)
    usual = overlap_waste(lambda step: static_chunks(193, window=21, overlap=7), 193, 24)
    assert ours < usual / 3


@given(st.integers(1, 40), st.integers(-5, 60))
def test_an_overlap_that_no_schedule_could_keep_is_refused(window: int, overlap: int) -> None:
    shortest = math.ceil(3 * window / 8)
    assume(overlap != -1 and not 0 <= overlap < shortest)
    with pytest.raises(ValueError, match="overlap_late must be"):
        ChunkLimits(window, overlap_late=overlap)


def test_flat_weights_of_two_chunks_meet_at_a_half() -> None:
    left, right = weigh((LatentSpan(0, 4), LatentSpan(3, 6)), "flat")
    assert left.tolist() == [1, 1, 1, 0.5]
    assert right.tolist() == [0.5, 1, 1]
