"""How the predictions of overlapping chunks are weighed where they meet, so that they sum to one."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sharding.chunks import smoothstep
from sharding.spans import LatentSpan

Profile = Literal["smoothstep", "linear", "pyramid", "flat"]
"""How a chunk's weight falls toward its edges, before all weights on a latent are made to sum to one."""


def weigh(spans: Sequence[LatentSpan], profile: Profile = "smoothstep") -> tuple[Tensor, ...]:
    """Fusing weights of each span, float32 [len(span)]; over the spans they sum to one at every covered latent."""
    raw = [_profile(spans, index, profile) for index in range(len(spans))]
    total = np.zeros(max(span.stop for span in spans))
    for span, weights in zip(spans, raw, strict=True):
        total[span.start : span.stop] += weights
    return tuple(
        torch.from_numpy((weights / total[span.start : span.stop]).astype(np.float32))
        for span, weights in zip(spans, raw, strict=True)
    )


def _profile(spans: Sequence[LatentSpan], index: int, profile: Profile) -> np.ndarray:
    span = spans[index]
    weights = np.ones(len(span))
    if profile == "pyramid":
        rising = np.arange(1, len(span) + 1)
        return np.minimum(rising, rising[::-1]).astype(np.float64)
    if profile == "flat":
        return weights
    left = spans[index - 1].stop - span.start if index > 0 else 0
    right = span.stop - spans[index + 1].start if index + 1 < len(spans) else 0
    bend = smoothstep if profile == "smoothstep" else float
    for k in range(left):
        weights[k] *= bend((k + 1) / (left + 1))
    for k in range(right):
        weights[-1 - k] *= bend((k + 1) / (right + 1))
    return weights
