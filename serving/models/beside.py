"""What a window of a take reads beside its latents if its model takes pictures so: mask, pictures, embeddings.

A window behind its section's first latent is shown the section's picture in an extra latent before its own, whose
prediction is dropped. A model of this kind knows the first latent of a clip as the one that is given: without it a
window falls back to what words alone say, and with the picture in its own first latent the film would start again
there. The extra latent is the encoded picture with noise of its own at the step's level, which is nearly what the
take's first latent has come to be by then; so no window waits for another, and a take keeps its parallelism.

Legend: N latents of a window, C latent channels, h, w latent height and width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from serving.models.checkpoint import MASK_CHANNELS
from sharding.noise import unit_normal


@dataclass(frozen=True)
class Beside:
    """For one window."""

    channels_NChw: Tensor
    """Mask and latents of pictures; one latent more than the window if `shown` is not None."""
    shown_Chw: Tensor | None
    """The latent that the window is shown before its own."""
    embedding: Tensor | None
    """[pictures, tokens, dim]."""


def read_beside(beside: Mapping[str, Tensor], *, start: int, latents: int, level: float, shown: bool = True) -> Beside:
    """What the window of `latents` latents from `start` on reads at a noise level, 0..1. Without `shown` it is a slice
    of the take's clip, also where no picture is in it."""
    starts = sorted(int(name.removeprefix("section.")) for name in beside if name.startswith("section."))
    section = max(s for s in starts if s <= start)
    whole = beside[f"section.{section}"]
    places = [min(n - section, len(whole) - 1) for n in range(start, start + latents)]
    channels = whole[places]
    for name, closing_Chw in beside.items():
        if name.startswith("closing.") and start <= (n := int(name.removeprefix("closing."))) < start + latents:
            channels[n - start] = closing_Chw
    shown_Chw = None
    if shown and start > section:
        picture_Chw = whole[0, MASK_CHANNELS:]
        shown_Chw = (1 - level) * picture_Chw + level * unit_normal(tuple(picture_Chw.shape), "shown", section)
        channels = torch.cat([whole[:1], channels])
    return Beside(channels, shown_Chw, beside.get(f"embedding.{section}"))
