"""Ring attention: keys and values go round the ranks, and each rank merges what its queries find in each block.

Ring Attention (arXiv 2310.01889) with the log-sum-exp merge of flash attention. The next block travels while the
present one is computed, so that two blocks of keys and values are resident: O(1/P) of all on P ranks. How they are
merged is chosen with the attention (sharding.attention.choose_backend).

Legend: B batch, s tokens held here, H heads, D numbers per head.
"""

import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

Found = tuple[Tensor, Tensor]
"""What queries find in one block of keys [B, s, H, D], and the log-sum-exp of their scores, float32 [B, s, H]."""

AttendBlock = Callable[[Tensor, Tensor, Tensor, Tensor | None], Found]
"""(query [B, s, H, D], key and value [B, t, H, D], their bias) -> what the queries find in this block."""


class Merge(Protocol):
    """A way to put together what the same queries find in several blocks. Deterministic on one device."""

    @property
    def name(self) -> str:
        """For the numerics key: two names may give different bits."""
        ...

    @property
    def verified(self) -> bool:
        """Whether a gang has used it on the hardware that it is for."""
        ...

    def __call__(self, found: Iterable[Found]) -> Tensor:
        """What is found in all blocks together, [B, s, H, D] in their dtype or float32. There is one at least; what is
        given may be written over."""
        ...


class OwnMerge:
    """Each block is merged as it comes, in float32: one result is kept, and the block that came last."""

    name = "own_merge"
    verified = True

    def __call__(self, found: Iterable[Found]) -> Tensor:
        blocks = iter(found)
        merged = _in_fp32(*next(blocks))
        for block in blocks:
            merged = merge_blocks(*merged, *block)
        return merged[0]


OWN_MERGE = OwnMerge()


class XformersMerge:
    """xformers' `merge_attentions`: one kernel for all blocks, in float32, rounded once to the blocks' dtype.

    It needs all of them: on P ranks P results are kept until the last has come. With the output that is P + 1 times the
    output's bytes, where ours takes three at half precision: the merge in float32 and the block that came last. Raises
    ImportError where xformers is not installed.
    """

    name = "xformers_merge"
    verified = False

    def __init__(self) -> None:
        self._merge_attentions: Any = importlib.import_module("xformers.ops.fmha").merge_attentions

    def __call__(self, found: Iterable[Found]) -> Tensor:
        blocks = list(found)
        outs = [out for out, _ in blocks]
        if len(outs) == 1 or outs[0].numel() == 0:
            return outs[0]
        assert all(out.stride(-1) == 1 for out in outs), "its kernel takes the numbers of a head to lie side by side"
        heads_first = [lse.transpose(1, 2) for _, lse in blocks]
        # Triton starts kernels on the current GPU, wherever the tensors are.
        with torch.cuda.device_of(outs[0]):
            merged: Tensor = self._merge_attentions(outs, heads_first, write_lse=False)[0]
        return merged


def ring_attention(
    query_BsHD: Tensor,
    key_BsHD: Tensor,
    value_BsHD: Tensor,
    *,
    group: ProcessGroup,
    key_sizes: Sequence[int],
    attend_block: AttendBlock,
    key_bias: Tensor | None = None,
    merge: Merge = OWN_MERGE,
) -> Tensor:
    """Attention of the tokens held here over those of all ranks of `group`, [B, s, H, D] in the queries' dtype.

    `key_sizes` are the keys that each rank holds; `key_bias`, [B, H or 1, all keys], lies on every rank. Merged in
    float32, each rank from its own block on. Raises ValueError if no rank has a key.
    """
    if not any(key_sizes):
        raise ValueError("there are no keys on any rank")
    found = find_in_blocks(
        query_BsHD,
        key_BsHD,
        value_BsHD,
        group=group,
        key_sizes=key_sizes,
        attend_block=attend_block,
        key_bias=key_bias,
    )
    return merge(found).to(query_BsHD.dtype)


def find_in_blocks(
    query_BsHD: Tensor,
    key_BsHD: Tensor,
    value_BsHD: Tensor,
    *,
    group: ProcessGroup,
    key_sizes: Sequence[int],
    attend_block: AttendBlock,
    key_bias: Tensor | None,
) -> Iterator[Found]:
    """What the queries find in each rank's keys, from this rank's own on; ranks without keys give nothing.

    All ranks must take it to its end. While one block is attended and merged the next travels: two are resident.
    """
    here, ranks = dist.get_rank(group), len(key_sizes)
    biases = [None] * ranks if key_bias is None else torch.split(key_bias, list(key_sizes), dim=2)
    block = torch.stack([key_BsHD, value_BsHD])
    for hop in range(ranks):
        owner = (here - hop) % ranks
        works: list[Any] = []
        arriving = block
        if hop + 1 < ranks:
            arriving = block.new_empty((2, block.shape[1], key_sizes[(owner - 1) % ranks], *block.shape[3:]))
            works = _pass_on(block, arriving, here=here, ranks=ranks, group=group)
        if block.shape[2]:
            yield attend_block(query_BsHD, block[0], block[1], biases[owner])
        for work in works:
            work.wait()
        block = arriving


def choose_merge(device: str) -> Merge:
    """How a GPU merges blocks: by xformers if it is installed and agrees with ours in trials there, else by ours.

    The trials make it safe: xformers' kernel is compiled on the spot, by whatever Triton came with torch.
    """
    try:
        theirs = XformersMerge()
        agrees = all(agrees_with_ours(theirs, trial, device) for trial in TRIALS)
    except Exception:  # whatever its build, Triton, the compiler and the GPU disagree about
        return OWN_MERGE
    return theirs if agrees else OWN_MERGE


@dataclass(frozen=True)
class Trial:
    """Random blocks to merge, the second of them with nothing to find in it for half of the queries."""

    blocks: int
    heads: int
    width: int
    dtype: torch.dtype


TRIALS = (
    Trial(blocks=2, heads=5, width=128, dtype=torch.bfloat16),
    Trial(blocks=3, heads=5, width=48, dtype=torch.float32),  # a width that is no power of two is masked in the kernel
    Trial(blocks=8, heads=40, width=128, dtype=torch.bfloat16),  # from 32 heads on it is compiled for fewer warps
)
TRIAL_ATOL = 2e-5
"""In float32 two orders of addition differ by 2e-6 at most in these trials."""


def agrees_with_ours(theirs: Merge, trial: Trial, device: str) -> bool:
    """Whether it gives what ours gives in float32, within TRIAL_ATOL and one step of the blocks' dtype."""
    random = torch.Generator().manual_seed(0)
    queries = 6
    found: list[Found] = []
    for index in range(trial.blocks):
        # Laid out as attention kernels leave them: heads before tokens, seen the other way round.
        out = torch.randn(1, trial.heads, queries, trial.width, generator=random).to(trial.dtype)
        lse = 5 * torch.randn(1, trial.heads, queries, generator=random)
        if index == 1:
            out[:, :, ::2], lse[:, :, ::2] = 0, -math.inf
        found.append((out.to(device).transpose(1, 2), lse.to(device).transpose(1, 2)))
    given = theirs(found).float()
    right = OWN_MERGE(found)  # the last, since it writes over the first block
    return torch.allclose(given, right, rtol=torch.finfo(trial.dtype).eps, atol=TRIAL_ATOL)


def merge_blocks(out: Tensor, lse: Tensor, other_out: Tensor, other_lse: Tensor) -> Found:
    """What queries find in two blocks of keys, from what they find in each; `out` and `lse` are float32 and reused.

    out [B, s, H, D] is softmax-weighted over its own block and lse [B, s, H] the log of that softmax's denominator, so
    the whole is the mean of both weighted by exp(lse) (FlashAttention, arXiv 2205.14135, section 3.1).
    """
    total = torch.logaddexp(lse, other_lse)
    out.mul_(torch.exp(lse - total).unsqueeze(-1))
    out.addcmul_(other_out, torch.exp(other_lse - total).unsqueeze(-1))  # no copy of other_out in float32
    return out, total


def _in_fp32(out: Tensor, lse: Tensor) -> Found:
    return out.float(), lse


def _pass_on(block: Tensor, arriving: Tensor, *, here: int, ranks: int, group: ProcessGroup) -> list[Any]:
    """Send a block to the next rank and take one from the rank before, both at once; NCCL needs them as one batch."""
    operations = [
        dist.P2POp(dist.isend, block, group=group, group_peer=(here + 1) % ranks),
        dist.P2POp(dist.irecv, arriving, group=group, group_peer=(here - 1) % ranks),
    ]
    return list(dist.batch_isend_irecv(operations))
