"""Turns prompts into embeddings, as WanPipeline does: cleaned, cut or padded to one length, zeros where padded.

Each text is encoded on its own, so that its embedding does not depend on what else is encoded. The text encoder is the
largest part of a real checkpoint; it is loaded for the call and freed after it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from serving.errors import ModelError
from serving.models.checkpoint import Checkpoint
from serving.models.loading import load_module
from serving.models.quiet import quiet_loading

MAX_TOKENS = 512
"""The default of WanPipeline, which is what Wan was trained with."""


def encode_prompts(checkpoint: Checkpoint, texts: Sequence[str], *, dtype: torch.dtype, device: str) -> list[Tensor]:
    """One embedding per text, float32 [tokens, dim] on the CPU. Raises ModelError."""
    import transformers

    tokenizer = _load_tokenizer(checkpoint)
    owner = getattr(transformers, checkpoint.architecture.text_encoder_class)
    encoder = load_module(owner, checkpoint.fetch("text_encoder"), dtype=dtype, device=device)
    embeddings = {text: _encode(tokenizer, encoder, text) for text in dict.fromkeys(texts)}
    return [embeddings[text] for text in texts]


def _load_tokenizer(checkpoint: Checkpoint) -> Any:
    from transformers import AutoTokenizer

    folder = checkpoint.fetch("tokenizer")
    try:
        with quiet_loading():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"cannot load the tokenizer in {folder}: {error}") from error


@torch.no_grad()
def _encode(tokenizer: Any, encoder: Any, text: str) -> Tensor:
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    tokens = tokenizer(
        [prompt_clean(text)],
        padding="max_length",
        max_length=min(MAX_TOKENS, tokenizer.model_max_length),
        truncation=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    ids, mask = tokens.input_ids.to(encoder.device), tokens.attention_mask.to(encoder.device)
    embedding: Tensor = encoder(ids, mask).last_hidden_state[0].float().cpu()
    num_tokens = int(mask.sum())
    embedding[num_tokens:] = 0.0
    return embedding
