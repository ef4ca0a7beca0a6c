"""A picture that anyone may have sent becomes upright sRGB of 8 bits, or is refused in words, before it costs much."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from serving.pictures.reading import (
    MAX_PICTURE_BYTES,
    MAX_PICTURE_PIXELS,
    MAX_PICTURE_SIDE,
    PictureError,
    describe_picture,
    read_picture,
)
from testkit.picture_files import drawing, written

DRAWING = drawing()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("AVIF", "image/avif")],
)
def test_every_format_is_described_by_its_header_and_read(kind: str, media_type: str) -> None:
    content = written(DRAWING, kind, quality=95)
    facts = describe_picture(content)
    assert (facts.media_type, facts.width, facts.height) == (media_type, *DRAWING.size)
    assert np.abs(pixels(read_picture(content)) - pixels(DRAWING)).mean() < 6


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "PA"])
def test_every_kind_of_png_becomes_what_it_shows(mode: str) -> None:
    image = DRAWING.convert("L").convert("1") if mode == "1" else DRAWING.convert("P" if mode == "PA" else mode)
    read = read_picture(written(image, "PNG"))
    assert read.mode == "RGB"
    assert np.array_equal(pixels(read), pixels(image.convert("RGB")))


def test_grey_of_sixteen_bits_is_scaled_and_not_cut_off() -> None:
    wide = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    read = read_picture(written(Image.fromarray(wide), "PNG"))
    assert np.array_equal(pixels(read)[..., 0].ravel(), np.arange(256))


def test_colours_of_sixteen_bits_keep_their_upper_byte() -> None:
    read = read_picture(png_of_16_bits([[(0x1234, 0x80FF, 0xFFFF)]]))
    assert read.getpixel((0, 0)) == (0x12, 0x80, 0xFF)


def test_cmyk_becomes_its_colours() -> None:
    read = read_picture(written(DRAWING.convert("CMYK"), "JPEG", quality=95))
    assert read.mode == "RGB"
    assert np.abs(pixels(read) - pixels(DRAWING)).mean() < 6


def test_a_profile_is_brought_to_srgb_and_a_broken_one_is_taken_for_srgb() -> None:
    grey = Image.new("RGB", (8, 8), (128, 128, 128))
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    other = read_picture(written(grey, "PNG", icc_profile=b"this is no profile"))
    assert other.getpixel((0, 0)) == (128, 128, 128)
    unfit = read_picture(written(grey, "PNG", icc_profile=linear))  # of another kind of picture
    assert unfit.getpixel((0, 0)) == (128, 128, 128)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = read_picture(written(DRAWING, "PNG", icc_profile=srgb))
    assert np.abs(pixels(same) - pixels(DRAWING)).max() <= 1


def test_a_camera_that_was_turned_gives_an_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    read = read_picture(written(DRAWING, "PNG", exif=exif))
    assert read.size == DRAWING.size[::-1]
    assert np.array_equal(pixels(read), pixels(DRAWING.rotate(-90, expand=True)))


def test_transparency_is_kept_until_it_is_known_what_lies_behind() -> None:
    half = DRAWING.copy()
    half.putalpha(Image.new("L", half.size, 128))
    assert read_picture(written(half, "PNG")).mode == "RGBA"
    opaque = DRAWING.copy()
    opaque.putalpha(255)
    assert read_picture(written(opaque, "PNG")).mode == "RGB"


def test_the_content_decides_what_a_picture_is_and_further_pictures_of_a_camera_are_left() -> None:
    several = written(DRAWING, "MPO", save_all=True, append_images=[DRAWING.rotate(180)])
    assert describe_picture(several).media_type == "image/jpeg"
    assert read_picture(several).size == DRAWING.size


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF"])
def test_an_animation_is_refused(kind: str) -> None:
    content = written(DRAWING, kind, save_all=True, append_images=[DRAWING.rotate(180)])
    with pytest.raises(PictureError, match=r"animated \(2 frames\)"):
        describe_picture(content)


def test_a_bomb_is_refused_by_its_header_alone() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)  # 10.8 GB of pixels that are not even there
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    with pytest.raises(PictureError, match="pixels"):
        describe_picture(bomb)
    assert MAX_PICTURE_PIXELS < 60_000 * 60_000


def test_a_long_strip_and_a_huge_file_are_refused() -> None:
    strip = written(Image.new("1", (MAX_PICTURE_SIDE + 1, 1)), "PNG")
    with pytest.raises(PictureError, match=f"{MAX_PICTURE_SIDE + 1} x 1 pixels"):
        read_picture(strip)
    with pytest.raises(PictureError, match="bytes"):
        read_picture(b"\0" * (MAX_PICTURE_BYTES + 1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1))
def test_a_picture_that_is_cut_short_is_refused_in_words(kind: str, share: float) -> None:
    content = written(drawing(64, 64), kind)
    with pytest.raises(PictureError, match=r"cut short|is no PNG"):
        read_picture(content[: int(share * (len(content) - 40))])  # the very end of a PNG holds no pixels


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "AVIF"]), st.integers(0, 2**32), st.integers(1, 8))
def test_damage_is_read_or_refused_but_nothing_else_happens(kind: str, seed: int, places: int) -> None:
    content, rng = bytearray(written(drawing(24, 24), kind)), np.random.default_rng(seed)
    for _ in range(places):
        content[int(rng.integers(len(content)))] = int(rng.integers(256))
    with contextlib.suppress(PictureError):
        assert read_picture(bytes(content)).mode in ("RGB", "RGBA")


@pytest.mark.parametrize("content", [b"", b"GIF89a" + bytes(40), b"<svg/>", b"%PDF-1.7", b"MZ" + bytes(80)])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(PictureError, match="is no PNG, JPEG, WebP or AVIF picture"):
        describe_picture(content)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_16_bits(rows: list[list[tuple[int, int, int]]]) -> bytes:
    """Pillow writes none, so by hand (PNG, third edition, 11.2)."""
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 16, 2, 0, 0, 0)
    raw = b"".join(b"\0" + b"".join(struct.pack(">HHH", *pixel) for pixel in row) for row in rows)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + parts).getvalue()
