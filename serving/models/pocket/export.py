"""Puts pocket's trained parts together as a diffusers checkpoint: safetensors in half precision and `longtake.json`."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from serving.models.pocket import world
from serving.models.pocket.train_transformer import SHIFT, WINDOW


@dataclass(frozen=True)
class Capabilities:
    """What longtake needs to know of a checkpoint and diffusers' own files do not say; `longtake.json`."""

    window: int = WINDOW
    """Latents that the model denoises at once."""
    width: int = world.WIDTH
    height: int = world.HEIGHT
    fps: int = world.FPS
    guidance: tuple[float, ...] = (3.0,)
    """Guidance scale of each expert; pocket has one."""
    pictures: tuple[str, ...] = ("first", "last", "keyframes", "strength", "context")
    """Where a take may be given pictures; what training drew (given.py)."""
    stitching: dict[str, str | float] = field(default_factory=lambda: {"kind": "drafted", "renew_above": 0.75})
    """Measured best, for joint takes too (docs/stitching.md)."""


def export(
    *,
    transformer: WanTransformer3DModel,
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    vae: AutoencoderKLWan,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    out: Path,
) -> None:
    """Write the checkpoint folder `out`, replacing an older one at once. `mean` and `std` normalise the latents.

    The models are turned to float16 in place.
    """
    vae.register_to_config(latents_mean=list(mean), latents_std=list(std))
    # At 24 steps UniPC samples as well as Euler, at 8 worse (see docs/pocket.md).
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        scheduler=scheduler,
        transformer=transformer,
        expand_timesteps=True,  # one timestep a token, as Wan 2.2 5B: what is given has the timestep 0
    ).to(torch.float16)
    fresh, old = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    pipeline.save_pretrained(fresh, safe_serialization=True)
    for component in ("transformer", "vae"):
        _forget_origin(fresh / component / "config.json")
    (fresh / "longtake.json").write_text(json.dumps(asdict(Capabilities())) + "\n")
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _forget_origin(config: Path) -> None:
    """diffusers notes the folder that a model was loaded from, which means nothing on another machine."""
    content = json.loads(config.read_text())
    content.pop("_name_or_path", None)
    config.write_text(json.dumps(content, indent=2) + "\n")
