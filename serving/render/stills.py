"""Still pictures of a film, as JPEG: its thumbnail, and a sheet of small pictures from all over it."""

from collections import defaultdict
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from serving.planning.plan import FilmPlan
from serving.render.assembler import Frame

THUMBNAIL_PIXELS = 640
"""Pixels; the greatest width of a film's thumbnail."""

SPRITES_PER_SIDE = 5
"""Columns, and rows, of a film's sprite sheet."""

SPRITE_PIXELS = 192
"""Pixels; the greatest width of one picture of a sprite sheet."""


JPEG_QUALITY = 3
"""mjpeg's quantiser, 2 (best) to 31."""


class Stills:
    """Picks its pictures out of the frames of a film as they pass; holds a small one for each place of the sheet."""

    def __init__(self, plan: FilmPlan) -> None:
        opening = plan.takes[0].shots[0].film
        self._thumbnail_at = (opening.start + opening.stop) // 2
        self._thumbnail: Frame | None = None
        self._width, self._height = fitted(plan.width, plan.height, SPRITE_PIXELS)
        places = SPRITES_PER_SIDE**2
        self._places: dict[int, list[int]] = defaultdict(list)
        for k in range(places):
            self._places[(2 * k + 1) * plan.frames // (2 * places)].append(k)
        self._sprites = np.zeros((places, self._height, self._width, 3), np.uint8)
        self._seen = 0

    def add(self, frame_HW3: Frame) -> None:
        """The next frame of the film."""
        if self._seen == self._thumbnail_at:
            height, width, _ = frame_HW3.shape
            self._thumbnail = scaled(frame_HW3, *fitted(width, height, THUMBNAIL_PIXELS))
        if places := self._places.get(self._seen):
            self._sprites[places] = scaled(frame_HW3, self._width, self._height)
        self._seen += 1

    def thumbnail(self) -> bytes:
        """The middle of the first shot, as JPEG."""
        assert self._thumbnail is not None, "the film was not shown as a whole"
        return jpeg(self._thumbnail)

    def spritesheet(self) -> bytes:
        """A square of pictures, evenly spaced over the film and in its order row by row, as JPEG."""
        side = SPRITES_PER_SIDE
        grid = self._sprites.reshape(side, side, self._height, self._width, 3)
        return jpeg(np.ascontiguousarray(grid.swapaxes(1, 2)).reshape(side * self._height, side * self._width, 3))


def fitted(width: int, height: int, limit: int) -> tuple[int, int]:
    """Width and height, both even, of a picture that is made no wider than `limit` pixels."""
    scale = min(Fraction(1), Fraction(limit, width))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


def scaled(frame_HW3: Frame, width: int, height: int) -> Frame:
    """The frame at another size."""
    picture = av.VideoFrame.from_ndarray(frame_HW3, format="rgb24")
    return cast("Frame", picture.reformat(width, height, interpolation="AREA").to_ndarray())


def jpeg(picture_HW3: Frame) -> bytes:
    """The picture, of even width and height, as a JPEG file (JFIF: BT.601, full range)."""
    height, width, _ = picture_HW3.shape
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 1)
    encoder.qmin = encoder.qmax = JPEG_QUALITY
    encoder.options = {"flags": "+bitexact", "threads": "1"}
    picture = av.VideoFrame.from_ndarray(picture_HW3, format="rgb24").reformat(
        format="yuvj420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.JPEG
    )
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])
