"""The timeline of any job as the store knows it: how far the latents of each take are. Pure."""

from collections.abc import Sequence
from typing import Any

from serving.store.records import Take


def describe_stored(takes: Sequence[Take], *, steps: int) -> list[dict[str, Any]]:
    """The takes of any job as the store knows them. Nothing is in flight as far as it knows."""
    return [
        {
            "key": take.key,
            "latents": take.latents,
            "steps": steps,
            "reached": _of_counts(take.step_counts, take.latents),
            "exact": sum(count > 0 for count in take.step_counts) < 2,
            "in_flight": [],
            "retries": take.retries,
        }
        for take in takes
    ]


def _of_counts(counts: Sequence[int], latents: int) -> list[tuple[int, int]]:
    """Runs from how many latents have reached each step: the furthest first, as heads go first."""
    if not counts:
        return [(0, latents)]
    return [(step, counts[step]) for step in reversed(range(len(counts))) if counts[step]]
