"""Which prompts a window needs where a take's prompt changes, and how much each weighs at each latent.

A change is not a switch: both prompts are predicted near it and their predictions mixed by smoothstep over a few
latents.
"""

import bisect
import itertools
from collections.abc import Sequence

from sharding.chunks import smoothstep
from sharding.spans import LatentSpan

BLEND_LATENTS = 4
"""Latents over which one prompt gives way to the next, centred on the change."""


def count_prompts(changes: Sequence[int], span: LatentSpan) -> int:
    """How many prompts weigh anything in `span`; see prompt_weights."""
    return len(prompt_weights(changes, span))


def prompt_weights(changes: Sequence[int], span: LatentSpan) -> list[tuple[int, list[float]]]:
    """The prompts that weigh anything in `span`: (index, a weight for each of its latents), in order of their index.

    `changes[k]` is the latent at which prompt k + 1 begins, ascending; the weights sum to one at every latent.
    Raises ValueError if the changes do not ascend.
    """
    if any(a >= b for a, b in itertools.pairwise(changes)):
        raise ValueError(f"prompt changes must ascend, not {list(changes)}")
    first = bisect.bisect_right(changes, span.start - BLEND_LATENTS // 2)  # changes before it are over in the span
    last = bisect.bisect_left(changes, span.stop + BLEND_LATENTS // 2)  # changes from it on have not begun
    arrived = [[1.0] * len(span)]  # arrived[k][n]: how far prompt first + k has come in at latent n; falls with k
    for change in changes[first:last]:
        arrived.append([_arrival(latent, change) for latent in span])
    arrived.append([0.0] * len(span))
    parts = []
    for index in range(first, last + 1):
        weights = [a - b for a, b in zip(arrived[index - first], arrived[index - first + 1], strict=True)]
        if any(weight > 0 for weight in weights):
            parts.append((index, weights))
    return parts


def _arrival(latent: int, change: int) -> float:
    return smoothstep((latent - change + BLEND_LATENTS / 2 + 0.5) / BLEND_LATENTS)
