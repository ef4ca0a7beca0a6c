"""How visible a seam is, from pixels alone and without a network: jump, restart of motion, colour step, ghosting.

Statistics are taken frame by frame in one pass, so that a film of any length is measured in constant memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sharding.spans import FrameSpan

_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""sRGB, white D65 (IEC 61966-2-1)."""
_WHITE_D65 = np.array([0.95047, 1.0, 1.08883])


@dataclass(frozen=True)
class SeamMeasure:
    """One region of frames against the rest of its take. 1.0 means that the seam cannot be told from the rest."""

    jump_ratio: float
    """Mean absolute frame difference inside the region over the median outside."""
    second_difference_ratio: float
    """The same with second differences: a restart of motion shows here."""
    colour_step: float
    """Distance (CIE76, Lab) between the mean colours before and after the region."""
    laplacian_dip: float
    """Mean variance of the Laplacian inside over the median outside: below 1 if averaging blurs (ghosting)."""


@dataclass
class FrameStatistics:
    """Per-frame numbers of consecutive frames; add frames in order."""

    jumps: list[float] = field(default_factory=list)
    """jumps[t]: mean |I_t - I_(t-1)|, 0..255; 0 for the first frame."""
    second_differences: list[float] = field(default_factory=list)
    """mean |I_t - 2 I_(t-1) + I_(t-2)|; 0 for the first two."""
    colours: list[NDArray[np.float64]] = field(default_factory=list)
    """Mean colour in Lab, [3] per frame."""
    sharpness: list[float] = field(default_factory=list)
    """Variance of the Laplacian of the luma."""
    _last: NDArray[np.float32] | None = None
    _before: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.jumps)

    def add(self, frame_HW3: NDArray[np.uint8]) -> None:
        """Take in the next frame, uint8 [H, W, 3] sRGB."""
        frame = frame_HW3.astype(np.float32)
        last, before = self._last, self._before
        self.jumps.append(0.0 if last is None else float(np.abs(frame - last).mean()))
        self.second_differences.append(
            0.0 if last is None or before is None else float(np.abs(frame - 2 * last + before).mean())
        )
        self.colours.append(lab(frame.mean((0, 1)) / 255.0))
        self.sharpness.append(_laplacian_variance(frame @ np.array([0.299, 0.587, 0.114], np.float32)))
        self._before, self._last = last, frame


def measure_seam(
    statistics: FrameStatistics, region: FrameSpan, *, take: FrameSpan, seams: Sequence[FrameSpan]
) -> SeamMeasure:
    """One seam region of a take against the frames of the take that lie in none of its `seams`.

    Differences across the take's own start are not counted, since a cut lies there. If seams leave no frame outside,
    the whole take is the reference. Raises ValueError if the region is empty or not inside the take.
    """
    if not (take.start <= region.start < region.stop <= take.stop <= len(statistics)):
        raise ValueError(f"{region} must be a part of {take}, and {len(statistics)} frames are known")
    inside = np.arange(max(region.start, take.start + 2), region.stop)
    outside = np.arange(take.start + 2, take.stop)
    covered = np.zeros(len(statistics), bool)
    for seam in seams:
        covered[seam.start : seam.stop] = True
    free = outside[~covered[outside]]
    reference = free if len(free) else outside
    before = np.mean(statistics.colours[max(take.start, region.start - 4) : region.start + 1], axis=0)
    after = np.mean(statistics.colours[region.stop - 1 : min(take.stop, region.stop + 4)], axis=0)
    return SeamMeasure(
        jump_ratio=_ratio(statistics.jumps, inside, reference),
        second_difference_ratio=_ratio(statistics.second_differences, inside, reference),
        colour_step=float(np.linalg.norm(after - before)),
        laplacian_dip=_ratio(statistics.sharpness, inside, reference),
    )


def lab(rgb: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* of an sRGB colour [3] in 0..1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = _RGB_TO_XYZ @ linear / _WHITE_D65
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _ratio(values: Sequence[float], inside: NDArray[np.int64], reference: NDArray[np.int64]) -> float:
    """Mean inside over the median of the reference; 1.0 if nothing moves in either, or a side has no frames."""
    if len(inside) == 0 or len(reference) == 0:
        return 1.0
    series = np.asarray(values)
    mean, median = float(series[inside].mean()), float(np.median(series[reference]))
    if median < 1e-6:
        return 1.0 if mean < 1e-6 else float("inf")
    return mean / median


def _laplacian_variance(luma_HW: NDArray[np.float32]) -> float:
    middle = luma_HW[1:-1, 1:-1]
    neighbours = luma_HW[:-2, 1:-1] + luma_HW[2:, 1:-1] + luma_HW[1:-1, :-2] + luma_HW[1:-1, 2:]
    return float((neighbours - 4 * middle).var())
