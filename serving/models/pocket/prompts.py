"""Pocket's text side: a word-level tokenizer over the world's vocabulary and a tiny UMT5 encoder.

The prompt embeddings are made here exactly as diffusers' WanPipeline makes them (padded to `MAX_TOKENS`, zero beyond
the sentence), because that is what the transformer meets later.

Legend: B batch, S tokens, D text dimensions.
"""

import random
from collections.abc import Sequence

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from serving.models.pocket import world

MAX_TOKENS = 32
TEXT_DIM = 96
UNKNOWN_RATE = 0.15
"""Share of training captions that get a few unknown words, so that a word outside the vocabulary does no harm."""

_SPECIAL = ("<pad>", "</s>", "[UNK]")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Lower-cases, splits at spaces and punctuation, ends each sentence with `</s>`."""
    vocabulary = {word: number for number, word in enumerate([*_SPECIAL, *world.vocabulary()])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="<pad>",
        eos_token="</s>",
        model_max_length=MAX_TOKENS,
    )


def build_text_encoder(tokenizer: PreTrainedTokenizerFast) -> UMT5EncoderModel:
    """An untrained UMT5 encoder of two layers."""
    config = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=TEXT_DIM,
        d_kv=24,
        num_heads=4,
        d_ff=192,
        num_layers=2,
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return UMT5EncoderModel(config)


def embed(text_encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    """Prompt embeddings float [B, S=32, D], zero beyond each sentence."""
    tokens = tokenizer(list(texts), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    hidden_BSD: Tensor = text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    mask_BS: Tensor = tokens.attention_mask
    return hidden_BSD * mask_BS.unsqueeze(-1)


def draw_prompt(clip: world.Clip, rng: random.Random, *, drop_rate: float) -> str:
    """A caption of the clip, sometimes with unknown words in it; with `drop_rate` a prompt that stands for none."""
    if rng.random() < drop_rate:
        return rng.choice(world.NEGATIVES)
    words = world.caption(clip, rng).split(" ")
    if rng.random() < UNKNOWN_RATE:
        for _ in range(rng.randint(1, 3)):
            words.insert(rng.randint(0, len(words)), "[UNK]")
    return " ".join(words)
