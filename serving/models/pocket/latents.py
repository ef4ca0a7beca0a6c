"""Clips of the world as latents, encoded once for the transformer to learn from.

Legend: K clips, C latent channels, N latents, H height, W width (latent cells).
"""

import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from serving.models.pocket import world
from serving.models.pocket.train_vae import encode_mean

CLIP_FRAMES = 49
"""Frames of a training clip: 13 latents, so that most crops of 8 come from the interior of a take."""

ENCODE_BATCH = 4


@dataclass(frozen=True)
class LatentSet:
    """Encoded clips. `tensor_kcnhw` is float16, normalised to mean 0 and standard deviation 1 per channel."""

    clips: tuple[world.Clip, ...]
    tensor_kcnhw: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def crop(self, rng: random.Random, *, length: int, start_rate: float) -> tuple[world.Clip, Tensor]:
        """A random clip and `length` of its latents [C, N, H, W]; with `start_rate` the first ones, else interior."""
        k = rng.randrange(len(self.clips))
        last = self.tensor_kcnhw.shape[2] - length
        n = 0 if rng.random() < start_rate else rng.randint(1, last)
        return self.clips[k], self.tensor_kcnhw[k, :, n : n + length].float()

    def save(self, path: Path) -> None:
        """Write everything to one file that `load` reads."""
        torch.save((self.clips, self.tensor_kcnhw, self.mean, self.std), path)

    @classmethod
    def load(cls, path: Path) -> "LatentSet":
        """Read what `save` wrote."""
        with torch.serialization.safe_globals([world.Clip]):
            return cls(*torch.load(path))


def encode_world(vae: AutoencoderKLWan, *, seed: int, num_clips: int, seconds: float | None = None) -> LatentSet:
    """Draw and encode up to `num_clips` training clips, fewer when `seconds` run out; measures the normalisation."""
    rng = random.Random(seed)
    started = time.monotonic()
    clips: list[world.Clip] = []
    batches: list[Tensor] = []
    while len(clips) < num_clips and (seconds is None or time.monotonic() - started < seconds):
        batch = [world.draw_training_clip(rng) for _ in range(min(ENCODE_BATCH, num_clips - len(clips)))]
        pixels = torch.stack([world.render(clip, CLIP_FRAMES) for clip in batch]) * 2 - 1
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            batches.append(encode_mean(vae, pixels).float())
        clips += batch
        if len(clips) % 200 == 0:
            print(f"encoded {len(clips)} clips  {time.monotonic() - started:.0f} s", flush=True)
    raw = torch.cat(batches)
    mean, std = raw.mean((0, 2, 3, 4)), raw.std((0, 2, 3, 4))
    normal = (raw - mean.view(1, -1, 1, 1, 1)) / std.view(1, -1, 1, 1, 1)
    return LatentSet(tuple(clips), normal.half(), tuple(mean.tolist()), tuple(std.tolist()))
