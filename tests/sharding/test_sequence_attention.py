"""Attention split over ranks gives what one rank gives, for every shape, any number of tokens, any number of heads."""

import gc
import os
import signal
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sharding.attention import CpuFlash
from sharding.gang_groups import GangGroups
from sharding.gang_shape import GangShape, split_sizes
from sharding.ring import OWN_MERGE, Found, ring_attention
from sharding.sequence import sequence_attention
from sharding.splits import gather_parts, part_of
from testkit.ranks import Worlds, all_shapes, fresh_ranks

SHAPES = [shape for shape in all_shapes(4) if shape.cfg == 1]
FP32 = 2e-5
BF16 = 2e-2
"""bf16 has 8 bits of mantissa, so numbers about 1 are 2^-8 apart; a merge of several rounds each once."""


def inputs(
    seed: int, *, batch: int, queries: int, keys: int, heads: int, width: int, dtype: torch.dtype
) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    lengths = (queries, keys, keys)
    return [torch.randn(batch, length, heads, width, generator=random).to(dtype) for length in lengths]


def whole(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None) -> Tensor:
    """The definition, in float64."""
    scores = torch.einsum("bqhd,bkhd->bhqk", query.double(), key.double()) / query.shape[-1] ** 0.5
    if key_bias is not None:
        scores = scores + key_bias[:, :, None].double()
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value.double())


def bias_of(keys: int, batch: int, heads: int) -> Tensor:
    """Some keys count for nothing, whole blocks of a ring among them; others for more or less."""
    random = torch.Generator().manual_seed(keys)
    bias = torch.randn(batch, heads, keys, generator=random)
    hidden = torch.rand(batch, heads, keys, generator=random) < 0.4
    hidden[:, :, : keys // 3] = True
    hidden[:, :, -1] = False
    return bias.masked_fill(hidden, -10_000.0)


def attend_split(groups: GangGroups, what: dict[str, object], key_bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """In a rank: its part of the tokens attended with the others, and the whole put together again."""
    tensors = inputs(**what)  # type: ignore[arg-type]
    sizes = [split_sizes(tensor.shape[1], groups.shape.sequence) for tensor in tensors[:2]]
    parts = [
        part_of(tensor, dim=1, sizes=size, index=groups.sequence_index).contiguous()
        for tensor, size in zip(tensors, (sizes[0], sizes[1], sizes[1]), strict=True)
    ]
    if key_bias is not None:
        key_bias = part_of(key_bias, dim=2, sizes=sizes[1], index=groups.sequence_index)
    out = sequence_attention(
        *parts, groups=groups, query_sizes=sizes[0], key_sizes=sizes[1], backend=CpuFlash(), key_bias=key_bias
    )
    if groups.sequence is None:
        return out, out
    return out, gather_parts(out, dim=1, sizes=sizes[0], group=groups.sequence)


sizes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "batch": st.integers(1, 2),
        "queries": st.integers(1, 131),
        "keys": st.integers(1, 131),
        "heads": st.integers(1, 7),
        "width": st.sampled_from([8, 48]),
    }
)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(max_examples=25)
@given(what=sizes)
def test_any_number_of_tokens_and_heads_in_fp32(ranks: Worlds, shape: GangShape, what: dict[str, int]) -> None:
    case = {**what, "dtype": torch.float32}
    expected = whole(*inputs(**case))  # type: ignore[arg-type]
    for _, gathered in ranks[shape.ranks].run(attend_split, shape, case):
        torch.testing.assert_close(gathered.double(), expected, rtol=0, atol=FP32)


@pytest.mark.parametrize("heads_of_bias", [1, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_keys_that_count_for_less_do_so_on_every_rank(ranks: Worlds, shape: GangShape, heads_of_bias: int) -> None:
    case = {"seed": 3, "batch": 2, "queries": 31, "keys": 23, "heads": 5, "width": 8, "dtype": torch.float32}
    bias = bias_of(23, 2, heads_of_bias)
    query, key, value = inputs(**case)  # type: ignore[arg-type]
    expected = whole(query, key, value, key_bias=bias)
    for _, gathered in ranks[shape.ranks].run(attend_split, shape, case, bias):
        torch.testing.assert_close(gathered.double(), expected, rtol=0, atol=FP32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_prime_numbers_of_tokens_and_uneven_heads_in_bf16(ranks: Worlds, shape: GangShape) -> None:
    case = {"seed": 1, "batch": 2, "queries": 211, "keys": 211, "heads": 5, "width": 64, "dtype": torch.bfloat16}
    expected = whole(*inputs(**case))  # type: ignore[arg-type]
    for out, gathered in ranks[shape.ranks].run(attend_split, shape, case):
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(gathered.double(), expected, rtol=0, atol=BF16)


def test_ulysses_gives_the_very_bits_of_one_rank(ranks: Worlds) -> None:
    case = {"seed": 2, "batch": 1, "queries": 97, "keys": 97, "heads": 7, "width": 48, "dtype": torch.float32}
    expected = CpuFlash().attend(*inputs(**case))  # type: ignore[arg-type]
    for degree in (2, 3, 4):
        for _, gathered in ranks[degree].run(attend_split, GangShape(ulysses=degree), case):
            assert torch.equal(gathered, expected)


@pytest.mark.parametrize("shape", [GangShape(ring=3), GangShape(ulysses=2, ring=2)], ids=str)
def test_the_same_shape_gives_the_same_bits_again(ranks: Worlds, shape: GangShape) -> None:
    case = {"seed": 3, "batch": 1, "queries": 64, "keys": 64, "heads": 4, "width": 48, "dtype": torch.float32}
    first, again = (ranks[shape.ranks].run(attend_split, shape, case) for _ in range(2))
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(first, again, strict=True))


def merge_at_the_end(found: Iterable[Found]) -> Tensor:
    return OWN_MERGE(list(found))


def watch_resident_keys(groups: GangGroups, at_the_end: bool) -> tuple[int, int]:
    """In a rank: the most bytes of keys and values that a ring held at once, and what all of them would take."""
    assert groups.ring is not None
    tensors = inputs(0, batch=1, queries=60, keys=60, heads=2, width=16, dtype=torch.float32)
    sizes = split_sizes(60, groups.shape.ring)
    query, key, value = (part_of(one, dim=1, sizes=sizes, index=groups.sequence_index).contiguous() for one in tensors)
    resident: set[int] = set()
    most = 0

    def attend_block(
        query: Tensor, block_key: Tensor, block_value: Tensor, key_bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        nonlocal most
        storages = {
            one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
            for one in gc.get_objects()
            if type(one) is Tensor and one.ndim == 5
        }
        resident.update(storages)
        most = max(most, sum(storages.values()))
        return CpuFlash().attend_block(query, block_key, block_value, key_bias)

    merge: Any = merge_at_the_end if at_the_end else OWN_MERGE
    ring_attention(query, key, value, group=groups.ring, key_sizes=sizes, attend_block=attend_block, merge=merge)
    return most, sum(one.nbytes for one in tensors[1:])


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_ring_holds_two_blocks_of_keys_at_most_even_if_all_results_are_kept(ranks: Worlds, at_the_end: bool) -> None:
    for most, everything in ranks[4].run(watch_resident_keys, GangShape(ring=4), at_the_end):
        assert 0 < most <= 2 * everything / 4


def exchange(groups: GangGroups, times: int) -> str:
    """In a rank: attend repeatedly; the answer is the error that ended it."""
    tensors = inputs(0, batch=1, queries=16, keys=16, heads=4, width=8, dtype=torch.float32)
    try:
        for _ in range(times):
            sequence_attention(
                *tensors,
                groups=groups,
                query_sizes=[16] * groups.shape.sequence,
                key_sizes=[16] * groups.shape.sequence,
                backend=CpuFlash(),
            )
    except RuntimeError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("shape", [GangShape(ulysses=3), GangShape(ring=3)], ids=str)
@pytest.mark.parametrize("fault", ["dies", "hangs"])
def test_a_rank_that_dies_or_hangs_is_an_error_on_every_other_rank_in_time(shape: GangShape, fault: str) -> None:
    with fresh_ranks(3, timeout_s=3.0) as ranks:
        ranks.run(exchange, shape, 1)
        ranks.send(exchange, shape, 1_000_000)
        victim = ranks.processes[1]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL if fault == "dies" else signal.SIGSTOP)
        for rank in (0, 2):
            said = ranks.receive(rank, within_s=30)
            assert isinstance(said, str), said
            assert said != "", "it must have met an error"
