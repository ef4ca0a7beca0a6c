"""How far the latents of a take are, as a run-length code that is short however long the take is. Pure."""

import itertools
from collections.abc import Sequence

from serving.render.orders import Runs


def encode_runs(steps: Sequence[int], *, most: int) -> Runs:
    """The step that each latent has reached, in at most `most` runs (at least 1).

    Where that takes more, neighbours are put together in groups of 2, 4, ... and each group counts as the least of its
    steps: a latent is never told to be further than it is.
    """
    size, code = 1, _runs(steps)
    while len(code) > most:
        size *= 2
        groups = [steps[start : start + size] for start in range(0, len(steps), size)]
        code = _runs([min(group) for group in groups for _ in group])
    return code


def _runs(steps: Sequence[int]) -> Runs:
    return tuple((step, sum(1 for _ in same)) for step, same in itertools.groupby(steps))
