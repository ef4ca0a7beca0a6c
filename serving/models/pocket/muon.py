"""Muon for many equal matrices: orthogonalised momentum, one batched product for all matrices of a shape.

Same update as torch.optim.Muon with adjust_lr_fn="match_rms_adamw" and without weight decay, which goes through the
matrices one by one: with 60 small matrices on two contended cores that costs several times as much.
K. Jordan et al., Muon, https://kellerjordan.github.io/posts/muon/; J. Liu et al., arXiv:2502.16982 (the rate's scale).

Legend: G matrices of one shape, R rows, C columns.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Quintic of the Newton-Schulz iteration, from the Muon post."""
ITERATIONS = 5


class BatchedMuon:
    """Optimises matrices only. `lr` may be changed between steps."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float = 0.95) -> None:
        self.lr = lr
        self.momentum = momentum
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.shape].append(parameter)
        self._stacks = list(by_shape.values())
        self._momenta = [torch.zeros(len(stack), *stack[0].shape) for stack in self._stacks]

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix from its gradient (Nesterov momentum) and clear the gradients."""
        for stack, momentum_GRC in zip(self._stacks, self._momenta, strict=True):
            gradient_GRC = torch.stack([torch.zeros_like(p) if p.grad is None else p.grad for p in stack])
            momentum_GRC.lerp_(gradient_GRC, 1 - self.momentum)
            update_GRC = orthogonalise(gradient_GRC.lerp(momentum_GRC, self.momentum))
            scale = -0.2 * self.lr * max(momentum_GRC.shape[1:]) ** 0.5  # root mean square as AdamW's
            torch._foreach_add_(stack, list(update_GRC.unbind(0)), alpha=scale)
            for parameter in stack:
                parameter.grad = None


def orthogonalise(matrices_GRC: Tensor) -> Tensor:
    """Each matrix with its singular values pushed towards one (Newton-Schulz in bfloat16); float32."""
    tall = matrices_GRC.shape[1] > matrices_GRC.shape[2]
    x = (matrices_GRC.mT if tall else matrices_GRC).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float()
