"""The two guidance branches on different ranks."""

import torch
from torch import Tensor

from sharding.gang_groups import GangGroups
from sharding.gang_shape import GangShape
from sharding.guidance import guide, share_branches
from testkit.ranks import Worlds


def predict_own_branch(groups: GangGroups) -> tuple[Tensor, Tensor]:
    """In a rank: a number that only its branch knows, exchanged."""
    assert groups.cfg is not None
    place = groups.shape.coordinates(groups.rank)
    mine = torch.tensor([10.0 * place.cfg + groups.sequence_index])
    return share_branches(mine, group=groups.cfg)


def test_both_ranks_of_the_same_tokens_know_both_branches(ranks: Worlds) -> None:
    for rank, (prompted, negative) in enumerate(ranks[4].run(predict_own_branch, GangShape(cfg=2, ulysses=2))):
        assert (prompted.item(), negative.item()) == (rank % 2, 10 + rank % 2)


def test_guidance_of_one_is_the_prompted_branch() -> None:
    prompted, negative = torch.tensor([2.0]), torch.tensor([1.0])
    assert guide(prompted, negative, 1.0) == 2.0
    assert guide(prompted, negative, 3.0) == 4.0
