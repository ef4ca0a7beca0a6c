"""What the engine asks of a model: predict one window of latents, and turn finished latents into frames.

The protocols sit here, with their consumer; serving/models adapts diffusers to them. Nothing here loads or runs a
model.

Legend: N latents, C latent channels, h, w latent height and width; F frames, H, W height and width in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from torch import Tensor

from sharding.capabilities import Capabilities

NOTHING_BESIDE: Mapping[str, Tensor] = MappingProxyType({})
"""Of a take without pictures."""


@dataclass(frozen=True)
class PromptPart:
    """One prompt of a window: its embedding, that of its negative, and how much it weighs at each latent.

    `embedding` and `negative` are whatever the model's own text encoder made, float [tokens, dim]; `weights` is float32
    [N] over the window's own latents, and the weights of all parts of a window sum to one at every latent.
    """

    embedding: Tensor
    negative: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Condition:
    """What the pictures of a take became for its model; made once per take."""

    given: Mapping[int, Tensor] = field(default_factory=dict)
    """Clean latents, float32 [C, h, w], by their index in the take: they are the take's own."""
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    """What the model reads with every call; only its adapter knows the names."""


class WindowDenoiser(Protocol):
    """A model that predicts a window of latents at one noise level.

    Implementations are deterministic: the same arguments give the same bytes on the same numerics key.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    def predict(
        self,
        latents_NChw: Tensor,
        *,
        timestep: float,
        parts: Sequence[PromptPart],
        start: int,
        shares: Sequence[float] = (),
        beside: Mapping[str, Tensor] = NOTHING_BESIDE,
    ) -> Tensor:
        """The model's prediction after guidance, parts mixed by their weights: float32 [N, C, h, w].

        `timestep` is the scheduler's (0..1000, large = noisy), of which `shares` says how much each latent has; empty:
        all of it. `start` is the index in the take of the window's first latent. `beside` is that of the take's
        Condition.
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
