"""Attention on one device, with the log-sum-exp that a ring merges by; one function chooses how it is computed.

Everything is [B, S, H, D]: batch, tokens, heads, numbers per head. Queries and keys may have different numbers of
tokens; scores are scaled by 1/sqrt(D). The only mask is `key_bias`, float32 [B, H or 1, keys]: it is added to the
scores of every query, as for the padding of a prompt.
"""

import importlib
import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from sharding.ring import OWN_MERGE, Merge, choose_merge

HOPPER = (9, 0)
"""Compute capability of the H100 and H200."""


class AttentionBackend(Protocol):
    """A way to compute attention. Deterministic on one device."""

    @property
    def name(self) -> str:
        """For the numerics key: two names may give different bits. A merge that is not our own is part of it."""
        ...

    @property
    def verified(self) -> bool:
        """Whether it has run and been compared with another, on the hardware that it is for; of `merge` that says."""
        ...

    @property
    def merge(self) -> Merge:
        """How a ring merges what `attend_block` finds."""
        ...

    def attend(self, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """[B, S, H, D] of the queries' shape and dtype."""
        ...

    def attend_block(
        self, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same over one block of keys, and the log-sum-exp of the scores, float32 [B, S, H]."""
        ...

    def attend_packed(
        self, query: Tensor, key: Tensor, value: Tensor, *, query_lengths: Sequence[int], key_lengths: Sequence[int]
    ) -> Tensor:
        """Several sequences behind each other in one batch of 1, each attending to its own keys alone."""
        ...


class CpuFlash:
    """torch's flash attention on a CPU. Its bits depend neither on the number of heads nor on that of queries."""

    name = "cpu_flash"
    verified = True
    merge: Merge = OWN_MERGE

    def attend(self, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None) -> Tensor:
        return self.attend_block(query, key, value, key_bias)[0]

    def attend_block(
        self, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if 0 in query.shape or 0 in key.shape:  # the kernel divides by zero
            return _of_nothing(query, key)
        heads_first = (tensor.transpose(1, 2) for tensor in (query, key, value))
        mask = None if key_bias is None else key_bias[:, :, None].to(query.dtype)
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*heads_first, attn_mask=mask)
        return out.transpose(1, 2), lse.transpose(1, 2)

    def attend_packed(
        self, query: Tensor, key: Tensor, value: Tensor, *, query_lengths: Sequence[int], key_lengths: Sequence[int]
    ) -> Tensor:
        parts = zip(
            torch.split(query, list(query_lengths), dim=1),
            torch.split(key, list(key_lengths), dim=1),
            torch.split(value, list(key_lengths), dim=1),
            strict=True,
        )
        return torch.cat([self.attend(*part) for part in parts], dim=1)


class TorchCuda(CpuFlash):
    """torch's own kernels on a GPU: whichever scaled_dot_product_attention picks, and flash attention for blocks."""

    kernel = "torch_cuda"
    verified = True  # on an H200: benchmarks/RESULTS.md; but for key_bias, which no GPU has run

    def __init__(self, merge: Merge = OWN_MERGE) -> None:
        self.merge = merge
        self.name = self.kernel if merge.name == OWN_MERGE.name else f"{self.kernel}+{merge.name}"

    def attend(self, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None) -> Tensor:
        if 0 in query.shape:
            return torch.empty_like(query)
        query_t, key_t, value_t = (tensor.transpose(1, 2) for tensor in (query, key, value))
        mask = None if key_bias is None else key_bias[:, :, None].to(query.dtype)
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(query_t, key_t, value_t, attn_mask=mask).transpose(1, 2)

    def attend_block(
        self, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if 0 in query.shape or 0 in key.shape:
            return _of_nothing(query, key)
        heads_first = [tensor.transpose(1, 2) for tensor in (query, key, value)]
        if key_bias is not None:
            return self._biased_block(heads_first, key_bias)
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(*heads_first)
        return out.transpose(1, 2), lse.transpose(1, 2)

    def _biased_block(self, heads_first: Sequence[Tensor], key_bias: Tensor) -> tuple[Tensor, Tensor]:
        """By the kernel that takes a bias. It wants rows of it aligned to 16 numbers, and pads its log-sum-exp."""
        query, key, _ = heads_first
        queries, keys = query.shape[2], key.shape[2]
        rows = torch.nn.functional.pad(key_bias.to(query.dtype), (0, -keys % 16))[:, :, None, :keys]
        bias = rows.expand(*query.shape[:2], queries, keys)
        out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(*heads_first, bias, True)
        return out.transpose(1, 2), lse[..., :queries].transpose(1, 2)


class CudnnCuda(TorchCuda):
    """cuDNN's attention, as torch brings it: half precision alone."""

    kernel = "torch_cudnn"

    def attend(self, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None) -> Tensor:
        if key_bias is not None:
            return super().attend(query, key, value, key_bias)
        return self._cudnn(query, key, value, with_lse=False)[0]

    def attend_block(
        self, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if key_bias is not None:
            return super().attend_block(query, key, value, key_bias)
        return self._cudnn(query, key, value, with_lse=True)

    def _cudnn(self, query: Tensor, key: Tensor, value: Tensor, *, with_lse: bool) -> tuple[Tensor, Tensor]:
        if 0 in query.shape or 0 in key.shape:
            return _of_nothing(query, key)
        heads_first = (tensor.transpose(1, 2) for tensor in (query, key, value))
        out, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(*heads_first, None, with_lse)
        return out.transpose(1, 2), lse.reshape(lse.shape[:3]).transpose(1, 2) if with_lse else lse


class Xformers(TorchCuda):
    """xformers on a GPU: flash attention with its log-sum-exp for blocks, a block-diagonal mask for what is packed."""

    kernel = "xformers"

    def __init__(self, merge: Merge = OWN_MERGE) -> None:
        super().__init__(merge)
        self._fmha: Any = importlib.import_module("xformers.ops.fmha")

    def attend(self, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None) -> Tensor:
        if 0 in query.shape or key_bias is not None:
            return super().attend(query, key, value, key_bias)
        out: Tensor = self._fmha.memory_efficient_attention(query, key, value)
        return out

    def attend_block(
        self, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if 0 in query.shape or 0 in key.shape or key_bias is not None:
            return super().attend_block(query, key, value, key_bias)
        out, lse = self._fmha.memory_efficient_attention_partial(query, key, value)
        return out, lse.transpose(1, 2)

    def attend_packed(
        self, query: Tensor, key: Tensor, value: Tensor, *, query_lengths: Sequence[int], key_lengths: Sequence[int]
    ) -> Tensor:
        mask = self._fmha.attn_bias.BlockDiagonalMask.from_seqlens(list(query_lengths), list(key_lengths))
        out: Tensor = self._fmha.memory_efficient_attention(query, key, value, attn_bias=mask)
        return out


def choose_backend(device: str, *, rings: bool = True) -> AttentionBackend:
    """How attention is computed on a device, and how a ring's blocks are merged there.

    On a GPU: cuDNN from Hopper on, where it is 1.7 times as fast as flash attention (benchmarks/RESULTS.md); before
    that xformers if it is installed and works, else torch's own kernels. Each is merged by xformers where that
    passes its trial. The first choice on a machine compiles the trial's kernels; without `rings` nothing is merged, so
    nothing is tried.
    """
    if not device.startswith("cuda"):
        return CpuFlash()
    merge = choose_merge(device) if rings else OWN_MERGE
    if torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= HOPPER:
        return CudnnCuda(merge)
    return Xformers(merge) if has_xformers() else TorchCuda(merge)


def has_xformers() -> bool:
    """Whether `longtake[cuda]` is installed and, where there is a GPU, works on it: if it cannot load its library,
    which wants CUDA 12's runtime, it can be imported all the same, and then refuses every call."""
    try:
        importlib.import_module("xformers.ops.fmha")
        if torch.cuda.is_available():
            tiny = torch.zeros(1, 8, 1, 64, device="cuda", dtype=torch.bfloat16)
            Xformers().attend_block(tiny, tiny, tiny)
    except Exception:  # it raises whatever its build and torch's disagree about
        return False
    return True


def _of_nothing(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """What queries find if there are none, or no keys: nothing, with no weight."""
    lse = query.new_full(query.shape[:3], -math.inf, dtype=torch.float32)
    return torch.zeros_like(query), lse
