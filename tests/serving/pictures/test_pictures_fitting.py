"""A picture is brought to a film's size by one exact resampling: the same bytes give the same pixels everywhere."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serving.pictures.fitting import Fitting, contained_size, cover_box
from serving.pictures.preparing import prepare_picture
from testkit.picture_files import drawing, written

SIDES = st.integers(1, 400)

GOLDEN = {
    ("PNG", "cover"): "d623d10b0002d116",
    ("PNG", "contain"): "345fd22c77a94fa7",
    ("JPEG", "cover"): "1ae406c96bf4ab54",
    ("WEBP", "cover"): "2f3b18875ed59200",
    ("AVIF", "cover"): "4f90ca4eb0d0a2f8",
}
"""sha256 of the pixels at 96 x 64, its first digits. Another one means that films from pictures would change."""


@pytest.mark.parametrize(("kind", "fit"), GOLDEN)
def test_the_pixels_of_a_picture_at_a_films_size_never_change(kind: str, fit: str) -> None:
    options = {"quality": 90} if kind == "JPEG" else {"quality": 80} if kind != "PNG" else {}
    fitting = Fitting("contain" if fit == "contain" else "cover", "#204060")
    pixels = prepare_picture(written(drawing(), kind, **options), width=96, height=64, fitting=fitting)
    assert pixels.shape == (64, 96, 3)
    assert pixels.dtype == np.uint8
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == GOLDEN[kind, fit]


def test_a_picture_of_the_films_size_is_left_as_it_is() -> None:
    image = drawing(96, 64)
    for fit in ("cover", "contain"):
        pixels = prepare_picture(written(image, "PNG"), width=96, height=64, fitting=Fitting(fit))
        assert np.array_equal(pixels, np.asarray(image))


def test_contain_shows_all_between_bars_and_cover_fills_the_frame() -> None:
    tall = written(Image.new("RGB", (10, 40), (200, 10, 10)), "PNG")
    contained = prepare_picture(tall, width=64, height=32, fitting=Fitting("contain", "#0a0b0c"))
    assert tuple(contained[16, 0]) == tuple(contained[16, 63]) == (10, 11, 12)
    assert tuple(contained[0, 32]) == tuple(contained[31, 32]) == (200, 10, 10)
    covered = prepare_picture(tall, width=64, height=32, fitting=Fitting("cover"))
    assert (covered == (200, 10, 10)).all()


def test_what_is_transparent_shows_the_background() -> None:
    glass = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    pixels = prepare_picture(written(glass, "PNG"), width=16, height=16, fitting=Fitting("cover", "#336699"))
    assert (pixels == (0x33, 0x66, 0x99)).all()


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_cover_box_lies_within_the_picture_and_has_the_films_shape(w: int, h: int, width: int, height: int) -> None:
    left, top, right, bottom = cover_box((w, h), (width, height))
    assert 0 <= left < right <= w
    assert 0 <= top < bottom <= h
    assert (left, top) == (0, 0) or min(left, top) == 0
    assert abs((right - left) * height - (bottom - top) * width) < 1e-6 * width * height * max(w, h)


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_contained_picture_touches_two_sides_and_keeps_its_shape(w: int, h: int, width: int, height: int) -> None:
    inner = contained_size((w, h), (width, height))
    assert inner[0] <= width
    assert inner[1] <= height
    assert inner[0] == width or inner[1] == height
    assert inner[0] == 1 or inner[1] == 1 or abs(inner[0] * h - inner[1] * w) <= max(w, h)
