"""Clips of the world as latents, encoded once for the transformer to learn from.

Legend: K clips, B clips of a batch, C channels, F frames, N latents, H height, W width (pixels or latent cells).
"""

import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from serving.models.conditions import STILL_FRAMES
from serving.models.pocket import world
from serving.models.pocket.train_vae import encode_mean

CLIP_FRAMES = 49
"""Frames of a training clip: 13 latents, so that most crops of 8 come from the interior of a take."""

ENCODE_BATCH = 4


@dataclass(frozen=True)
class LatentSet:
    """Encoded clips and pictures of them, normalised to mean 0 and standard deviation 1 per channel, float16.

    `clips_KCNHW` are the latents of the clips; `stills_KCNHW[:, :, n]` is what the picture of the last frame of latent
    n becomes when it is given at n, so at 0 it is the clip's own first latent.
    """

    clips: tuple[world.Clip, ...]
    clips_KCNHW: Tensor
    stills_KCNHW: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def crop(self, rng: random.Random, *, length: int, start_rate: float) -> tuple[world.Clip, Tensor, Tensor]:
        """A random clip, `length` of its latents [C, N, H, W] and their stills; with `start_rate` the first ones."""
        k = rng.randrange(len(self.clips))
        last = self.clips_KCNHW.shape[2] - length
        n = 0 if rng.random() < start_rate else rng.randint(1, last)
        crop = slice(n, n + length)
        return self.clips[k], self.clips_KCNHW[k, :, crop].float(), self.stills_KCNHW[k, :, crop].float()

    def save(self, path: Path) -> None:
        """Write everything to one file that `load` reads."""
        torch.save((self.clips, self.clips_KCNHW, self.stills_KCNHW, self.mean, self.std), path)

    @classmethod
    def load(cls, path: Path) -> "LatentSet":
        """Read what `save` wrote."""
        with torch.serialization.safe_globals([world.Clip]):
            return cls(*torch.load(path))


def encode_world(vae: AutoencoderKLWan, *, seed: int, num_clips: int, seconds: float | None = None) -> LatentSet:
    """Draw and encode up to `num_clips` training clips, fewer when `seconds` run out.

    The normalisation is the one in the VAE's config, or measured when that holds none yet.
    """
    rng = random.Random(seed)
    started = time.monotonic()
    clips: list[world.Clip] = []
    moving: list[Tensor] = []
    still: list[Tensor] = []
    while len(clips) < num_clips and (seconds is None or time.monotonic() - started < seconds):
        batch = [world.draw_training_clip(rng) for _ in range(min(ENCODE_BATCH, num_clips - len(clips)))]
        pixels_BCFHW = torch.stack([world.render(clip, CLIP_FRAMES) for clip in batch]) * 2 - 1
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            latents_BCNHW = encode_mean(vae, pixels_BCFHW).float()
            moving.append(latents_BCNHW)
            still.append(_encode_stills(vae, pixels_BCFHW[:, :, ::4], first_BCHW=latents_BCNHW[:, :, 0]))
        clips += batch
        if len(clips) % 100 == 0:
            print(f"encoded {len(clips)} clips  {time.monotonic() - started:.0f} s", flush=True)
    raw = torch.cat(moving)
    mean, std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    if not mean.any():
        mean, std = raw.mean((0, 2, 3, 4)), raw.std((0, 2, 3, 4))
    clips_KCNHW, stills_KCNHW = (
        ((x - mean.view(1, -1, 1, 1, 1)) / std.view(1, -1, 1, 1, 1)).half() for x in (raw, torch.cat(still))
    )
    return LatentSet(tuple(clips), clips_KCNHW, stills_KCNHW, tuple(mean.tolist()), tuple(std.tolist()))


def _encode_stills(vae: AutoencoderKLWan, pictures_BCNHW: Tensor, *, first_BCHW: Tensor) -> Tensor:
    """Latents of pictures in pixels [B, 3, N, H, W], one for each latent of a clip; the first is `first_BCHW`."""
    batch, _, count = pictures_BCNHW.shape[:3]
    apart = pictures_BCNHW[:, :, 1:].transpose(1, 2).flatten(0, 1).unsqueeze(2)
    second = encode_mean(vae, apart.expand(-1, -1, STILL_FRAMES, -1, -1))[:, :, 1].float()
    return torch.cat([first_BCHW.unsqueeze(2), second.unflatten(0, (batch, count - 1)).transpose(1, 2)], 2)
