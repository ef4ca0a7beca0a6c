"""Trains pocket's VAE: images first, then short clips, then long ones.

A causal video VAE sees one frame as an image, so shapes and colours are learned from images at a fraction of the cost.
The temporal convolutions start inflated (they pass the newest frame through), so that the first clips decode like
images; without that the decoder drifts beyond the clip lengths it was trained on. Object and backdrop are weighed as
two equal means: under a plain mean the object is never learned. Some clips are decoded from their middle, because a
take's first latent usually comes from a chunk's interior.

Legend: B batch, C channels, F frames, H height, W width, N latents.
"""

import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify
from torch import Tensor

from serving.models.pocket import world

LATENT_CHANNELS = 16
LATENT_NOISE = 0.05
"""Standard deviation of the noise that the decoder learns to ignore, in units of the latents."""


@dataclass(frozen=True)
class Phase:
    """`steps` optimiser steps on batches of `batch` clips, each of a length drawn from `frames`."""

    steps: int
    frames: tuple[int, ...]
    batch: int


PHASES = (
    Phase(2000, (1,), 16),
    Phase(150, (5, 9), 3),
    Phase(400, (13, 17), 2),
    Phase(50, (33, 41), 1),
)
"""The first round: from images to clips, learning rate 2e-3 with cosine decay."""

REFINING = (
    Phase(1000, (9, 13, 17), 2),
    Phase(120, (33,), 1),
)
"""The second round starts the learning rate again: the motion inside a latent is learned here."""

SHARPENING = (Phase(1000, (9, 13, 17), 2),)
"""The third round, after the latents are encoded: the decoder alone."""


def build_vae() -> AutoencoderKLWan:
    """An untrained VAE, 8x8 pixels and 4 frames a latent, with inflated temporal convolutions."""
    vae = AutoencoderKLWan(
        base_dim=16,
        decoder_base_dim=24,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=8,
    )
    with torch.no_grad():
        for name, module in vae.named_modules():
            if isinstance(module, WanCausalConv3d) and module.weight.shape[2] == 3:
                _inflate(module, resampling="time_conv" in name)
    return vae


def _inflate(conv: WanCausalConv3d, *, resampling: bool) -> None:
    """Make a temporal convolution ignore the past; a resampling one becomes the identity on the newest frame."""
    if not resampling:
        conv.weight[:, :, :2] = 0
        return
    outputs, inputs = conv.weight.shape[:2]
    conv.weight.zero_()
    conv.bias.zero_()
    for k in range(outputs):
        conv.weight[k, k % inputs, 2] = 1.0


def decode_unclamped(vae: AutoencoderKLWan, latents_BCNHW: Tensor) -> Tensor:
    """diffusers' decode without its clamp to [-1, 1], which has no gradient outside. Returns [B, 3, F, H, W]."""
    vae.clear_cache()
    hidden = vae.post_quant_conv(latents_BCNHW)
    frames = []
    for n in range(hidden.shape[2]):
        frames.append(vae.decoder(hidden[:, :, n : n + 1], feat_cache=vae._feat_map, feat_idx=[0], first_chunk=n == 0))
    vae.clear_cache()
    pixels: Tensor = unpatchify(torch.cat(frames, 2), patch_size=vae.config.patch_size)
    return pixels


def encode_mean(vae: AutoencoderKLWan, pixels_BCFHW: Tensor) -> Tensor:
    """The mean of the posterior, [B, C, N, H/8, W/8]; pixels in -1..1."""
    mean: Tensor = vae.encode(pixels_BCFHW).latent_dist.mean
    return mean


def _draw_batch(rng: random.Random, batch: int, frames: int) -> tuple[Tensor, Tensor]:
    """Pixels in -1..1 [B, 3, F, H, W] and object masks [B, 1, F, H, W]."""
    clips = [world.draw_clip(rng) for _ in range(batch)]
    pixels = torch.stack([world.render(clip, frames) for clip in clips]) * 2 - 1
    cover = torch.stack([world.object_cover(clip, frames) for clip in clips]).unsqueeze(1)
    near = torch.nn.functional.max_pool3d(cover, (1, 5, 5), stride=1, padding=(0, 2, 2))
    return pixels, (near > 0).float()


def _schedule(phases: tuple[Phase, ...], seconds: float | None) -> Iterator[tuple[Phase, float]]:
    """Phases step by step with the share of the whole that is done; a time budget shortens all phases alike."""
    total = sum(phase.steps for phase in phases)
    started, done = time.monotonic(), 0.0
    for index, phase in enumerate(phases):
        end = sum(p.steps for p in phases[: index + 1]) / total
        step = 0
        while (step < phase.steps) if seconds is None else (done < end):
            yield phase, done
            step += 1
            if seconds is None:
                done += 1 / total
            else:
                done = min(1.0, (time.monotonic() - started) / seconds)


def train_vae(*, seed: int, out: Path, seconds: float | None = None) -> AutoencoderKLWan:
    """Train from nothing, in two rounds, and save to `out`; until then the newest state is in `out`-partial.

    With `seconds` each phase gets its share of that time instead of its steps.
    """
    torch.manual_seed(seed)
    partial = out.with_name(out.name + "-partial")
    vae = build_vae()
    first = None if seconds is None else 0.75 * seconds
    second = None if seconds is None else 0.25 * seconds
    train_round(vae, phases=PHASES, rate=2e-3, seed=seed, partial=partial, seconds=first)
    train_round(vae, phases=REFINING, rate=5e-4, seed=seed + 1, partial=partial, seconds=second)
    vae.save_pretrained(out)
    return vae


def sharpen_decoder(vae: AutoencoderKLWan, *, seed: int, out: Path, seconds: float | None = None) -> None:
    """Go on with the decoder alone, so that encoded latents stay what they are, and save to `out`."""
    torch.manual_seed(seed)
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)
    partial = out.with_name(out.name + "-partial")
    train_round(vae, phases=SHARPENING, rate=7e-4, seed=seed, partial=partial, seconds=seconds)
    vae.save_pretrained(out)


def train_round(
    vae: AutoencoderKLWan,
    *,
    phases: tuple[Phase, ...],
    rate: float,
    seed: int,
    partial: Path,
    seconds: float | None,
) -> None:
    """Train through `phases` with one cosine decay from `rate`; saves to `partial` now and then."""
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(
        [p for p in vae.parameters() if p.requires_grad], lr=rate, betas=(0.9, 0.95), weight_decay=1e-4
    )
    started = time.monotonic()
    smooth: dict[str, float] = {}
    for step, (phase, done) in enumerate(_schedule(phases, seconds)):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * done)))
        loss, parts = _clip_loss(vae, rng, batch=phase.batch, frames=rng.choice(phase.frames))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        for name, value in parts.items():
            smooth[name] = 0.97 * smooth.get(name, value) + 0.03 * value
        if step % 50 == 0:
            report = "  ".join(f"{name} {value:.3f}" for name, value in smooth.items())
            print(
                f"vae step {step}  up to {phase.frames[-1]} frames  {report}  {time.monotonic() - started:.0f} s",
                flush=True,
            )
        if step % 200 == 199:
            vae.save_pretrained(partial)
    vae.save_pretrained(partial)


def _clip_loss(
    vae: AutoencoderKLWan, rng: random.Random, *, batch: int, frames: int
) -> tuple[Tensor, dict[str, float]]:
    """Reconstruction loss on fresh clips, and its parts for the log."""
    pixels, mask = _draw_batch(rng, batch, frames)
    with torch.autocast("cpu", torch.bfloat16):
        mean = encode_mean(vae, pixels)
        noisy = mean + LATENT_NOISE * torch.randn_like(mean)
        skip = rng.randrange(1, noisy.shape[2]) if noisy.shape[2] > 1 and rng.random() < 0.3 else 0
        decoded = decode_unclamped(vae, noisy[:, :, skip:])
    pixels, mask = pixels[:, :, 4 * skip :], mask[:, :, 4 * skip :]
    error = (decoded.float() - pixels).abs()
    near = (error * mask).sum() / (mask.sum() * 3 + 1)
    far = (error * (1 - mask)).sum() / ((1 - mask).sum() * 3)
    loss = near + far + 2e-3 * mean.float().square().mean()
    return loss, {"object": near.item(), "backdrop": far.item(), "scale": mean.float().std().item()}
