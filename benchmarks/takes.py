"""Denoises one take of pocket by any recipe, in this process, and counts what it cost; shared by the benchmarks.

Legend: N latents, C channels, h and w height and width of a latent; F frames, H and W in pixels.
"""

import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from serving.models.denoiser import WanDenoiser
from serving.models.registry import open_model
from serving.models.wan import WanModel
from serving.render.frames import to_pixels
from sharding.denoiser import PromptPart
from sharding.noise import initial_noise
from sharding.timeline import Recipe, Timeline, head_first


@dataclass(frozen=True)
class Take:
    """One rendered take and what it cost."""

    latents_NChw: Tensor
    calls: int
    latents_evaluated: int
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
        started, calls, evaluated = time.process_time(), 0, 0
        while not timeline.done:
            call = min(timeline.ready(), key=head_first)
            part = PromptPart(self._embeddings[prompt], self._negative, torch.ones(len(call.reads)))
            prediction = self._denoiser.predict(
                timeline.input_of(call), timestep=recipe.solver.timestep(call.step), parts=[part],
                start=call.reads.start, shares=timeline.shares_of(call),
            )  # fmt: skip
            timeline.accept(call, prediction)
            calls, evaluated = calls + 1, evaluated + len(call.reads)
        seconds = time.process_time() - started
        latents = torch.stack([timeline.latent(n) for n in range(timeline.num_latents)])
        return Take(latents, calls, evaluated, seconds)

    def decode(self, latents_NChw: Tensor) -> np.ndarray:
        """uint8 [F, H, W, 3]"""
        codec = self.model.open_codec()
        return np.concatenate([to_pixels(codec.decode(latent)) for latent in latents_NChw])
