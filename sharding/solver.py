"""One solver step for one latent: the protocol, and two small solvers that need no library.

A solver is pure: what it remembers between steps is the latent's history, which the timeline keeps and checkpoints. One
history per latent, not per chunk, is what lets seams move from step to step under a multistep solver.

Legend: x a latent, v a prediction (velocity of the flow: noise - clean), both float32 [C, h, w].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

History = tuple[Tensor | int | float | None, ...]
"""What a solver remembers of one latent. Tensors and numbers only, so that it can be checkpointed; () before step 0."""


class Solver(Protocol):
    """Takes a latent from one noise level to the next. `step` must not change its arguments."""

    @property
    def num_steps(self) -> int: ...

    def timestep(self, i: int) -> float:
        """The time that the model is told at step i, 0..1000, large = noisy."""
        ...

    def level(self, i: int) -> float:
        """Share of noise in a latent at step i, 0..1: it is (1 - level) clean + level noise."""
        ...

    def step(self, i: int, x: Tensor, v: Tensor, history: History, noise: Tensor | None) -> tuple[Tensor, History]:
        """The latent after step i and its new history. `noise` is unit normal [C, h, w] for solvers that add some."""
        ...

    def clean(self, i: int, x: Tensor, v: Tensor) -> Tensor:
        """The clean latents that a prediction at step i points to: for previews. Of any leading shape."""
        ...


def flow_sigmas(num_steps: int, *, shift: float) -> tuple[float, ...]:
    """num_steps + 1 noise levels from 1 to 0, bent by `shift` (SD3, arXiv 2403.03206, eq. 23)."""
    if num_steps < 1:
        raise ValueError(f"a solver needs at least one step, not {num_steps}")
    straight = [1 - i / num_steps for i in range(num_steps + 1)]
    return tuple(shift * s / (1 + (shift - 1) * s) for s in straight)


@dataclass(frozen=True)
class _SigmaSolver:
    """What solvers on a list of noise levels have in common; `sigmas` falls from 1 to 0, num_steps + 1 of them."""

    sigmas: Sequence[float]

    @property
    def num_steps(self) -> int:
        return len(self.sigmas) - 1

    def timestep(self, i: int) -> float:
        return 1000.0 * self.sigmas[i]

    def level(self, i: int) -> float:
        return self.sigmas[i]

    def clean(self, i: int, x: Tensor, v: Tensor) -> Tensor:
        """x = (1 - sigma) clean + sigma noise and v = noise - clean, so x - sigma v is the clean latent."""
        return x - self.sigmas[i] * v


@dataclass(frozen=True)
class EulerSolver(_SigmaSolver):
    """x + (sigma' - sigma) v: first order, no history."""

    def step(self, i: int, x: Tensor, v: Tensor, history: History, noise: Tensor | None) -> tuple[Tensor, History]:
        return x + (self.sigmas[i + 1] - self.sigmas[i]) * v, history


@dataclass(frozen=True)
class TwoStepSolver(_SigmaSolver):
    """Adams-Bashforth of second order on uneven steps: remembers the last prediction (Hairer, Norsett, Wanner,
    Solving Ordinary Differential Equations I, III.5)."""

    def step(self, i: int, x: Tensor, v: Tensor, history: History, noise: Tensor | None) -> tuple[Tensor, History]:
        h = self.sigmas[i + 1] - self.sigmas[i]
        slope = v
        if history:
            before = history[0]
            assert isinstance(before, Tensor)
            ratio = h / (self.sigmas[i] - self.sigmas[i - 1])
            slope = (1 + ratio / 2) * v - (ratio / 2) * before
        return x + h * slope, (v.clone(),)


@dataclass(frozen=True)
class VisitingSolver:
    """Steps of other solvers one after another, by (solver, its step): a level may come again, a shorter solver first.

    Where a step does not follow from the one before, latents must come to it clean (`Recipe.renewed`).
    """

    visits: tuple[tuple[Solver, int], ...]

    @property
    def num_steps(self) -> int:
        return len(self.visits)

    def timestep(self, i: int) -> float:
        solver, k = self.visits[i]
        return solver.timestep(k)

    def level(self, i: int) -> float:
        solver, k = self.visits[i]
        return solver.level(k)

    def step(self, i: int, x: Tensor, v: Tensor, history: History, noise: Tensor | None) -> tuple[Tensor, History]:
        solver, k = self.visits[i]
        return solver.step(k, x, v, history, noise)

    def clean(self, i: int, x: Tensor, v: Tensor) -> Tensor:
        solver, k = self.visits[i]
        return solver.clean(k, x, v)
