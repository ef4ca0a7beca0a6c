"""The process groups of one gang: who talks to whom. The ranks' torch.distributed world is the gang."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import ProcessGroup

from sharding.gang_shape import GangShape


@dataclass(frozen=True)
class GangGroups:
    """One rank's place in its gang. A group is None if it would hold this rank alone."""

    shape: GangShape
    rank: int
    cfg: ProcessGroup | None = None
    """Ranks with the same tokens, one for each guidance branch."""
    ulysses: ProcessGroup | None = None
    ring: ProcessGroup | None = None
    sequence: ProcessGroup | None = None
    """Ranks that hold all tokens of one guidance branch together, in the order of the tokens."""

    @property
    def sequence_index(self) -> int:
        return self.shape.sequence_index(self.rank)


ALONE = GangGroups(GangShape(), 0)
"""A gang of one rank."""


def make_groups(shape: GangShape, *, timeout: timedelta) -> GangGroups:
    """The groups of a gang that is the whole torch.distributed world; called by all its ranks at once.

    A rank that waits longer than `timeout` for another in one exchange gets an error. Raises ValueError if the world
    is of another size.
    """
    if shape.ranks == 1:
        return GangGroups(shape, 0)
    world, rank = dist.get_world_size(), dist.get_rank()
    if world != shape.ranks:
        raise ValueError(f"a gang of shape {shape} has {shape.ranks} ranks, not {world}")

    def mine(of: Iterable[list[int]]) -> ProcessGroup | None:
        """The group that holds this rank; every rank takes part in making every group, in the same order."""
        made = [(ranks, dist.new_group(ranks, timeout=timeout)) for ranks in of if len(ranks) > 1]
        return next((group for ranks, group in made if rank in ranks), None)

    parts = shape.sequence
    branches = [list(range(start, start + parts)) for start in range(0, world, parts)]
    return GangGroups(
        shape,
        rank,
        cfg=mine([branch[at] for branch in branches] for at in range(parts)),
        ulysses=mine(branch[at : at + shape.ulysses] for branch in branches for at in range(0, parts, shape.ulysses)),
        ring=mine(branch[at :: shape.ulysses] for branch in branches for at in range(shape.ulysses)),
        sequence=mine(branches),
    )
