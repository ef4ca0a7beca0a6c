"""Takes to film: cuts, and dissolves blended in pixels from the handle frames that both takes render.

A dissolve of d frames is the last d frames of one take over the first d of the next; both render handles beyond their
shots, so the film is as long as its shots together. Frames pass through one at a time; only a dissolve is held, and a
few numbers per frame. In one process and in the farm, this is the one path from frames to a film.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.errors import Fault
from serving.planning.plan import FilmPlan
from serving.render.encode import FilmWriter
from serving.render.messages import Film
from serving.render.takes import seam_regions
from sharding.capabilities import Capabilities
from sharding.seams import FrameStatistics, measure_seam
from sharding.spans import FrameSpan

Frame = NDArray[np.uint8]
"""uint8 [H, W, 3], sRGB"""

CUT_FRAMES = 1
"""A cut is measured at its first frame alone."""


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


class FilmAssembler:
    """Turns the frames of the takes of `plan`, in the order of the film, into the film at `path`, and measures it."""

    def __init__(self, plan: FilmPlan, path: Path) -> None:
        self._plan = plan
        self._path = path
        self._writer = FilmWriter(path, width=plan.width, height=plan.height, fps=plan.fps)
        self._takes = TakeAssembler()
        self._statistics = FrameStatistics()
        self._num_takes = 0
        self._encode_s = 0.0

    @property
    def frames(self) -> int:
        """Frames of the film so far."""
        return self._writer.frames

    def begin_take(self) -> None:
        """Go on to the next take."""
        take, following = self._plan.takes[self._num_takes], self._plan.takes[self._num_takes + 1 :]
        self._num_takes += 1
        self._takes.begin_take(
            frames=take.frames - take.surplus,
            dissolve_in=take.dissolve_in,
            dissolve_out=following[0].dissolve_in if following else 0,
        )

    def add(self, frame: Frame) -> list[Frame]:
        """The next frame of the take, handles included; returns the frames of the film that it completes."""
        started = time.monotonic()
        completed = list(self._takes.add(frame))
        for film_frame in completed:
            self._writer.write(film_frame)
            self._statistics.add(film_frame)
        self._encode_s += time.monotonic() - started
        return completed

    def finish(self, capabilities: Capabilities) -> Film:
        """Complete the file and put it on disk. Raises Fault if frames are missing."""
        if self.frames != self._plan.frames:
            raise Fault(f"{self.frames} frames were encoded of {self._plan.frames}")
        started = time.monotonic()
        seams = tuple(_measure_seams(self._plan, self._statistics, capabilities))
        sha256 = self._writer.close()
        encode_s = self._encode_s + time.monotonic() - started
        return Film(sha256, self.frames, self._path.stat().st_size, seams, encode_s)

    def abandon(self) -> None:
        """Remove the unfinished file."""
        self._writer.abandon()


def blend(before: Frame, after: Frame, share: float) -> Frame:
    """`share` of `after` over the rest of `before`, rounded to the nearest value."""
    mixed = before.astype(np.float32) * (1 - share) + after.astype(np.float32) * share
    return np.rint(mixed).astype(np.uint8)


def _measure_seams(
    plan: FilmPlan, statistics: FrameStatistics, capabilities: Capabilities
) -> Iterator[dict[str, object]]:
    """Every chunk boundary region of the film's takes and every cut between them, in the order of the film."""
    for index, take in enumerate(plan.takes):
        film = FrameSpan(take.shots[0].film.start, take.shots[-1].film.stop)
        regions = seam_regions(plan, take, grid=capabilities.grid)
        if index > 0 and not take.dissolve_in:
            cut = FrameSpan(film.start, film.start + CUT_FRAMES)
            around = FrameSpan(max(0, film.start - plan.fps), min(plan.frames, film.start + plan.fps))
            yield {
                "kind": "cut",
                "take": take.key,
                "frames": [cut.start, cut.stop],
                **asdict(measure_seam(statistics, cut, take=around, seams=[cut])),
            }
        for region in regions:
            yield {
                "kind": "chunk",
                "take": take.key,
                "frames": [region.start, region.stop],
                **asdict(measure_seam(statistics, region, take=film, seams=regions)),
            }
