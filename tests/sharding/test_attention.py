"""Attention on one device: packed sequences, blocks merged, nothing at all."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from sharding.attention import CpuFlash, choose_backend
from sharding.ring import merge_blocks

lengths = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@given(lengths, st.randoms(use_true_random=False))
def test_packed_sequences_see_only_their_own_keys(queries: list[int], chance: object) -> None:
    keys = [length + 1 for length in reversed(queries)]
    query, key, value = (random(1, sum(of), 3, 8) for of in (queries, keys, keys))
    # A block-diagonal mask, written out.
    mask = torch.block_diag(*(torch.ones(q, k) for q, k in zip(queries, keys, strict=True))).bool()
    query_h, key_h, value_h = (tensor.transpose(1, 2) for tensor in (query, key, value))
    expected = scaled_dot_product_attention(query_h, key_h, value_h, attn_mask=mask).transpose(1, 2)
    packed = CpuFlash().attend_packed(query, key, value, query_lengths=queries, key_lengths=keys)
    torch.testing.assert_close(packed, expected, rtol=0, atol=1e-6)


@given(st.integers(1, 20), st.integers(1, 20))
def test_two_blocks_merged_are_one(first: int, second: int) -> None:
    query, key, value = random(2, 5, 3, 8), random(2, first + second, 3, 8), random(2, first + second, 3, 8) + 1
    attend = CpuFlash().attend_block
    parts = [attend(query, key[:, part], value[:, part]) for part in (slice(first), slice(first, None))]
    out, lse = merge_blocks(*parts[0], *parts[1])
    expected, expected_lse = attend(query, key, value)
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(lse, expected_lse, rtol=0, atol=2e-5)


def test_scores_far_apart_are_merged_without_overflow() -> None:
    out, lse = merge_blocks(
        torch.ones(1, 1, 1, 2), torch.full((1, 1, 1), 900.0), torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1), -900.0)
    )
    assert torch.equal(out, torch.ones(1, 1, 1, 2))
    assert lse.item() == 900.0


def test_no_heads_and_no_keys_find_nothing() -> None:
    backend = CpuFlash()
    assert backend.attend(
        random(1, 4, 2, 8)[:, :, :0], random(1, 4, 2, 8)[:, :, :0], random(1, 4, 2, 8)[:, :, :0]
    ).shape == (1, 4, 0, 8)
    out, lse = backend.attend_block(random(1, 4, 2, 8), random(1, 1, 2, 8)[:, :0], random(1, 1, 2, 8)[:, :0])
    assert not out.any()
    assert bool((lse == -torch.inf).all())


def test_a_cpu_computes_by_the_kernel_that_knows_the_log_sum_exp() -> None:
    backend = choose_backend("cpu")
    assert (backend.name, backend.verified) == ("cpu_flash", True)
