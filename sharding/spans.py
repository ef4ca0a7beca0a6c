"""Frames and latents: two ways to count time that must never mix, and the model's grid that relates them.

A frame is a pixel frame, a latent a latent frame. Each has a span type of its own, so that a checker refuses one
where the other belongs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NewType

Frames = NewType("Frames", int)
"""A number of pixel frames, or the index of one."""

Latents = NewType("Latents", int)
"""A number of latent frames, or the index of one."""


@dataclass(frozen=True, order=True)
class LatentSpan:
    """Latents start..stop-1 of a take. Raises ValueError unless 0 <= start < stop."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"a span of latents needs 0 <= start < stop, not {self.start}..{self.stop}")

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))

    def __contains__(self, latent: object) -> bool:
        return isinstance(latent, int) and self.start <= latent < self.stop


@dataclass(frozen=True)
class Context:
    """Latents beside a span that its call reads and does not denoise, as many as there are in the take."""

    before: int = 0
    after: int = 0
    at: int | None = None
    """The step that they must have reached, and that they do not leave before the call has reported; None: they are
    finished. At the call's own step they are as noisy as the span (a causal slot); a later one must be a renewed step
    or the end, where they are clean."""


NO_CONTEXT = Context()


@dataclass(frozen=True, order=True)
class FrameSpan:
    """Frames start..stop-1 of a take or film. Raises ValueError unless 0 <= start <= stop."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"a span of frames needs 0 <= start <= stop, not {self.start}..{self.stop}")

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Grid:
    """The lengths a causal video model knows: frames = frames_per_latent * (latents - 1) + 1 (Wan: 4)."""

    frames_per_latent: int = 4

    def __post_init__(self) -> None:
        if self.frames_per_latent < 1:
            raise ValueError(f"frames_per_latent must be at least 1, not {self.frames_per_latent}")

    def frames_of(self, latents: Latents) -> Frames:
        """Frames that `latents` latents decode to."""
        return Frames(self.frames_per_latent * (latents - 1) + 1)

    def latents_for(self, frames: Frames) -> Latents:
        """The smallest number of latents that holds `frames` frames. Raises ValueError below one frame."""
        if frames < 1:
            raise ValueError(f"a take needs at least one frame, not {frames}")
        return Latents(-(-(frames - 1) // self.frames_per_latent) + 1)

    def frames_in(self, latent: Latents) -> FrameSpan:
        """The frames that the latent with this index decodes to: one for the first, frames_per_latent for the
        others."""
        stop = self.frames_per_latent * latent + 1
        return FrameSpan(max(0, stop - self.frames_per_latent), stop)

    def latent_at(self, frame: Frames) -> Latents:
        """The latent that frame number `frame` is decoded from."""
        return Latents(-(-frame // self.frames_per_latent))
