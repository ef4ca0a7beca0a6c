"""Ulysses: every rank exchanges its tokens of all heads for all tokens of some heads, attends, and exchanges back.

DeepSpeed Ulysses (arXiv 2309.14509), for any number of tokens and heads. Messages hold tokens before batches, so that
what arrives from all ranks is the whole sequence as it lies in memory: each number is copied once before it is sent,
and results once after they came.

Legend: B batch, s tokens held here, S tokens of all ranks, H heads, h heads attended here, D numbers per head.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from sharding.gang_shape import split_sizes


def ulysses_attention(
    query_BsHD: Tensor,
    key_BsHD: Tensor,
    value_BsHD: Tensor,
    *,
    group: ProcessGroup,
    query_sizes: Sequence[int],
    key_sizes: Sequence[int],
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """Attention of the tokens held here over those of all ranks of `group`, [B, s, H, D].

    The sizes are the tokens that each rank holds, of queries and of keys. `attend` is given [B, S, h, D] thrice and
    answers [B, S_query, h, D]; a rank may have no head at all (h = 0).
    """
    here = dist.get_rank(group)
    head_sizes = split_sizes(query_BsHD.shape[2], len(query_sizes))
    each = zip((query_BsHD, key_BsHD, value_BsHD), (query_sizes, key_sizes, key_sizes), strict=True)
    # All three are on their way before the first is waited for: one is copied while another travels.
    under_way = [_give_heads(part, sizes, head_sizes, group=group, here=here) for part, sizes in each]
    wholes = [_arrived(*under_way.pop(0)).transpose(0, 1) for _ in range(3)]
    attended_BShD = attend(*wholes)
    return _give_tokens(attended_BShD.transpose(0, 1), query_sizes, head_sizes, group=group, here=here)


def _give_heads(
    part_BsHD: Tensor, sizes: Sequence[int], head_sizes: Sequence[int], *, group: ProcessGroup, here: int
) -> tuple[Tensor, Any]:
    """Begin to exchange tokens held here, of all heads, for all tokens of my heads, [S, B, h, D]."""
    batch, tokens, _, width = part_BsHD.shape
    sent = part_BsHD.new_empty(part_BsHD.numel())
    counts = [tokens * batch * heads * width for heads in head_sizes]
    first = 0
    for into, heads in zip(torch.split(sent, counts), head_sizes, strict=True):
        into.view(tokens, batch, heads, width).copy_(part_BsHD[:, :, first : first + heads].transpose(0, 1))
        first += heads
    mine = batch * head_sizes[here] * width
    whole_SBhD = part_BsHD.new_empty((sum(sizes), batch, head_sizes[here], width))
    arriving = [size * mine for size in sizes]
    work = dist.all_to_all_single(whole_SBhD.view(-1), sent, arriving, counts, group=group, async_op=True)
    return whole_SBhD, work


def _arrived(whole_SBhD: Tensor, work: Any) -> Tensor:
    """The tensor, once it is there; what was sent for it is let go with `work`."""
    work.wait()
    return whole_SBhD


def _give_tokens(
    attended_SBhD: Tensor, sizes: Sequence[int], head_sizes: Sequence[int], *, group: ProcessGroup, here: int
) -> Tensor:
    """Exchange all tokens of my heads for my tokens of all heads, [B, s, H, D]."""
    _, batch, mine, width = attended_SBhD.shape
    counts = [sizes[here] * batch * heads * width for heads in head_sizes]
    received = attended_SBhD.new_empty(sum(counts))
    given = [size * batch * mine * width for size in sizes]
    dist.all_to_all_single(received, attended_SBhD.contiguous().view(-1), counts, given, group=group)
    out_sBHD = attended_SBhD.new_empty((sizes[here], batch, sum(head_sizes), width))
    first = 0
    for part, heads in zip(torch.split(received, counts), head_sizes, strict=True):
        out_sBHD[:, :, first : first + heads] = part.view(sizes[here], batch, heads, width)
        first += heads
    return out_sBHD.transpose(0, 1)
