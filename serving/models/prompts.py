"""Turns prompts into embeddings, as WanPipeline does: cleaned, cut or padded to one length, zeros where padded.

Each text is encoded on its own, so that its embedding does not depend on what else is encoded. The text encoder is the
largest part of a real checkpoint; it is loaded for the call and freed after it.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from serving.models.checkpoint import Checkpoint
from serving.models.libraries import load_library
from serving.models.loading import load_module, load_tokenizer
from serving.models.prompt_tokens import clean_prompt, read_token_limit

log = logging.getLogger(__name__)


def encode_prompts(checkpoint: Checkpoint, texts: Sequence[str], *, dtype: torch.dtype, device: str) -> list[Tensor]:
    """One embedding per text, float32 [tokens, dim] on the CPU. Raises ModelError."""
    folder = checkpoint.fetch("tokenizer")
    tokenizer, limit = load_tokenizer(folder), read_token_limit(folder, checkpoint.name)
    encoder = load_module(import_encoder(checkpoint), checkpoint.fetch("text_encoder"), dtype=dtype, device=device)
    embeddings = {text: _encode(tokenizer, encoder, text, limit) for text in dict.fromkeys(texts)}
    return [embeddings[text] for text in texts]


def import_encoder(checkpoint: Checkpoint) -> Any:
    """transformers' class of its text encoder. Takes seconds, and loads no weights."""
    return getattr(load_library("transformers"), checkpoint.architecture.text_encoder_class)


@torch.no_grad()
def _encode(tokenizer: Any, encoder: Any, text: str, limit: int) -> Tensor:
    cleaned = clean_prompt(text)
    if (count := len(tokenizer(cleaned).input_ids)) > limit:  # plans cut prompts before; this one is in no plan
        log.warning("a prompt of %d tokens is cut to %d: %.200s", count, limit, cleaned, extra={"action": "cut_prompt"})
    tokens = tokenizer(
        [cleaned],
        padding="max_length",
        max_length=limit,
        truncation=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    ids, mask = tokens.input_ids.to(encoder.device), tokens.attention_mask.to(encoder.device)
    embedding: Tensor = encoder(ids, mask).last_hidden_state[0].float().cpu()
    num_tokens = int(mask.sum())
    embedding[num_tokens:] = 0.0
    return embedding
