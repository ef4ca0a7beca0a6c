"""What a window of a take reads beside its latents if its model takes pictures so: mask, pictures, embeddings.

A window behind its section's first latent is shown the section's picture in an extra latent before its own, whose
prediction is dropped. A model of this kind knows the first latent of a clip as the one that is given: without it a
window falls back to what words alone say, and with the picture in its own first latent the film would start again
there. The extra latent is the encoded picture with noise of its own at the step's level, which is nearly what the
take's first latent has come to be by then; so no window waits for another, and a take keeps its parallelism.

VACE reads a control clip instead, of a mask and pictures at any time, and pictures of characters as latents before it.
Every window is shown those in the same way: at the step's level, and what is predicted of them is dropped. diffusers'
pipeline denoises them along with the clip, which would make every window wait for the first.

Legend: N latents of a window, R latents shown before them, C latent channels, h, w latent height and width.
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
    """Mask and latents of pictures, of what is shown and of the window."""
    shown_RChw: Tensor | None
    """What the window is shown before its own latents."""
    embedding: Tensor | None = None
    """[pictures, tokens, dim]."""


def read_beside(beside: Mapping[str, Tensor], *, start: int, latents: int, level: float, shown: bool = True) -> Beside:
    """What the window of `latents` latents from `start` on reads at a noise level, 0..1. Without `shown` it is a slice
    of the take's clip, also where no picture is in it."""
    section = _newest_run(beside, "section.", start)
    whole = beside[f"section.{section}"]
    channels = torch.stack([_of_run(whole, n - section) for n in range(start, start + latents)])
    for name, closing_Chw in beside.items():
        if name.startswith("closing.") and start <= (n := int(name.removeprefix("closing."))) < start + latents:
            channels[n - start] = closing_Chw
    shown_RChw = None
    if shown and start > section:
        shown_RChw = _at_level(whole[0, MASK_CHANNELS:], level, "shown", section)[None]
        channels = torch.cat([whole[:1], channels])
    return Beside(channels, shown_RChw, beside.get(f"embedding.{section}"))


def read_control(beside: Mapping[str, Tensor], *, start: int, latents: int, level: float) -> Beside:
    """What a window reads on VACE: its part of the control clip, after the pictures of characters, the last of them
    first as diffusers' WanVACEPipeline lays them."""
    places = range(start, start + latents)
    runs = [_newest_run(beside, "inactive.", n) for n in places]
    inactive_NChw = torch.stack([_of_run(beside[f"inactive.{s}"], n - s) for s, n in zip(runs, places, strict=True)])
    reactive_NChw = torch.stack([_of_run(beside["reactive.0"], n) for n in places])
    mask_NMhw = beside["mask"][start : start + latents, :, None, None].expand(-1, -1, *inactive_NChw.shape[2:])
    control_NKhw = torch.cat([inactive_NChw, reactive_NChw, mask_NMhw], 1)
    count = sum(name.startswith("reference.") for name in beside)
    if not count:
        return Beside(control_NKhw, None)
    order = range(count - 1, -1, -1)
    references_RChw = torch.stack([beside[f"reference.{r}"] for r in order])
    free_RMhw = torch.zeros(count, *control_NKhw.shape[1:])
    free_RMhw[:, : references_RChw.shape[1]] = references_RChw
    shown_RChw = torch.stack([_at_level(beside[f"reference.{r}"], level, "reference", r) for r in order])
    return Beside(torch.cat([free_RMhw, control_NKhw]), shown_RChw)


def _newest_run(beside: Mapping[str, Tensor], kind: str, n: int) -> int:
    """The latent at which the last run of a kind begins that begins at `n` or before."""
    starts = (int(name.removeprefix(kind)) for name in beside if name.startswith(kind))
    return max(start for start in starts if start <= n)


def _of_run(run_nChw: Tensor, k: int) -> Tensor:
    """Latent `k` of a run, whose last one is repeated for as long as it is needed."""
    return run_nChw[min(k, len(run_nChw) - 1)]


def _at_level(clean_Chw: Tensor, level: float, *name: str | int) -> Tensor:
    """A clean latent with noise of its own at a level of 0..1."""
    return (1 - level) * clean_Chw + level * unit_normal(tuple(clean_Chw.shape), *name)
