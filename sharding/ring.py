"""Ring attention: keys and values go round the ranks, and each rank merges what its queries find in each block.

Ring Attention (arXiv 2310.01889) with the log-sum-exp merge of flash attention. The next block travels while the
present one is computed, so that two blocks are resident: O(1/P) of all keys and values on P ranks.

Legend: B batch, s tokens held here, H heads, D numbers per head.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

AttendBlock = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""(query [B, s, H, D], key and value [B, t, H, D], their bias) -> what the queries find in this block [B, s, H, D], and
the log-sum-exp of their scores, float32 [B, s, H]."""


def ring_attention(
    query_BsHD: Tensor,
    key_BsHD: Tensor,
    value_BsHD: Tensor,
    *,
    group: ProcessGroup,
    key_sizes: Sequence[int],
    attend_block: AttendBlock,
    key_bias: Tensor | None = None,
) -> Tensor:
    """Attention of the tokens held here over those of all ranks of `group`, [B, s, H, D] in the queries' dtype.

    `key_sizes` are the keys that each rank holds; `key_bias`, [B, H or 1, all keys], lies on every rank. Merged in
    float32, each rank from its own block on.
    """
    here, ranks = dist.get_rank(group), len(key_sizes)
    biases = [None] * ranks if key_bias is None else torch.split(key_bias, list(key_sizes), dim=2)
    block = torch.stack([key_BsHD, value_BsHD])
    merged: tuple[Tensor, Tensor] | None = None
    for hop in range(ranks):
        owner = (here - hop) % ranks
        works: list[Any] = []
        arriving = block
        if hop + 1 < ranks:
            arriving = block.new_empty((2, block.shape[1], key_sizes[(owner - 1) % ranks], *block.shape[3:]))
            works = _pass_on(block, arriving, here=here, ranks=ranks, group=group)
        if block.shape[2]:
            found = attend_block(query_BsHD, block[0], block[1], biases[owner])
            merged = _in_fp32(*found) if merged is None else merge_blocks(*merged, *found)
        for work in works:
            work.wait()
        block = arriving
    if merged is None:
        raise ValueError("there are no keys on any rank")
    return merged[0].to(query_BsHD.dtype)


def merge_blocks(out: Tensor, lse: Tensor, other_out: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """What queries find in two blocks of keys, from what they find in each; `out` and `lse` are float32 and reused.

    out [B, s, H, D] is softmax-weighted over its own block and lse [B, s, H] the log of that softmax's denominator, so
    the whole is the mean of both weighted by exp(lse) (FlashAttention, arXiv 2205.14135, section 3.1).
    """
    total = torch.logaddexp(lse, other_lse)
    out.mul_(torch.exp(lse - total).unsqueeze(-1))
    out.addcmul_(other_out, torch.exp(other_lse - total).unsqueeze(-1))  # no copy of other_out in float32
    return out, total


def _in_fp32(out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    return out.float(), lse


def _pass_on(block: Tensor, arriving: Tensor, *, here: int, ranks: int, group: ProcessGroup) -> list[Any]:
    """Send a block to the next rank and take one from the rank before, both at once; NCCL needs them as one batch."""
    operations = [
        dist.P2POp(dist.isend, block, group=group, group_peer=(here + 1) % ranks),
        dist.P2POp(dist.irecv, arriving, group=group, group_peer=(here - 1) % ranks),
    ]
    return list(dist.batch_isend_irecv(operations))
