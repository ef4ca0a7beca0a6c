"""Fits the map of pocket's latents to colours, which previews are drawn with, on clips of the world.

    python -m serving.models.pocket.fit_preview [--out FILE] [--clips K] [--seed S]

writes it into the checkpoint and prints its R^2 on those clips and on others (0.927 and 0.926). The same seed gives the
same file, up to the last digits of the machine's arithmetic. Green objects come out light blue: a cell's
latents alone do not tell them apart, and the products of its channels do not either (tried).

Legend: C latent channels, N latents, h, w latent height and width; F frames, H, W height and width in pixels.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from serving.models.latent_rgb import RGB_FILE, LatentRgb, RgbFit
from serving.models.pocket import world
from serving.models.pocket.train_vae import LATENT_CHANNELS, encode_mean

CHECKPOINT = Path(__file__).parent / "checkpoint"
CLIPS = 96
CLIP_FRAMES = 17
"""5 latents of each clip; the first, which holds one frame, looks a little different from the rest."""


def fit_map(vae: AutoencoderKLWan, *, seed: int, clips: int) -> LatentRgb:
    """The map fitted on `clips` random clips of the world and the latents that they are encoded to."""
    rng = random.Random(seed)
    fit = RgbFit(LATENT_CHANNELS)
    for _ in range(clips):
        _add_clip(fit, vae, world.draw_clip(rng))
    rgb = fit.solve()
    assert rgb is not None
    return rgb


def measure_r2(rgb: LatentRgb, vae: AutoencoderKLWan, *, seed: int, clips: int) -> float:
    """R^2 of a map on other clips."""
    rng = random.Random(seed)
    fit = RgbFit(LATENT_CHANNELS)
    for _ in range(clips):
        _add_clip(fit, vae, world.draw_clip(rng))
    return fit.r2_of(rgb)


@torch.inference_mode()
def _add_clip(fit: RgbFit, vae: AutoencoderKLWan, clip: world.Clip) -> None:
    pixels_CFHW = world.render(clip, CLIP_FRAMES)
    latents_CNhw = encode_mean(vae, pixels_CFHW[None] * 2 - 1)[0]
    mean, std = (torch.tensor(values).view(-1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std))
    latents_NChw = ((latents_CNhw - mean) / std).transpose(0, 1).numpy()
    frames_FHW3 = (pixels_CFHW.permute(1, 2, 3, 0) * 255).round().to(torch.uint8).numpy()
    for n, latent in enumerate(latents_NChw):
        fit.add(np.ascontiguousarray(latent), frames_FHW3[max(0, 4 * n - 3) : 4 * n + 1])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CHECKPOINT / RGB_FILE)
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    vae = AutoencoderKLWan.from_pretrained(CHECKPOINT / "vae", torch_dtype=torch.float32)
    rgb = fit_map(vae, seed=options.seed, clips=options.clips)
    other = measure_r2(rgb, vae, seed=options.seed + 1, clips=max(1, options.clips // 4))
    print(f"R^2 {rgb.r2:.4f} on {options.clips} clips, {other:.4f} on others")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(rgb.to_json())


if __name__ == "__main__":
    main()
