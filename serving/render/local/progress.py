"""What a render tells whoever watches it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a render is. Counts never fall while it runs."""

    calls_done: int
    calls_total: int
    latents_finished: int
    latents_total: int
    frames_encoded: int
    """Frames of the film, from its head, that are decoded and encoded."""
    frames_total: int
    seconds_left: float | None
    """Estimated from the calls so far; None before the first call is done."""
