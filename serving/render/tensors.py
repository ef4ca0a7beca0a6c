"""Arrays of messages as tensors of torch; who only passes messages on need not import it."""

import torch

from serving.render.messages import Array


def as_tensor(array: Array) -> torch.Tensor:
    """The same numbers for torch. It warns of read-only arrays, as those of other processes are: they are copied."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
