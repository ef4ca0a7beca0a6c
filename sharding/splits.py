"""Tensors that are shared out among ranks, evenly or not, and put together again."""

from collections.abc import Sequence

import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup


def part_of(whole: Tensor, *, dim: int, sizes: Sequence[int], index: int) -> Tensor:
    """A view of part `index` of a tensor along `dim`. Raises ValueError if the sizes are of another length."""
    if sum(sizes) != whole.shape[dim]:
        raise ValueError(f"parts of {sum(sizes)} in all do not make up dimension {dim} of {(*whole.shape,)}")
    return whole.narrow(dim, sum(sizes[:index]), sizes[index])


def gather_parts(part: Tensor, *, dim: int, sizes: Sequence[int], group: ProcessGroup) -> Tensor:
    """The whole of which each rank of `group` holds a part along `dim`, on every rank.

    Sent as an all-to-all of every part to everyone: gloo's all_gather refuses parts of different size, and padding
    would send more.
    """
    rows = part.movedim(dim, 0).contiguous()
    ranks = dist.get_world_size(group)
    row = rows[0].numel() if len(rows) else rows.new_empty((1, *rows.shape[1:])).numel()
    sent = rows.reshape(-1).repeat(ranks)
    received = rows.new_empty(sum(sizes) * row)
    dist.all_to_all_single(received, sent, [size * row for size in sizes], [rows.numel()] * ranks, group=group)
    return received.view(sum(sizes), *rows.shape[1:]).movedim(0, dim)
