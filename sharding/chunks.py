"""The chunk schedule: which overlapping spans of a take are denoised at each step. fusion.py weighs their predictions.

Seams slide: the first chunk's length changes with the step (van der Corput), interior chunks are full and the last
takes the rest, so no chunk is doubled at the ends. Overlap is small at first and grows toward the end, because seams
made early heal and seams made late stay. The usual schedules (static and shifted full chunks) stand beside it for
comparison.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from sharding.spans import LatentSpan

GROWTH_START = 0.6
"""Share of the steps after which the overlap is large (measured in an exact Gaussian model, N=193, W=21, 24 steps)."""

FIRST_LENGTHS = 8
"""How many lengths the first chunk takes in turn."""

Cover = Callable[[int], tuple[LatentSpan, ...]]
"""The spans that cover a take at a given step, in order of their start."""


@dataclass(frozen=True)
class ChunkLimits:
    """What bounds a chunk: W and the overlaps. Raises ValueError if no schedule could satisfy them."""

    window: int
    """W: the most latents in a chunk."""
    overlap_early: int = -1
    """Latents shared by neighbours before GROWTH_START of the steps; -1: one."""
    overlap_late: int = -1
    """The same afterwards; -1: max(1, W // 4)."""
    first_lengths: int = FIRST_LENGTHS
    """Distinct lengths of the first chunk; 4 if kernels are compiled for each shape."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window must be at least 1 latent, not {self.window}")
        if self.first_lengths < 1:
            raise ValueError(f"first_lengths must be at least 1, not {self.first_lengths}")
        for name, default in (("overlap_early", 1), ("overlap_late", max(1, self.window // 4))):
            overlap = getattr(self, name)
            if overlap == -1:
                object.__setattr__(self, name, min(default, self.shortest - 1))
            elif not 0 <= overlap < self.shortest:
                raise ValueError(f"{name} must be 0..{self.shortest - 1} with window {self.window}, not {overlap}")

    @property
    def shortest(self) -> int:
        """The fewest latents in a chunk of a take that needs more than one: ceil(3W/8)."""
        return math.ceil(3 * self.window / 8)

    def overlap_at(self, step: int, num_steps: int) -> int:
        """Latents that neighbours share at this step."""
        return self.overlap_late if step >= GROWTH_START * num_steps else self.overlap_early


def plan_chunks(num_latents: int, limits: ChunkLimits, step: int, num_steps: int) -> tuple[LatentSpan, ...]:
    """Longtake's schedule: flexible ends, sliding seams, growing overlap. A pure function of its arguments."""
    window, shortest = limits.window, limits.shortest
    if num_latents <= window:
        return (LatentSpan(0, num_latents),)
    overlap = limits.overlap_at(step, num_steps)
    first = _first_length(limits, step)
    spans, start = [LatentSpan(0, first)], first - overlap
    while start + window < num_latents:
        spans.append(LatentSpan(start, start + window))
        start += window - overlap
    if num_latents - start < shortest:  # the rest is too short for a chunk: the last two share, sliding like the rest
        before = spans.pop()
        both = num_latents - before.start + overlap
        least, most = max(shortest, both - window), min(window, both - shortest)
        length = least + round(van_der_corput(step) * (most - least))
        spans.append(LatentSpan(before.start, before.start + length))
        start = before.start + length - overlap
    return (*spans, LatentSpan(start, num_latents))


def static_chunks(num_latents: int, *, window: int, overlap: int) -> tuple[LatentSpan, ...]:
    """The usual schedule: full chunks at a fixed stride, the last slid back to the end."""
    return _full_chunks(num_latents, window, overlap, first=0)


def shifted_chunks(num_latents: int, *, window: int, overlap: int, step: int) -> tuple[LatentSpan, ...]:
    """Full chunks whose starts move from step to step, with an extra chunk at the head (ComfyUI's standard_uniform)."""
    return _full_chunks(num_latents, window, overlap, first=round(van_der_corput(step) * (window - overlap)))


def overlap_waste(cover: Cover, num_latents: int, num_steps: int) -> float:
    """Redundant work: latents evaluated / (N * steps) - 1."""
    evaluated = sum(len(span) for step in range(num_steps) for span in cover(step))
    return evaluated / (num_latents * num_steps) - 1


def smoothstep(x: float) -> float:
    """3x^2 - 2x^3 on 0..1, flat outside."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def van_der_corput(i: int) -> float:
    """The i-th number of the base-2 van der Corput sequence, in [0, 1): each fills the largest gap left."""
    return int(f"{i:064b}"[::-1], 2) / 2**64


def _first_length(limits: ChunkLimits, step: int) -> int:
    if limits.first_lengths == 1:
        return limits.window
    level = math.floor(van_der_corput(step) * limits.first_lengths)
    return limits.shortest + round(level / (limits.first_lengths - 1) * (limits.window - limits.shortest))


def _full_chunks(num_latents: int, window: int, overlap: int, *, first: int) -> tuple[LatentSpan, ...]:
    if num_latents <= window:
        return (LatentSpan(0, num_latents),)
    starts = {0, num_latents - window}
    starts.update(range(first, num_latents - window, window - overlap))
    return tuple(LatentSpan(start, start + window) for start in sorted(starts))
