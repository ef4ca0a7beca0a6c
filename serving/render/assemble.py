"""Takes to film: cuts, and dissolves blended in pixels from the handle frames that both takes render.

A dissolve of d frames is the last d frames of one take over the first d of the next; both render handles beyond their
shots, so the film is as long as its shots together. Frames pass through one at a time; only a dissolve is held.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
"""uint8 [H, W, 3], sRGB"""


class TakeAssembler:
    """Turns the rendered frames of takes, in the order of the film, into the frames of the film."""

    def __init__(self) -> None:
        self._held: list[Frame] = []
        self._frames = self._dissolve_in = self._dissolve_out = self._seen = 0

    def begin_take(self, *, frames: int, dissolve_in: int, dissolve_out: int) -> None:
        """Start the next take.

        `frames` is its length with handles and without what the grid adds; `dissolve_in` and `dissolve_out` are frames
        that it shares with the takes before and after it. Raises ValueError if they do not fit.
        """
        if dissolve_in + dissolve_out > frames:
            raise ValueError(f"dissolves of {dissolve_in} and {dissolve_out} frames do not fit a take of {frames}")
        if len(self._held) != dissolve_in:
            raise ValueError(f"the take before left {len(self._held)} frames for a dissolve of {dissolve_in}")
        self._frames, self._dissolve_in, self._dissolve_out, self._seen = frames, dissolve_in, dissolve_out, 0

    def add(self, frame: Frame) -> Iterator[Frame]:
        """The next frame of the take; yields the frames of the film that it completes. Surplus frames are dropped."""
        t = self._seen
        self._seen += 1
        if t >= self._frames:
            return
        if t < self._dissolve_in:
            frame = blend(self._held.pop(0), frame, (t + 1) / (self._dissolve_in + 1))
        if t >= self._frames - self._dissolve_out:
            self._held.append(frame)
        else:
            yield frame


def blend(before: Frame, after: Frame, share: float) -> Frame:
    """`share` of `after` over the rest of `before`, rounded to the nearest value."""
    mixed = before.astype(np.float32) * (1 - share) + after.astype(np.float32) * share
    return np.rint(mixed).astype(np.uint8)
