"""What the engine asks of a model: predict one window of latents, and turn finished latents into frames.

The protocols sit here, with their consumer; serving/models adapts diffusers to them. Nothing here loads or runs a
model.

Legend: N latents, C latent channels, h, w latent height and width; F frames, H, W height and width in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from sharding.capabilities import Capabilities


@dataclass(frozen=True)
class PromptPart:
    """One prompt of a window: its embedding, that of its negative, and how much it weighs at each latent.

    `embedding` and `negative` are whatever the model's own text encoder made, float [tokens, dim]; `weights` is float32
    [N] over the window's own latents, and the weights of all parts of a window sum to one at every latent.
    """

    embedding: Tensor
    negative: Tensor
    weights: Tensor


class WindowDenoiser(Protocol):
    """A model that predicts a window of latents at one noise level.

    Implementations are deterministic: the same arguments give the same bytes on the same numerics key.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    def predict(self, latents_NChw: Tensor, *, timestep: float, parts: Sequence[PromptPart], start: int) -> Tensor:
        """The model's prediction after guidance, parts mixed by their weights: float32 [N, C, h, w].

        `timestep` is the scheduler's (0..1000, large = noisy). `start` is the index in the take of the window's first
        latent; only a model with global positions uses it.
        """
        ...


class Codec(Protocol):
    """Decodes the latents of one take in order, one at a time, holding a bounded state."""

    @property
    def exact(self) -> bool:
        """True if the frames equal those of decoding the whole take at once."""
        ...

    def decode(self, latent_Chw: Tensor) -> Tensor:
        """The next latent's frames, float32 [F, 3, H, W] in -1..1: one for the first latent, then frames_per_latent."""
        ...
