"""A film's thumbnail and sprite sheet show what the film shows."""

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.render.stills import SPRITES_PER_SIDE, Stills, fitted, jpeg


def plan_of(frames: int, *, width: int, height: int, opening: int) -> Any:
    shot = SimpleNamespace(film=SimpleNamespace(start=0, stop=opening))
    return SimpleNamespace(takes=[SimpleNamespace(shots=[shot])], frames=frames, width=width, height=height)


def opened(content: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(content))
    assert image.format == "JPEG"
    return np.asarray(image).astype(int)


def shown(frames: int, *, width: int = 96, height: int = 64, opening: int = 10) -> Stills:
    """A film that goes from black to white, evenly."""
    stills = Stills(plan_of(frames, width=width, height=height, opening=opening))
    for t in range(frames):
        stills.add(np.full((height, width, 3), round(255 * t / max(1, frames - 1)), np.uint8))
    return stills


def test_the_thumbnail_is_the_middle_of_the_first_shot() -> None:
    thumbnail = opened(shown(101, opening=20).thumbnail())
    assert thumbnail.shape == (64, 96, 3)
    assert np.abs(thumbnail - round(255 * 0.1)).max() <= 2


def test_a_large_film_has_a_small_thumbnail_of_the_same_shape() -> None:
    assert opened(shown(12, width=1280, height=720).thumbnail()).shape == (360, 640, 3)


@pytest.mark.parametrize("frames", [1, 7, 25, 240])
def test_the_sprite_sheet_runs_through_the_whole_film_row_by_row(frames: int) -> None:
    side = SPRITES_PER_SIDE
    sheet = opened(shown(frames, opening=1).spritesheet())
    assert sheet.shape == (64 * side, 96 * side, 3)
    places = sheet.reshape(side, 64, side, 96, 3).mean((1, 3, 4)).ravel()
    assert np.all(np.diff(places) >= -2)
    if frames >= 25:
        assert places[0] < 16
        assert places[-1] > 239


def test_a_jpeg_has_the_colours_of_the_picture() -> None:
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, :16], picture[:, 16:32], picture[:, 32:] = (230, 30, 36), (30, 180, 60), (40, 80, 240)
    for column, colour in ((8, (230, 30, 36)), (24, (30, 180, 60)), (40, (40, 80, 240))):
        assert np.abs(opened(jpeg(picture))[16, column] - colour).max() <= 6


@pytest.mark.parametrize("size", [(96, 64), (832, 480), (17, 16), (4096, 16), (16, 4096)])
def test_a_picture_is_made_smaller_but_never_larger_and_has_even_sides(size: tuple[int, int]) -> None:
    width, height = fitted(*size, 192)
    assert width % 2 == height % 2 == 0
    assert 2 <= width <= max(192, 2)
    assert height <= size[1] + 1
