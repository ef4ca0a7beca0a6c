"""Writes tiny checkpoints with random weights, one per Wan variant, with diffusers' own classes.

A few thousand parameters each: they render noise, but through every line of code that a real checkpoint takes.
"""

import json
from pathlib import Path
from typing import Any, Final, Literal

import torch

from serving.models.quiet import quiet_loading

Variant = Literal["2.1", "2.2-a14b", "2.2-5b", "2.1-i2v", "2.1-flf2v", "2.2-i2v-a14b", "2.1-vace"]
SchedulerKind = Literal["unipc", "euler"]

VARIANTS: Final[tuple[Variant, ...]] = ("2.1", "2.2-a14b", "2.2-5b")
"""What renders from words."""
PICTURE_VARIANTS: Final[tuple[Variant, ...]] = ("2.2-5b", "2.1-i2v", "2.1-flf2v", "2.2-i2v-a14b")
"""What renders from pictures too."""
WORDS: Final = ("a", "red", "blue", "ball", "box", "moving", "right", "left", "day", "night", "blurry", "text")
TEXT_DIM: Final = 16
TOKENS: Final = {False: 12, True: 512}
"""Of a prompt; diffusers takes what is beyond the last 512 tokens for those of a picture."""
MADE_FOR: Final[dict[Variant, dict[str, Any]]] = {
    "2.1": {"window": 4, "width": 32, "height": 48, "fps": 8, "guidance": [5.0]},
    "2.2-a14b": {"window": 4, "width": 32, "height": 48, "fps": 8, "guidance": [4.0, 3.0]},
    "2.2-5b": {"window": 4, "width": 64, "height": 96, "fps": 8, "guidance": [5.0]},
    "2.1-i2v": {"window": 4, "width": 32, "height": 48, "fps": 8, "guidance": [5.0]},
    "2.1-flf2v": {"window": 4, "width": 32, "height": 48, "fps": 8, "guidance": [5.0]},
    "2.2-i2v-a14b": {"window": 4, "width": 32, "height": 48, "fps": 8, "guidance": [3.5, 3.5]},
    "2.1-vace": {"window": 4, "width": 32, "height": 48, "fps": 8, "guidance": [5.0]},
}
CLIP_DIM: Final = 20
CLIP_TOKENS: Final = 5
"""Of a picture: 2 x 2 patches and one for the whole."""


def write_tiny_checkpoint(folder: Path, variant: Variant, *, scheduler: SchedulerKind = "unipc", seed: int = 0) -> Path:
    """Writes a checkpoint of that variant with random weights drawn from `seed`; returns the folder."""
    from diffusers import WanImageToVideoPipeline, WanPipeline, WanVACEPipeline

    from_pictures, has_experts = "i2v" in variant or "flf2v" in variant, variant.endswith("a14b")
    with torch.random.fork_rng(devices=[]), quiet_loading():
        torch.manual_seed(seed)
        owner: Any = WanImageToVideoPipeline if from_pictures else WanPipeline
        kind = {"expand_timesteps": variant == "2.2-5b"}
        if variant == "2.1-vace":
            owner, kind = WanVACEPipeline, {}
        pipeline = owner(
            tokenizer=_build_tokenizer(tokens=TOKENS[has_clip(variant)]),
            text_encoder=_build_text_encoder(),
            vae=_build_vae(variant),
            scheduler=_build_scheduler(scheduler),
            transformer=_build_transformer(variant),
            transformer_2=_build_transformer(variant) if has_experts else None,
            boundary_ratio=0.875 if has_experts else None,
            **kind,
            **(_build_clip() if has_clip(variant) else {}),
        )
        pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "longtake.json").write_text(json.dumps(MADE_FOR[variant]), encoding="utf-8")
    return folder


def has_clip(variant: Variant) -> bool:
    """Whether a variant reads embeddings of pictures."""
    return variant in ("2.1-i2v", "2.1-flf2v")


def _build_clip() -> dict[str, Any]:
    from transformers import CLIPVisionConfig, CLIPVisionModel
    from transformers.models.clip import CLIPImageProcessorPil

    config = CLIPVisionConfig(
        hidden_size=CLIP_DIM, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=16,
        patch_size=8,
    )  # fmt: skip
    size = {"height": 16, "width": 16}
    return {
        "image_encoder": CLIPVisionModel(config).eval(),
        "image_processor": CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=size),
    }


def _build_tokenizer(tokens: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=tokens
    )


def _build_text_encoder() -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=len(WORDS) + 3,
        d_model=TEXT_DIM,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        initializer_factor=1.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config).eval()


def _build_transformer(variant: Variant) -> Any:
    from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

    owner: Any = WanVACETransformer3DModel if variant == "2.1-vace" else WanTransformer3DModel
    channels = 48 if variant == "2.2-5b" else 16
    beside = 4 + channels if "i2v" in variant or "flf2v" in variant else 0
    clip = {"image_dim": CLIP_DIM, "added_kv_proj_dim": 24} if has_clip(variant) else {}
    vace = {"vace_layers": [0, 1]} if variant == "2.1-vace" else {}
    return owner(
        **clip,
        **vace,
        pos_embed_seq_len=2 * CLIP_TOKENS if variant == "2.1-flf2v" else None,
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels + beside,
        out_channels=channels,
        text_dim=TEXT_DIM,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )


def _build_vae(variant: Variant) -> Any:
    from diffusers import AutoencoderKLWan

    if variant != "2.2-5b":
        return AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 2, 2, 2], num_res_blocks=1)
    return AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=8,
        z_dim=48,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.01 * channel for channel in range(48)],
        latents_std=[0.5 + 0.02 * channel for channel in range(48)],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )


def _build_scheduler(kind: SchedulerKind) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    if kind == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=3.0)
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
