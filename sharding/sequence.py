"""Attention over a sequence whose tokens are split among the ranks of a gang, by whichever way its shape says."""

from collections.abc import Sequence

from torch import Tensor

from sharding.attention import AttentionBackend
from sharding.gang_groups import GangGroups
from sharding.gang_shape import split_sizes
from sharding.ring import ring_attention
from sharding.splits import gather_parts, part_of
from sharding.ulysses import ulysses_attention


def sequence_attention(
    query_BsHD: Tensor,
    key_BsHD: Tensor,
    value_BsHD: Tensor,
    *,
    groups: GangGroups,
    query_sizes: Sequence[int],
    key_sizes: Sequence[int],
    backend: AttentionBackend,
    key_bias: Tensor | None = None,
) -> Tensor:
    """Attention of the tokens held here over those of the whole sequence, [B, s, H, D]; all ranks call it at once.

    The sizes are the tokens that each part of the sequence has, of queries and of keys: shape.sequence numbers each.
    Hybrid of Ulysses and ring (USP, arXiv 2405.07719): Ulysses makes each of its groups one long block with some of
    the heads, and these blocks form the ring. If every rank holds all keys, as in cross-attention to a prompt,
    nothing need be exchanged: call the backend. `key_bias` [B, H or 1, s] is that of the keys held here; it is small,
    and gathered whole.
    """
    degree, ring = groups.shape.ulysses, groups.ring
    here = groups.shape.coordinates(groups.rank).ring * degree
    blocks = [sum(key_sizes[at : at + degree]) for at in range(0, len(key_sizes), degree)]

    bias = None if key_bias is None else _bias_of_my_heads(key_bias, query_BsHD.shape[2], groups, key_sizes)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if ring is None or query.shape[2] == 0:
            return backend.attend(query, key, value, bias)
        return ring_attention(
            query,
            key,
            value,
            group=ring,
            key_sizes=blocks,
            attend_block=backend.attend_block,
            key_bias=bias,
            merge=backend.merge,
        )

    if groups.ulysses is None:
        return attend(query_BsHD, key_BsHD, value_BsHD)
    return ulysses_attention(
        query_BsHD,
        key_BsHD,
        value_BsHD,
        group=groups.ulysses,
        query_sizes=query_sizes[here : here + degree],
        key_sizes=key_sizes[here : here + degree],
        attend=attend,
    )


def _bias_of_my_heads(bias_BHs: Tensor, heads: int, groups: GangGroups, key_sizes: Sequence[int]) -> Tensor:
    """[B, h or 1, all keys], from what each rank has of the keys; one for all heads stays one."""
    if groups.sequence is not None:
        bias_BHs = gather_parts(bias_BHs, dim=2, sizes=key_sizes, group=groups.sequence)
    if bias_BHs.shape[1] == 1:
        return bias_BHs
    mine = groups.shape.coordinates(groups.rank).ulysses
    return part_of(bias_BHs, dim=1, sizes=split_sizes(heads, groups.shape.ulysses), index=mine)
