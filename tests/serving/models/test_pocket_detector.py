"""The analytic detector of benchmarks/adherence.py against rendered truth."""

import numpy as np
import pytest
import torch

from benchmarks.adherence import detect, held_out_prompts, render_truth, score
from serving.models.pocket import world


def test_the_detector_is_right_on_rendered_truth() -> None:
    scores = score([(clip, detect(pixels)) for clip, pixels in render_truth(24, frames=29, seed=3)])
    assert min(scores.values()) == 1.0, scores


def test_the_detector_is_right_on_long_clips_and_follows_the_object() -> None:
    clip = world.Clip("yellow", "triangle", "circling", "sunset", pan=True, phase=0.4)
    found = detect(world.render(clip, 90).permute(1, 2, 3, 0))
    assert (found.colour, found.shape, found.motion, found.backdrop) == ("yellow", "triangle", "circling", "sunset")
    path = torch.stack(world.object_path(clip, 90), -1).numpy()
    assert np.abs(found.track - path).max() < 2


def test_the_detector_takes_bytes() -> None:
    clip = world.Clip("white", "box", "bouncing", "day")
    pixels = (world.render(clip, 29).permute(1, 2, 3, 0) * 255).round().byte().numpy()
    assert detect(pixels).shape == "box"


def test_an_object_that_stands_still_has_no_known_motion() -> None:
    clip = world.Clip("red", "ball", "circling", "plain")
    still = world.render(clip, 1).permute(1, 2, 3, 0).expand(29, -1, -1, -1)
    assert detect(still).motion == "none"


def test_an_empty_backdrop_holds_no_object() -> None:
    clip = world.Clip("red", "ball", "circling", "night")
    found = detect(world.backdrop_pixels(clip, 29).permute(1, 2, 3, 0))
    assert (found.shape, found.motion, found.backdrop) == ("none", "none", "night")


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        detect(np.zeros((5, 32, 32, 3), np.uint8))


def test_the_benchmark_asks_only_for_held_out_combinations() -> None:
    asked = held_out_prompts()
    assert len({prompt for _, prompt in asked}) == 60
    assert all(world.held_out(clip) for clip, _ in asked)
