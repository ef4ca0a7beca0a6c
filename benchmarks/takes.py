"""Denoises one take of pocket by any recipe, in this process, and counts what it cost; shared by the benchmarks.

Legend: N latents, C channels, h and w height and width of a latent; F frames, H and W in pixels.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from serving.models.denoiser import WanDenoiser
from serving.models.registry import open_model
from serving.models.wan import WanModel
from serving.render.frames import to_pixels
from sharding.denoiser import PromptPart
from sharding.noise import initial_noise
from sharding.timeline import Call, Recipe, Timeline, head_first


@dataclass(frozen=True)
class Take:
    """One rendered take and what it cost."""

    latents_NChw: Tensor
    calls: int
    latents_evaluated: int
    longest_chain: int
    """Calls that had to wait for one another: the take's time on any number of gangs, in calls."""
    seconds: float
    """CPU seconds, decoding not counted."""


class TakeDenoiser:
    """One model in this process."""

    def __init__(self, name: str) -> None:
        self.model: WanModel = open_model(name)
        self.window = self.model.capabilities.window
        # Without a bound on the window, for the whole take at once.
        unbounded = replace(self.model, capabilities=replace(self.model.capabilities, window=sys.maxsize))
        self._denoiser: WanDenoiser = unbounded.load_denoiser()
        self._negative = self.model.encode_prompts([""])[0]
        self._embeddings: dict[str, Tensor] = {}

    def noise(self, num_latents: int, *, key: str, seed: int) -> Tensor:
        """What a take starts from."""
        capabilities = self.model.capabilities
        return initial_noise(
            capabilities.latent_shape(width=capabilities.width, height=capabilities.height),
            num_latents=num_latents, storyboard_seed=seed, take_seed=seed, take_key=key, window=self.window,
            identity=0.0,
        )  # fmt: skip

    def denoise(self, recipe: Recipe, prompt: str, noise: Tensor) -> Take:
        """The take that begins as `noise`."""
        if prompt not in self._embeddings:
            self._embeddings[prompt] = self.model.encode_prompts([prompt])[0]
        timeline = Timeline(noise, recipe)
        started, evaluated = time.process_time(), 0
        chain = _LongestChain(timeline)
        while not timeline.done:
            call = min(timeline.ready(), key=head_first)
            part = PromptPart(self._embeddings[prompt], self._negative, torch.ones(len(call.reads)))
            prediction = self._denoiser.predict(
                timeline.input_of(call), timestep=recipe.solver.timestep(call.step), parts=[part],
                start=call.reads.start, shares=timeline.shares_of(call),
            )  # fmt: skip
            chain.accept(call, partial(timeline.accept, call, prediction))
            evaluated += len(call.reads)
        seconds = time.process_time() - started
        latents = torch.stack([timeline.latent(n) for n in range(timeline.num_latents)])
        return Take(latents, chain.calls, evaluated, chain.longest, seconds)

    def decode(self, latents_NChw: Tensor) -> np.ndarray:
        """uint8 [F, H, W, 3]"""
        codec = self.model.open_codec()
        return np.concatenate([to_pixels(codec.decode(latent)) for latent in latents_NChw])


class _LongestChain:
    """How many calls stand behind each latent at least, one after another."""

    def __init__(self, timeline: Timeline) -> None:
        self.calls = 0
        self._timeline = timeline
        self._of_latent = [0] * timeline.num_latents
        self._of_readers: dict[tuple[int, int], int] = {}
        """By (latent, step): the longest of the calls that read it there."""

    @property
    def longest(self) -> int:
        return max(self._of_latent)

    def accept(self, call: Call, accept: Callable[[], object]) -> None:
        before = self._timeline.latent_steps()
        length = 1 + max(self._of_latent[n] for n in call.reads)
        for n in call.reads:
            at = n, before[n]
            self._of_readers[at] = max(self._of_readers.get(at, 0), length)
        accept()
        self.calls += 1
        after = self._timeline.latent_steps()
        for n in range(len(after)):
            if after[n] > before[n]:
                self._of_latent[n] = self._of_readers[n, before[n]]
