"""Draws which latents of a training sample pocket is given: pictures, runs of a clip, context, or none.

The shares follow what a film asks for: a first picture most often, then both ends, a continuation, keyframes anywhere.
"""

import random
from dataclasses import dataclass

CLEAN_RATE = 0.6
"""Share of samples with some latents given clean."""
CONTEXT_RATE = 0.1
"""Share of samples with a run of latents at a lower noise level than the rest."""
PICTURE_RATE = 0.6
"""Share of single latents that are given as a picture's (a still), else as the clip's own."""

_FIRST, _BOTH, _LAST, _RUN, _ANY = "first", "both", "last", "run", "any"
_KINDS = {_FIRST: 0.34, _BOTH: 0.22, _LAST: 0.08, _RUN: 0.2, _ANY: 0.16}
"""How the samples with clean latents are divided."""


@dataclass(frozen=True)
class Given:
    """One sample: each latent's share of the noise level (0: given clean), and whether a still stands there."""

    level_share: tuple[float, ...]
    still: tuple[bool, ...]


def draw_given(rng: random.Random, length: int) -> Given:
    """What one sample of `length` latents is given; at least one latent is left to denoise."""
    draw = rng.random()
    if draw < CLEAN_RATE:
        return _draw_clean(rng, length)
    run = _draw_run(rng, length) if draw < CLEAN_RATE + CONTEXT_RATE else range(0)
    share = rng.random()
    return Given(tuple(share if n in run else 1.0 for n in range(length)), (False,) * length)


def _draw_clean(rng: random.Random, length: int) -> Given:
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    if kind == _RUN:
        run = _draw_run(rng, length)
        return Given(tuple(float(n not in run) for n in range(length)), (False,) * length)
    slots = {
        _FIRST: [0],
        _LAST: [length - 1],
        _BOTH: [0, length - 1],
        _ANY: rng.sample(range(length), rng.randint(1, 2)),
    }[kind]
    stills = {slot for slot in slots if rng.random() < PICTURE_RATE}
    return Given(tuple(float(n not in slots) for n in range(length)), tuple(n in stills for n in range(length)))


def _draw_run(rng: random.Random, length: int) -> range:
    """Some latents at the start, as in a continuation; now and then at the end."""
    size = rng.randint(1, (length + 1) // 2)
    return range(length - size, length) if rng.random() < 0.2 else range(size)
