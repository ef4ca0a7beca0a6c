"""Where the movement of a take of pocket's world goes wrong, frame by frame, read from pixels alone.

The world shows one object on a path of constant period. So every frame should show one object (or none, for the few
frames in which it is outside), its centre should not move faster than the world's, and the phase of its path should
advance by one frame a frame. `find_faults` knows what was asked for, the world's palette, outlines and paths; it does
not know the model. `python -m benchmarks.phase` checks it on rendered clips before it is used.

Legend: F frames, H height, W width (pixels), P phases of a path.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.adherence import Frames, object_cover
from serving.models.pocket import world

Flags = npt.NDArray[np.bool_]

COVERED = 0.5
"""A pixel belongs to an object from this cover on."""
OBJECT_SHARE = 0.25
"""A connected region counts as an object from this share of the outline's area on..."""
FAINT_SHARE = 0.10
"""...and, if it is the only one, from this share on: the object leaves the frame, or is half faded."""
SPEED_FACTOR, SPEED_SLACK = 1.5, 3.0
"""A jump: the centre moves by more than this factor times the fastest speed of its motion, plus these pixels."""
OUTSIDE_FRAMES = 10
"""An object that leaves on one side comes back on the other within these frames; the world's take 6 to 8."""
FIT_FRAMES = 9
"""Frames over which the phase is fitted."""
SLIP_FRAMES = 8
"""The phase is compared over these frames..."""
SLIP_LIMIT = 6.0
"""...and has slipped if it moved by this many frames more or less than it should."""
PHASES_PER_FRAME = 4
UNSEEN_PIXELS, FAR_PIXELS = 6.0, 20.0
"""What a frame costs a fit in which the object is seen and should not be, or the other way round; the most it costs."""
EDGE = 1
"""Pixels from the frame's edge within which a region touches it."""
JOINED_FRAMES = 6
"""Bad frames that are no further apart are one fault."""

_ALONG = {"right": (2, 0), "left": (0, 2), "falling": (3, 1)}
"""Motions that leave the frame: the edge at which they leave and that at which they enter; 0 left, 1 top, 2 right,
3 bottom."""


@dataclass(frozen=True)
class Region:
    """A connected region of one frame in the object's colour."""

    area: float
    """Pixels, by cover."""
    centre: tuple[float, float]
    """x and y in pixels."""
    touches: tuple[bool, bool, bool, bool]
    """Left, top, right and bottom edge of the frame."""


@dataclass(frozen=True)
class Faults:
    """What is wrong in a take, a flag a frame."""

    missing: Flags
    """No object, though it is not just outside."""
    several: Flags
    """More than one; one half at each of two opposite edges is one that leaves and enters."""
    jumps: Flags
    """It is further from where it was than it can be."""
    slips: Flags
    """One for each frame whose phase and that SLIP_FRAMES later are known: it has moved by SLIP_LIMIT too much."""
    track: npt.NDArray[np.float64]
    """[F, 2] its centre in pixels, nan if none is seen."""

    @property
    def bad(self) -> Flags:
        """Frames with any of it but slips."""
        return self.missing | self.several | self.jumps

    @property
    def events(self) -> int:
        """Runs of bad frames."""
        at = np.flatnonzero(self.bad)
        return 0 if len(at) == 0 else 1 + int((np.diff(at) > JOINED_FRAMES).sum())


def find_faults(frames: Frames, clip: world.Clip) -> Faults:
    """The faults of a take [F, H, W, 3] that should show `clip` at any phase."""
    cover_FHW = object_cover(frames, colour=clip.colour, backdrop=clip.backdrop).numpy()
    seen = [_objects(regions, clip) for regions in find_regions(cover_FHW)]
    count = len(seen)
    missing, several, jumps = (np.zeros(count, bool) for _ in range(3))
    track = np.full((count, 2), np.nan)
    before: Region | None = None
    since = 1
    for t, regions in enumerate(seen):
        several[t] = len(regions) > 1
        if not regions:
            since += 1
            continue
        now = regions[0]
        track[t] = now.centre
        gap = since - 1
        if before is None:
            missing[:t] = gap > _outside(clip)
        else:
            passed = gap <= OUTSIDE_FRAMES and _passes(before, now, clip.motion)
            missing[t - gap : t] = gap > 0 and not passed
            reach = SPEED_FACTOR * top_speed(clip.motion) * since + SPEED_SLACK
            jumps[t] = not passed and float(np.hypot(*np.subtract(now.centre, before.centre))) > reach
        before, since = now, 1
    gap = since - 1
    missing[count - gap :] = gap > _outside(clip)
    return Faults(missing, several, jumps, find_slips(track, clip), track)


def find_regions(cover_FHW: npt.NDArray[np.float32]) -> list[list[Region]]:
    """The regions of every frame, largest first."""
    labels_FHW = _label(cover_FHW >= COVERED)
    found = []
    for cover, labels in zip(cover_FHW, labels_FHW, strict=True):
        regions = []
        for label in np.unique(labels[labels > 0]):
            ys, xs = np.nonzero(labels == label)
            weight = cover[ys, xs]
            area = float(weight.sum())
            centre = float((weight * xs).sum() / area), float((weight * ys).sum() / area)
            edges = (xs.min() <= EDGE, ys.min() <= EDGE, xs.max() >= world.WIDTH - 1 - EDGE,
                     ys.max() >= world.HEIGHT - 1 - EDGE)  # fmt: skip
            regions.append(Region(area, centre, (bool(edges[0]), bool(edges[1]), bool(edges[2]), bool(edges[3]))))
        found.append(sorted(regions, key=lambda region: -region.area))
    return found


def find_slips(track: npt.NDArray[np.float64], clip: world.Clip) -> Flags:
    """Whether the phase that fits FIT_FRAMES frames best moves by what it should in the next SLIP_FRAMES."""
    table_P2 = visible_path(clip.shape, clip.motion)
    if len(track) < FIT_FRAMES + SLIP_FRAMES:
        return np.zeros(0, bool)
    num_phases = len(table_P2)
    at_PL = (np.arange(num_phases)[:, None] + PHASES_PER_FRAME * np.arange(FIT_FRAMES)) % num_phases
    paths_PL2 = table_P2[at_PL]
    phases = []
    for start in range(len(track) - FIT_FRAMES + 1):
        window_L2 = track[start : start + FIT_FRAMES]
        unseen_L, outside_PL = np.isnan(window_L2[:, 0]), np.isnan(paths_PL2[..., 0])
        apart_PL = np.linalg.norm(paths_PL2 - window_L2, axis=-1)
        cost_PL = np.where(unseen_L & outside_PL, 0.0, np.where(unseen_L | outside_PL, UNSEEN_PIXELS, apart_PL))
        phases.append(float(np.minimum(cost_PL, FAR_PIXELS).mean(1).argmin()) / PHASES_PER_FRAME)
    period = world.PERIOD_FRAMES[clip.motion]
    moved = np.subtract(phases[SLIP_FRAMES:], phases[:-SLIP_FRAMES]) - SLIP_FRAMES
    wrapped = (moved + period / 2) % period - period / 2
    slips: Flags = np.abs(wrapped) > SLIP_LIMIT
    return slips


@cache
def visible_path(shape: str, motion: str) -> npt.NDArray[np.float64]:
    """Centre of what is seen of an object at PHASES_PER_FRAME phases a frame over a period, [P, 2]; nan if outside."""
    period = world.PERIOD_FRAMES[motion]
    count = round(period * PHASES_PER_FRAME)
    path = []
    for p in range(count):
        clip = world.Clip("red", shape, motion, "day", phase=p / count)
        cover = world.object_cover(clip, 1)[0].numpy()
        cover = np.where(cover >= COVERED, cover, 0.0)
        area = cover.sum()
        if area < FAINT_SHARE * outline_area(shape):
            path.append((np.nan, np.nan))
            continue
        ys, xs = np.mgrid[: world.HEIGHT, : world.WIDTH]
        path.append((float((cover * xs).sum() / area), float((cover * ys).sum() / area)))
    return np.array(path)


@cache
def outline_area(shape: str) -> float:
    """Pixels of a whole object."""
    y, x = torch.meshgrid(*(torch.arange(-20.0, 21.0),) * 2, indexing="ij")
    return float((0.5 - world.outline_distance(shape, x, y)).clamp(0, 1).sum())


@cache
def top_speed(motion: str) -> float:
    """The most pixels that a motion makes in a frame, across a wrap not counted."""
    clip = world.Clip("red", "ball", motion, "day")
    path = torch.stack(world.object_path(clip, round(world.PERIOD_FRAMES[motion])), -1)
    return float(path.diff(dim=0).norm(dim=-1).max())


def _objects(regions: Sequence[Region], clip: world.Clip) -> list[Region]:
    """The regions that count as objects."""
    area = outline_area(clip.shape)
    whole = [region for region in regions if region.area >= OBJECT_SHARE * area]
    if len(whole) == 2 and clip.motion in _ALONG:
        leave, enter = _ALONG[clip.motion]
        first, second = whole
        if (first.touches[leave] and second.touches[enter]) or (first.touches[enter] and second.touches[leave]):
            return [first]
    return whole or [region for region in regions[:1] if region.area >= FAINT_SHARE * area]


def _outside(clip: world.Clip) -> int:
    """Frames at a take's ends in which an object may be outside."""
    return OUTSIDE_FRAMES if clip.motion in _ALONG else 0


def _passes(before: Region, now: Region, motion: str) -> bool:
    """It left on one side and entered on the other."""
    if motion not in _ALONG:
        return False
    leave, enter = _ALONG[motion]
    return before.touches[leave] and now.touches[enter]


def _label(mask_FHW: Flags) -> npt.NDArray[np.int32]:
    """8-connected regions of every frame by a number, 0 outside: each pixel takes its neighbours' largest till none
    changes."""
    mask = torch.from_numpy(mask_FHW).float()
    labels = torch.arange(1, mask[0].numel() + 1, dtype=torch.float32).view(mask[0].shape) * mask
    while True:
        spread = torch.nn.functional.max_pool2d(labels.unsqueeze(1), 3, stride=1, padding=1)[:, 0] * mask
        if torch.equal(spread, labels):
            numbers: npt.NDArray[np.int32] = labels.int().numpy()
            return numbers
        labels = spread
