"""diffusers' schedulers as solvers of one latent: what a scheduler keeps in its attributes becomes a latent's history.

A scheduler steps a whole tensor and counts its own steps. Here each latent has its own history and may be anywhere in
the schedule: a step copies the scheduler shallowly, lays the history into the copy, steps it, and reads it back.

Legend: x a latent, v a prediction (velocity of the flow: noise - clean), both float32 [C, h, w].
"""

import copy
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from serving.errors import ModelError
from serving.models.libraries import load_library
from serving.models.quiet import quiet_loading
from sharding.solver import History


class Memory(Protocol):
    """How one kind of scheduler remembers."""

    def unfit(self, config: Any) -> str | None:
        """Why a scheduler with this config cannot be used, or None."""
        ...

    def recall(self, scheduler: Any, history: History) -> None:
        """Sets the scheduler's attributes from a history; () is that before step 0."""
        ...

    def note(self, scheduler: Any) -> History:
        """The history that the scheduler's attributes hold."""
        ...


class EulerMemory:
    """FlowMatchEulerDiscreteScheduler: first order, remembers nothing."""

    def unfit(self, config: Any) -> str | None:
        if config.use_dynamic_shifting:
            return "its shift depends on the picture's size (use_dynamic_shifting)"
        if config.stochastic_sampling:
            return "it draws noise of its own (stochastic_sampling)"
        return None

    def recall(self, scheduler: Any, history: History) -> None:
        assert history == (), "Euler has no history"

    def note(self, scheduler: Any) -> History:
        return ()


class UniPCMemory:
    """UniPCMultistepScheduler: (clean predictions, oldest first; last sample; two counters)."""

    def unfit(self, config: Any) -> str | None:
        if config.prediction_type != "flow_prediction" or not config.use_flow_sigmas:
            return "it is not set up for flows (prediction_type flow_prediction, use_flow_sigmas true)"
        if config.use_dynamic_shifting:
            return "its shift depends on the picture's size (use_dynamic_shifting)"
        if config.thresholding or not config.predict_x0 or config.solver_p is not None:
            return "thresholding, solver_p and predict_x0 false are not supported"
        return None

    def recall(self, scheduler: Any, history: History) -> None:
        order = scheduler.config.solver_order
        # Only solver_p reads this list, but step writes into it, so the copy needs one of its own.
        scheduler.timestep_list = [None] * order
        if not history:
            history = (*[None] * order, None, 0, 0)
        *outputs, last_sample, lower_order_nums, this_order = history
        assert len(outputs) == order, "a history of another solver"
        scheduler.model_outputs = outputs
        scheduler.last_sample = last_sample
        scheduler.lower_order_nums = lower_order_nums
        scheduler.this_order = this_order

    def note(self, scheduler: Any) -> History:
        return (*scheduler.model_outputs, scheduler.last_sample, scheduler.lower_order_nums, scheduler.this_order)


MEMORIES: dict[str, Memory] = {
    "FlowMatchEulerDiscreteScheduler": EulerMemory(),
    "UniPCMultistepScheduler": UniPCMemory(),
}


class DiffusersSolver:
    """A scheduler of diffusers, `num_steps` steps long. Deterministic: `noise` is ignored. Raises ModelError."""

    def __init__(self, scheduler: Any, num_steps: int) -> None:
        class_name = type(scheduler).__name__
        if class_name not in MEMORIES:
            raise ModelError(f"Longtake cannot step a {class_name}; it knows {', '.join(MEMORIES)}")
        self._memory = MEMORIES[class_name]
        if (reason := self._memory.unfit(scheduler.config)) is not None:
            raise ModelError(f"Longtake cannot step this {class_name}: {reason}")
        if num_steps < 1:
            raise ValueError(f"a solver needs at least one step, not {num_steps}")
        self._scheduler = copy.deepcopy(scheduler)
        self._scheduler.set_timesteps(num_steps)
        self._timesteps: tuple[float, ...] = tuple(float(t) for t in self._scheduler.timesteps)

    @property
    def num_steps(self) -> int:
        return len(self._timesteps)

    def timestep(self, i: int) -> float:
        return self._timesteps[i]

    def level(self, i: int) -> float:
        return float(self._scheduler.sigmas[i])

    def step(self, i: int, x: Tensor, v: Tensor, history: History, noise: Tensor | None) -> tuple[Tensor, History]:
        scheduler = copy.copy(self._scheduler)
        scheduler._step_index = i
        self._memory.recall(scheduler, history)
        # A clone, because UniPC remembers the very tensor that it is given and the caller may reuse its own.
        after = scheduler.step(v, self._scheduler.timesteps[i], x.clone(), return_dict=False)[0]
        return after, self._memory.note(scheduler)

    def clean(self, i: int, x: Tensor, v: Tensor) -> Tensor:
        """The clean latents that a prediction at step i points to; every scheduler that is let in is one of flows."""
        return x - self.level(i) * v


def load_solver(folder: Path, class_name: str, num_steps: int) -> DiffusersSolver:
    """The solver described by a checkpoint's scheduler folder. Raises ModelError."""
    try:
        with quiet_loading():
            scheduler = getattr(load_library("diffusers"), class_name).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"cannot load {folder} as a {class_name}: {error}") from error
    return DiffusersSolver(scheduler, num_steps)
