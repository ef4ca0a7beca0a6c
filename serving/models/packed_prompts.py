"""Both guidance branches in one pass although their prompts have different lengths.

The prompts lie behind each other, and in cross-attention each sample of the batch sees only its own: a block-diagonal
mask, which a backend may have a kernel for (xformers' BlockDiagonalMask). Nothing is padded, so nothing padded is
attended to.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from serving.errors import ModelError
from sharding.attention import AttentionBackend


class PackedPrompts:
    """The cross-attentions of one transformer of the Wan family. Outside of `together` they are as they were."""

    def __init__(self, transformer: nn.Module, backend: AttentionBackend) -> None:
        self._backend = backend
        self._lengths: tuple[int, ...] = ()
        attentions: Iterable[Any] = transformer.modules()
        for attention in attentions:
            if getattr(attention, "is_cross_attention", False):
                attention.processor = _Packed(self, attention.processor)

    @contextmanager
    def together(self, prompts: Sequence[Tensor]) -> Iterator[Tensor]:
        """What the transformer is given in place of a batch of prompts [tokens, dim]: [batch, tokens, dim] where they
        are of one length, else [1, all tokens, dim], which is understood inside the block."""
        lengths = tuple(len(prompt) for prompt in prompts)
        if len(set(lengths)) == 1:
            yield torch.stack(list(prompts))
            return
        self._lengths = lengths
        try:
            yield torch.cat(list(prompts))[None]
        finally:
            self._lengths = ()

    def attend(self, query_BsHD: Tensor, key_1LHD: Tensor, value_1LHD: Tensor) -> Tensor:
        """[B, s, H, D]: each sample over its own part of the L tokens."""
        batch, tokens = query_BsHD.shape[:2]
        assert batch == len(self._lengths), "as many prompts as samples"
        packed = self._backend.attend_packed(
            query_BsHD.flatten(0, 1)[None], key_1LHD, value_1LHD,
            query_lengths=[tokens] * batch, key_lengths=self._lengths,
        )  # fmt: skip
        return packed.reshape(query_BsHD.shape)

    @property
    def packing(self) -> bool:
        return bool(self._lengths)


class _Packed:
    """An attention processor in the place of another."""

    def __init__(self, packed: PackedPrompts, plain: Any) -> None:
        self._packed = packed
        self._plain = plain

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Any = None,
    ) -> Any:
        if not self._packed.packing:
            return self._plain(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        if attn.add_k_proj is not None or attention_mask is not None or encoder_hidden_states is None:
            raise ModelError("prompts of different length share a pass only where a prompt is all that is attended to")
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(encoder_hidden_states)).unflatten(2, (attn.heads, -1))
        value = attn.to_v(encoder_hidden_states).unflatten(2, (attn.heads, -1))
        attended = self._packed.attend(query, key, value).flatten(2, 3).type_as(query)
        for part in attn.to_out:
            attended = part(attended)
        return attended
