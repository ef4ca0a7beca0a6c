"""How a ring's blocks are merged: ours bit for bit as ever, xformers' if it is there and a trial agrees, else ours.

No GPU is needed: `merge_attentions` is written out here as xformers documents it, and its own kernel runs in Triton's
interpreter where Triton is installed.
"""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sharding.attention import CpuFlash, CudnnCuda, TorchCuda, choose_backend
from sharding.gang_groups import GangGroups
from sharding.gang_shape import GangShape, split_sizes
from sharding.ring import (
    OWN_MERGE,
    Found,
    XformersMerge,
    choose_merge,
    find_in_blocks,
    merge_blocks,
    ring_attention,
)
from sharding.sequence import sequence_attention
from sharding.splits import part_of
from testkit.ranks import Worlds

BESIDE = Path(sys.prefix) / "xformers"


def documented(
    attn_split: Sequence[Tensor],
    lse_split: Sequence[Tensor],
    write_lse: bool = True,
    output_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Lists of [B, M, H, K] and of [B, H, M] -> sum(Out * exp(LSE)) / sum(exp(LSE)), and the LSE of all."""
    batch, queries, heads, _ = attn_split[0].shape
    assert all(out.shape == attn_split[0].shape for out in attn_split)
    assert all(lse.shape == (batch, heads, queries) for lse in lse_split)
    lses = torch.stack(list(lse_split)).double()
    total = lses.logsumexp(0)
    weights = (lses - total).exp().transpose(2, 3).unsqueeze(-1)
    out = (weights * torch.stack(list(attn_split)).double()).sum(0)
    return out.to(output_dtype or attn_split[0].dtype), total.float() if write_lse else None


def mean(outs: Sequence[Tensor], lses: Sequence[Tensor], write_lse: bool = True) -> tuple[Tensor, None]:
    return torch.stack(list(outs)).mean(0), None


def base_two(outs: Sequence[Tensor], lses: Sequence[Tensor], write_lse: bool = True) -> tuple[Tensor, None]:
    return documented(outs, [lse * math.log(2) for lse in lses])[0], None


def all_but_one(outs: Sequence[Tensor], lses: Sequence[Tensor], write_lse: bool = True) -> tuple[Tensor, None]:
    return documented(outs[:7], lses[:7])[0], None


def no_number(outs: Sequence[Tensor], lses: Sequence[Tensor], write_lse: bool = True) -> tuple[Tensor, None]:
    return outs[0] * math.nan, None


def in_bf16(outs: Sequence[Tensor], lses: Sequence[Tensor], write_lse: bool = True) -> tuple[Tensor, None]:
    """Rounded after every block."""
    parts = list(zip(outs, (lse.transpose(1, 2) for lse in lses), strict=True))
    out, lse = parts[0]
    for other in parts[1:]:
        merged, lse = merge_blocks(out.float(), lse, *other)
        out = merged.bfloat16()
    return out.to(outs[0].dtype), None


def refusing(*_: object, **named: object) -> tuple[Tensor, None]:
    raise RuntimeError("no kernel image is available for execution on the device")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., object]], None]:
    """Gives xformers a `merge_attentions`."""

    def put(merge_attentions: Callable[..., object]) -> None:
        for name in ("xformers", "xformers.ops", "xformers.ops.fmha"):
            module = ModuleType(name)
            module.merge_attentions = merge_attentions  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, name, module)

    return put


def blocks_of(number: int, *, dtype: torch.dtype = torch.float32, queries: int = 5) -> list[Found]:
    random = torch.Generator().manual_seed(number)
    return [
        (
            torch.randn(2, queries, 3, 8, generator=random).to(dtype),
            9 * torch.randn(2, queries, 3, generator=random),
        )
        for _ in range(number)
    ]


def copies(found: Iterable[Found]) -> list[Found]:
    return [(out.clone(), lse.clone()) for out, lse in found]


# ---------------------------------------------------------------------------------------------------- the choice


def test_without_xformers_ours_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xformers.ops.fmha", None)
    with pytest.raises(ImportError):
        XformersMerge()
    assert choose_merge("cpu") is OWN_MERGE


def test_xformers_merges_where_its_trials_agree_with_ours(install: Callable[..., None]) -> None:
    install(documented)
    chosen = choose_merge("cpu")
    assert (chosen.name, chosen.verified) == ("xformers_merge", False)


@pytest.mark.parametrize("wrong", [mean, base_two, all_but_one, no_number, in_bf16, refusing])
def test_ours_merges_where_xformers_gives_something_else_or_refuses(
    install: Callable[..., None], wrong: Callable[..., object]
) -> None:
    install(wrong)
    assert choose_merge("cpu") is OWN_MERGE


def test_a_gpu_that_is_not_there_is_no_reason_to_trust_xformers(install: Callable[..., None]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    install(documented)
    assert choose_merge("cuda") is OWN_MERGE


def test_a_merge_that_is_not_ours_is_part_of_the_name_of_the_attention(install: Callable[..., None]) -> None:
    install(documented)
    merge = XformersMerge()
    assert (CudnnCuda(merge).name, TorchCuda(merge).name) == ("torch_cudnn+xformers_merge", "torch_cuda+xformers_merge")
    assert (CudnnCuda().name, TorchCuda().name) == ("torch_cudnn", "torch_cuda")
    assert CudnnCuda(merge).merge is merge


def test_attention_on_a_gpu_is_merged_by_what_was_chosen_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def choose(device: str) -> object:
        asked.append(device)
        return OWN_MERGE

    monkeypatch.setattr("sharding.attention.choose_merge", choose)
    choose_backend("cpu")
    assert asked == [], "a CPU's bits do not hang on what is installed"
    assert choose_backend("cuda").merge is OWN_MERGE
    assert asked == ["cuda"]


# ---------------------------------------------------------------------------------------------------- the values


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(number=st.integers(1, 8), queries=st.integers(0, 9))
def test_both_merges_give_what_the_definition_does(dtype: torch.dtype, number: int, queries: int) -> None:
    found = blocks_of(number, dtype=dtype, queries=queries)
    lses = torch.stack([lse for _, lse in found]).double()
    outs = torch.stack([out for out, _ in found]).double()
    expected = (lses.softmax(0).unsqueeze(-1) * outs).sum(0)
    theirs = XformersMerge.__new__(XformersMerge)
    theirs._merge_attentions = documented
    torch.testing.assert_close(theirs(copies(found)).double(), expected, rtol=torch.finfo(dtype).eps, atol=2e-5)
    ours = OWN_MERGE(found)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=2e-5)


def test_numbers_of_a_head_that_lie_apart_are_not_given_to_xformers(install: Callable[..., None]) -> None:
    install(documented)
    apart = [(torch.randn(1, 5, 8, 3).transpose(2, 3), torch.zeros(1, 5, 3)) for _ in range(2)]
    with pytest.raises(AssertionError, match="side by side"):
        XformersMerge()(apart)


def parts_here(groups: GangGroups, keys: int, dtype: torch.dtype) -> tuple[list[Tensor], tuple[int, ...]]:
    random = torch.Generator().manual_seed(7)
    wholes = [torch.randn(1, length, 3, 16, generator=random).to(dtype) for length in (29, keys, keys)]
    sizes = [split_sizes(whole.shape[1], groups.shape.ring) for whole in wholes]
    return [
        part_of(whole, dim=1, sizes=size, index=groups.sequence_index).contiguous()
        for whole, size in zip(wholes, sizes, strict=True)
    ], sizes[1]


def attend_and_fold(groups: GangGroups, keys: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """In a rank: what a ring gives, and the same from all keys at hand, each block folded in as a ring meets it."""
    assert groups.ring is not None
    parts, sizes = parts_here(groups, keys, dtype)
    ring = ring_attention(*parts, group=groups.ring, key_sizes=sizes, attend_block=CpuFlash().attend_block)
    random = torch.Generator().manual_seed(7)
    _, key, value = (torch.randn(1, length, 3, 16, generator=random).to(dtype) for length in (29, keys, keys))
    blocks = list(zip(key.split(sizes, dim=1), value.split(sizes, dim=1), strict=True))
    folded: Found | None = None
    for hop in range(len(sizes)):
        block = blocks[(groups.rank - hop) % len(sizes)]
        if block[0].shape[1]:
            out, lse = CpuFlash().attend_block(parts[0], *(one.contiguous() for one in block))
            folded = (out.float(), lse) if folded is None else merge_blocks(*folded, out, lse)
    assert folded is not None
    return ring, folded[0].to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keys", [2, 31])
def test_a_ring_on_cpus_folds_blocks_in_float32_from_its_own_on(ranks: Worlds, keys: int, dtype: torch.dtype) -> None:
    for ring, folded in ranks[3].run(attend_and_fold, GangShape(ring=3), keys, dtype):
        assert ring.dtype == dtype
        assert torch.equal(ring, folded)


# ---------------------------------------------------------------------------------------------------- the ring


def keep_all(found: Iterable[Found]) -> tuple[list[Found], Tensor]:
    blocks = list(found)
    return blocks, OWN_MERGE(copies(blocks))


def find_and_merge(groups: GangGroups, keys: int) -> tuple[int, Tensor, Tensor]:
    """In a rank: how many blocks it found something in, what they are together, and what a ring says."""
    assert groups.ring is not None
    parts, sizes = parts_here(groups, keys, torch.float32)
    named = {"group": groups.ring, "key_sizes": sizes, "attend_block": CpuFlash().attend_block}
    blocks, merged = keep_all(find_in_blocks(*parts, **named, key_bias=None))  # type: ignore[arg-type]
    return len(blocks), merged, ring_attention(*parts, **named)  # type: ignore[arg-type]


@pytest.mark.parametrize(("keys", "expected"), [(31, 3), (2, 2)])
def test_blocks_that_are_kept_and_merged_at_the_end_are_the_same(ranks: Worlds, keys: int, expected: int) -> None:
    for found, merged, ring in ranks[3].run(find_and_merge, GangShape(ring=3), keys):
        assert found == expected, "a rank without keys gives no block"
        assert torch.equal(merged, ring)


def attend_as_documented(groups: GangGroups) -> tuple[Tensor, Tensor]:
    """In a rank: a ring merged as xformers documents it, and by ours."""
    assert groups.ring is not None
    parts, sizes = parts_here(groups, 31, torch.float32)
    theirs = XformersMerge.__new__(XformersMerge)
    theirs._merge_attentions = documented
    named = {"group": groups.ring, "key_sizes": sizes, "attend_block": CpuFlash().attend_block}
    one = ring_attention(*parts, **named, merge=theirs)  # type: ignore[arg-type]
    return one, ring_attention(*parts, **named)  # type: ignore[arg-type]


def test_a_ring_is_merged_by_what_it_is_given(ranks: Worlds) -> None:
    for theirs, ours in ranks[3].run(attend_as_documented, GangShape(ring=3)):
        torch.testing.assert_close(theirs, ours, rtol=0, atol=2e-5)
        assert not torch.equal(theirs, ours), "float64 rounds otherwise"


def attend_by_backend(groups: GangGroups) -> list[str]:
    """In a rank: the names of the merges that its attention used."""
    used: list[str] = []

    class Noted(XformersMerge):
        def __init__(self) -> None:
            self._merge_attentions = documented

        def __call__(self, found: Iterable[Found]) -> Tensor:
            used.append(self.name)
            return super().__call__(found)

    backend = CpuFlash()
    backend.merge = Noted()
    parts = [torch.ones(1, 4, 2, 8)] * 3
    sizes = [4] * groups.shape.sequence
    sequence_attention(*parts, groups=groups, query_sizes=sizes, key_sizes=sizes, backend=backend)
    return used


@pytest.mark.parametrize("shape", [GangShape(ring=2), GangShape(ulysses=2)], ids=str)
def test_the_merge_of_the_backend_is_the_one_that_a_ring_uses(ranks: Worlds, shape: GangShape) -> None:
    expected = ["xformers_merge"] * (shape.ring > 1)
    assert ranks[2].run(attend_by_backend, shape) == [expected] * 2


def attend_to_nothing(groups: GangGroups) -> str:
    assert groups.ring is not None
    query, none = torch.zeros(1, 4, 1, 8), torch.zeros(1, 0, 1, 8)
    try:
        ring_attention(query, none, none, group=groups.ring, key_sizes=[0, 0], attend_block=CpuFlash().attend_block)
    except ValueError as error:
        return str(error)
    return ""


def test_no_keys_on_any_rank_is_an_error_on_all(ranks: Worlds) -> None:
    assert ranks[2].run(attend_to_nothing, GangShape(ring=2)) == ["there are no keys on any rank"] * 2


# ---------------------------------------------------------------------------------------------------- the kernel

PROGRAM = """
import random

import torch
from xformers.ops.fmha import triton_splitk

from sharding.ring import OWN_MERGE, choose_merge

assert choose_merge("cpu") is OWN_MERGE, "its kernel is for GPUs"
kernel = triton_splitk.merge_attentions_varargs
kernel.register_kernel("cpu")(kernel._init_fn)
theirs = choose_merge("cpu")
assert theirs.name == "xformers_merge", "its trials disagree with ours"
torch.manual_seed(0)
chance = random.Random(0)
for dtype, numbers in ((torch.float32, (2, 8)), (torch.bfloat16, (3,))):  # the interpreter takes seconds for each
    for number in numbers:
        size = chance.randint(1, 2), chance.randint(1, 7), chance.randint(1, 20), chance.choice([16, 24, 64, 128])
        outs = [torch.randn(size).to(dtype).transpose(1, 2) for _ in range(number)]
        lses = [9 * torch.randn(size[:3]).transpose(1, 2) for _ in range(number)]
        gone = chance.randrange(number)
        outs[gone][:, ::2], lses[gone][:, ::2] = 0, -torch.inf
        found = list(zip(outs, lses))
        given, right = theirs(found), OWN_MERGE(found)
        assert given.dtype == dtype
        # The interpreter cuts numbers off where a GPU rounds them.
        torch.testing.assert_close(given.float(), right, rtol=torch.finfo(dtype).eps, atol=2e-5)
print("the same")
"""


@pytest.mark.skipif(
    not (BESIDE / "triton").exists(),
    reason="xformers and triton are not beside the environment: rm .venv/ready && make check",
)
def test_the_kernel_of_xformers_itself_gives_what_ours_does_in_tritons_interpreter() -> None:
    paths = [str(Path.cwd()), str(BESIDE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout == "the same\n", done.stderr
