"""Frames and latents relate by the model's grid, and a span refuses nonsense."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.spans import Frames, FrameSpan, Grid, Latents, LatentSpan


@given(st.integers(1, 8), st.integers(1, 5000))
def test_a_take_gets_the_smallest_length_that_holds_its_frames(stride: int, frames: int) -> None:
    grid = Grid(stride)
    latents = grid.latents_for(Frames(frames))
    assert grid.frames_of(latents) >= frames
    assert latents == 1 or grid.frames_of(Latents(latents - 1)) < frames


@given(st.integers(1, 8), st.integers(1, 60))
def test_the_frames_of_all_latents_are_the_frames_of_the_take(stride: int, latents: int) -> None:
    grid = Grid(stride)
    spans = [grid.frames_in(Latents(n)) for n in range(latents)]
    assert spans[0] == FrameSpan(0, 1)
    assert all(a.stop == b.start for a, b in itertools.pairwise(spans))
    assert spans[-1].stop == grid.frames_of(Latents(latents))


@given(st.integers(1, 8), st.integers(0, 500))
def test_a_frame_is_decoded_from_the_latent_whose_frames_hold_it(stride: int, frame: int) -> None:
    grid = Grid(stride)
    span = grid.frames_in(grid.latent_at(Frames(frame)))
    assert span.start <= frame < span.stop


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (2, 2), (3, 1)])
def test_an_empty_or_negative_span_of_latents_is_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="0 <= start < stop"):
        LatentSpan(start, stop)


def test_wan_decodes_eight_latents_to_twenty_nine_frames() -> None:
    assert Grid(4).frames_of(Latents(8)) == 29
