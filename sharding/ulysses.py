"""Ulysses: every rank exchanges its tokens of all heads for all tokens of some heads, attends, and exchanges back.

DeepSpeed Ulysses (arXiv 2309.14509), for any number of tokens and heads. One message to each peer before, one after.

Legend: B batch, s tokens held here, S tokens of all ranks, H heads, h heads attended here, D numbers per head.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from sharding.gang_shape import split_sizes
from sharding.splits import cat_rows


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
    batch, _, heads, width = query_BsHD.shape
    head_sizes = list(split_sizes(heads, len(query_sizes)))
    mine = head_sizes[here]
    split = [torch.split(tensor, head_sizes, dim=2) for tensor in (query_BsHD, key_BsHD, value_BsHD)]
    sent = [cat_rows([tensor[peer] for tensor in split]) for peer in range(len(head_sizes))]
    # From each peer: its queries, keys and values of my heads.
    counts = [batch * (queries + 2 * keys) * mine * width for queries, keys in zip(query_sizes, key_sizes, strict=True)]
    received = query_BsHD.new_empty(sum(counts))
    dist.all_to_all_single(received, torch.cat(sent), counts, [part.numel() for part in sent], group=group)
    tokens: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for block, queries, keys in zip(torch.split(received, counts), query_sizes, key_sizes, strict=True):
        numbers = [batch * length * mine * width for length in (queries, keys, keys)]
        for into, part, length in zip(tokens, torch.split(block, numbers), (queries, keys, keys), strict=True):
            into.append(part.view(batch, length, mine, width))
    query_BShD, key_BShD, value_BShD = (torch.cat(parts, dim=1) for parts in tokens)
    attended_BShD = attend(query_BShD, key_BShD, value_BShD)
    return _send_back(attended_BShD, group=group, sizes=query_sizes, head_sizes=head_sizes, here=here)


def _send_back(
    attended_BShD: Tensor, *, group: ProcessGroup, sizes: Sequence[int], head_sizes: Sequence[int], here: int
) -> Tensor:
    """All tokens of my heads for my tokens of all heads."""
    batch, _, _, width = attended_BShD.shape
    sent = cat_rows(torch.split(attended_BShD, list(sizes), dim=1))
    counts = [batch * sizes[here] * heads * width for heads in head_sizes]
    received = attended_BShD.new_empty(sum(counts))
    given = [batch * size * head_sizes[here] * width for size in sizes]
    dist.all_to_all_single(received, sent, counts, given, group=group)
    parts = zip(torch.split(received, counts), head_sizes, strict=True)
    return torch.cat([part.view(batch, sizes[here], heads, width) for part, heads in parts], dim=2)
