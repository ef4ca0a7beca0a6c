"""Trains pocket from nothing and exports its checkpoint.

    python -m serving.models.pocket.train --out DIR --seed 0 [--minutes M] [--start CHECKPOINT]

With --start the VAE of that checkpoint is kept and the transformer goes on from its weights. Stages: VAE, latents,
transformer with text encoder, sharper decoder, export. What a stage left in DIR is used again, so an interrupted run
goes on with the stage it was in. The checkpoint is DIR/checkpoint.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5EncoderModel

from serving.models.pocket.export import export
from serving.models.pocket.latents import LatentSet, encode_world
from serving.models.pocket.prompts import build_text_encoder, build_tokenizer
from serving.models.pocket.train_transformer import train_transformer
from serving.models.pocket.train_vae import sharpen_decoder, train_vae

NUM_CLIPS = 1200
SHARES = {"vae": 0.25, "latents": 0.03, "transformer": 0.62, "decoder": 0.1}
"""How a time budget is divided."""


def train(*, out: Path, seed: int, minutes: float | None = None, start: Path | None = None) -> Path:
    """Run every stage that has no result in `out` yet; returns the checkpoint folder.

    `start` is a checkpoint folder whose VAE is kept and whose transformer and text encoder are trained further.
    """
    out.mkdir(parents=True, exist_ok=True)
    if start is not None and not (out / "vae").exists():
        for kept in ("vae", "vae-sharp"):
            AutoencoderKLWan.from_pretrained(start / "vae").float().save_pretrained(out / kept)
    seconds = {stage: None if minutes is None else 60 * minutes * share for stage, share in SHARES.items()}
    torch.manual_seed(seed)
    if not (out / "vae").exists():
        train_vae(seed=seed, out=out / "vae", seconds=seconds["vae"])
    vae = AutoencoderKLWan.from_pretrained(out / "vae")
    if not (out / "latents.pt").exists():
        encode_world(vae, seed=seed, num_clips=NUM_CLIPS, seconds=seconds["latents"]).save(out / "latents.pt")
    latents = LatentSet.load(out / "latents.pt")
    tokenizer = build_tokenizer()
    if not (out / "transformer").exists():
        train_transformer(
            latents,
            tokenizer=tokenizer,
            text_encoder=build_text_encoder(tokenizer),
            seed=seed,
            out=out,
            seconds=seconds["transformer"],
            start=start,
        )
    if not (out / "vae-sharp").exists():
        sharpen_decoder(vae, seed=seed + 2, out=out / "vae-sharp", seconds=seconds["decoder"])
    export_parts(out, parts=out)
    return out / "checkpoint"


def export_parts(out: Path, *, parts: Path) -> None:
    """Write `out`/checkpoint from the newest VAE and the models in `parts` (`out` or `out`/partial)."""
    latents = LatentSet.load(out / "latents.pt")
    sharp = out / "vae-sharp"
    export(
        transformer=WanTransformer3DModel.from_pretrained(parts / "transformer"),
        text_encoder=UMT5EncoderModel.from_pretrained(parts / "text_encoder"),
        tokenizer=build_tokenizer(),
        vae=AutoencoderKLWan.from_pretrained(sharp if sharp.exists() else out / "vae"),
        mean=latents.mean,
        std=latents.std,
        out=out / "checkpoint",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for every stage's result")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="stop after about this time instead of the full number of steps")
    parser.add_argument("--start", type=Path, help="checkpoint folder to go on from")
    options = parser.parse_args(arguments)
    trained = train(out=options.out, seed=options.seed, minutes=options.minutes, start=options.start)
    print(f"checkpoint in {trained}")


if __name__ == "__main__":
    main()
