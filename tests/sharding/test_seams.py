"""Seam measures find a planted seam and say one if there is none."""

import numpy as np
import pytest

from sharding.seams import FrameStatistics, SeamMeasure, lab, measure_seam
from sharding.spans import FrameSpan

TAKE = FrameSpan(0, 60)
SEAM = FrameSpan(28, 32)


def film(jump_at: int | None = None, tint_from: int | None = None, blurred: range = range(0)) -> FrameStatistics:
    statistics = FrameStatistics()
    x = np.arange(96)[None, :]
    for t in range(60):
        place = 20 + t * 0.5 + (6 if jump_at is not None and t >= jump_at else 0)
        width = 6.0 if t in blurred else 1.5
        luma = 60 + 150 / (1 + np.exp((np.abs(x - place) - 10) / width)) * np.ones((64, 1))
        frame = np.repeat(luma[..., None], 3, axis=2)
        if tint_from is not None and t >= tint_from:
            frame[..., 0] += 12
        statistics.add(frame.clip(0, 255).astype(np.uint8))
    return statistics


def measured(statistics: FrameStatistics) -> SeamMeasure:
    return measure_seam(statistics, SEAM, take=TAKE, seams=[SEAM])


def test_steady_motion_has_no_seam() -> None:
    seam = measured(film())
    assert seam.jump_ratio == pytest.approx(1, abs=0.05)
    assert seam.second_difference_ratio == pytest.approx(1, abs=0.25)
    assert seam.laplacian_dip == pytest.approx(1, abs=0.05)
    assert seam.colour_step < 0.5


def test_a_jump_shows_in_both_differences() -> None:
    seam = measured(film(jump_at=30))
    assert seam.jump_ratio > 2
    assert seam.second_difference_ratio > 2


def test_a_change_of_tint_shows_as_a_colour_step() -> None:
    assert measured(film(tint_from=30)).colour_step > 2


def test_blur_inside_the_seam_shows_as_a_dip() -> None:
    assert measured(film(blurred=range(28, 32))).laplacian_dip < 0.7


def test_a_region_outside_its_take_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a part of"):
        measure_seam(film(), FrameSpan(58, 61), take=TAKE, seams=[])


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_has_the_published_values(rgb: tuple[float, ...], expected: tuple[float, ...]) -> None:
    assert lab(np.array(rgb, np.float64)) == pytest.approx(expected, abs=0.05)
