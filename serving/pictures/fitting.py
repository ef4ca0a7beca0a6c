"""How a picture of any shape is brought to that of a film: cropped to cover the frame, or contained in it. Pure."""

import re
from dataclasses import dataclass
from typing import Literal

Fit = Literal["cover", "contain"]
"""Cover: the picture fills the frame and what is beyond is cut off. Contain: all of it is seen, between bars."""

COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class Fitting:
    """How a film's pictures are brought to its size."""

    fit: Fit = "cover"
    background: str = "#000000"
    """sRGB; what bars are, and what shows through where a picture is transparent."""


def cover_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[float, float, float, float]:
    """The middle part of a picture of `size` that has the shape of `target`: left, top, right, bottom in pixels."""
    width, height = size
    if width * target[1] >= height * target[0]:
        kept = height * target[0] / target[1]
        return (width - kept) / 2, 0.0, (width + kept) / 2, float(height)
    kept = width * target[1] / target[0]
    return 0.0, (height - kept) / 2, float(width), (height + kept) / 2


def contained_size(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the picture's shape within `target`, in whole pixels, at least one."""
    width, height = size
    if width * target[1] >= height * target[0]:
        return target[0], max(1, (2 * height * target[0] + width) // (2 * width))
    return max(1, (2 * width * target[1] + height) // (2 * height)), target[1]
