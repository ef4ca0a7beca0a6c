"""CFG-parallel: the two guidance branches of a call on different ranks, which then exchange their predictions."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

PROMPTED, NEGATIVE = 0, 1
"""The branches, as GangShape numbers them."""


def share_branches(mine: Tensor, *, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """What the prompted and the negative branch predict, on both ranks of `group`, from what the own branch does."""
    both = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(both, mine.contiguous(), group=group)
    return both[PROMPTED], both[NEGATIVE]


def guide(prompted: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598): away from the negative prompt, `scale` times as far."""
    return negative + scale * (prompted - negative)
