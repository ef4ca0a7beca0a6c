"""diffusers' schedulers, stepping one latent at a time, against the same schedulers stepping a whole tensor at once."""

import copy
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from serving.errors import ModelError
from serving.models.schedulers import DiffusersSolver
from sharding.solver import History, Solver

STEPS, NUM_LATENTS = 8, 5
SHAPE = (4, 3, 6)


def euler() -> Any:
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def unipc(**settings: Any) -> Any:
    defaults: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    return UniPCMultistepScheduler(**{**defaults, **settings})


SCHEDULERS = {
    "euler": euler,
    "unipc": unipc,
    "unipc of order 3": lambda: unipc(solver_order=3),
    # bh1 divides by the last sigma, so it must not be zero.
    "unipc bh1 without corrector at first": lambda: unipc(
        solver_type="bh1", disable_corrector=[0, 1], final_sigmas_type="sigma_min"
    ),
}
every_scheduler = pytest.mark.parametrize("build", SCHEDULERS.values(), ids=SCHEDULERS.keys())


def random_tensors(seed: int, count: int) -> Tensor:
    return torch.randn(count, NUM_LATENTS, *SHAPE, generator=torch.Generator().manual_seed(seed))


def run_latent(solver: Solver, x: Tensor, predictions: Tensor) -> tuple[Tensor, History]:
    history: History = ()
    for i in range(solver.num_steps):
        x, history = solver.step(i, x, predictions[i], history, None)
    return x, history


@every_scheduler
def test_latents_stepped_on_their_own_equal_the_scheduler_stepping_all_at_once(build: Any) -> None:
    solver, scheduler = DiffusersSolver(build(), STEPS), build()
    x_NChw, v_SNChw = random_tensors(0, 1)[0], random_tensors(1, STEPS)
    scheduler.set_timesteps(STEPS)
    scheduler.set_begin_index(0)

    expected = x_NChw.transpose(0, 1)[None]
    for t, v_NChw in zip(scheduler.timesteps, v_SNChw, strict=True):
        expected = scheduler.step(v_NChw.transpose(0, 1)[None], t, expected, return_dict=False)[0]
    ours = torch.stack([run_latent(solver, x_NChw[n], v_SNChw[:, n])[0] for n in range(NUM_LATENTS)])

    assert torch.allclose(ours, expected[0].transpose(0, 1), rtol=0, atol=1e-6)
    assert [solver.timestep(i) for i in range(STEPS)] == scheduler.timesteps.tolist()


@every_scheduler
def test_a_step_repeated_gives_the_same_bits_and_changes_none_of_its_arguments(build: Any) -> None:
    solver = DiffusersSolver(build(), STEPS)
    x, v_SChw = random_tensors(0, 1)[0, 0], random_tensors(1, STEPS)[:, 0]
    history: History = ()
    for i in range(STEPS):
        x_before, v_before, history_before = x.clone(), v_SChw[i].clone(), copy.deepcopy(history)
        first = solver.step(i, x, v_SChw[i], history, None)
        again = solver.step(i, x_before.clone(), v_before.clone(), copy.deepcopy(history_before), None)
        assert torch.equal(first[0], again[0])
        assert same_history(first[1], again[1])
        assert torch.equal(x, x_before)
        assert torch.equal(v_SChw[i], v_before)
        assert same_history(history, history_before)
        x, history = first


@every_scheduler
def test_latents_at_different_steps_share_one_solver(build: Any) -> None:
    solver = DiffusersSolver(build(), STEPS)
    x_NChw, v_SNChw = random_tensors(0, 1)[0], random_tensors(1, STEPS)
    alone, _ = run_latent(solver, x_NChw[0], v_SNChw[:, 0])

    x = x_NChw[0]
    history: History = ()
    for i in range(STEPS):
        run_latent(solver, x_NChw[1], v_SNChw[:, 1])
        x, history = solver.step(i, x, v_SNChw[i, 0], history, None)

    assert torch.equal(x, alone)


@every_scheduler
def test_a_history_remembers_nothing_that_its_caller_may_overwrite(build: Any) -> None:
    solver = DiffusersSolver(build(), STEPS)
    x, v = random_tensors(0, 1)[0, 0], random_tensors(1, 1)[0, 0]
    after, history = solver.step(0, x, v, (), None)
    expected_after, expected_history = after.clone(), copy.deepcopy(history)

    x.zero_()
    v.zero_()

    assert torch.equal(after, expected_after)
    assert same_history(history, expected_history)


@every_scheduler
def test_a_history_holds_tensors_and_numbers_only(build: Any) -> None:
    _, history = run_latent(DiffusersSolver(build(), STEPS), random_tensors(0, 1)[0, 0], random_tensors(1, STEPS)[:, 0])
    assert all(entry is None or isinstance(entry, Tensor | int | float) for entry in history)


@every_scheduler
def test_an_exact_prediction_points_to_the_clean_latents_from_every_step(build: Any) -> None:
    solver, scheduler = DiffusersSolver(build(), STEPS), build()
    scheduler.set_timesteps(STEPS)
    clean_NChw, noise_NChw = random_tensors(0, 2)
    for i, sigma in enumerate(scheduler.sigmas[:STEPS].tolist()):
        x_NChw = (1 - sigma) * clean_NChw + sigma * noise_NChw
        assert torch.allclose(solver.clean(i, x_NChw, noise_NChw - clean_NChw), clean_NChw, atol=1e-5)


def test_the_estimate_is_the_one_that_unipc_remembers() -> None:
    solver = DiffusersSolver(unipc(), STEPS)
    x, v_SChw = random_tensors(0, 1)[0, 0], random_tensors(1, STEPS)[:, 0]
    history: History = ()
    for i in range(STEPS):
        estimate = solver.clean(i, x, v_SChw[i])
        x, history = solver.step(i, x, v_SChw[i], history, None)
        newest = history[1]
        assert isinstance(newest, Tensor)
        assert torch.allclose(estimate, newest, atol=1e-6)


@pytest.mark.parametrize(
    ("scheduler", "complaint"),
    [
        (DDIMScheduler(), "cannot step a DDIMScheduler; it knows FlowMatchEulerDiscreteScheduler, UniPCMultistep"),
        (UniPCMultistepScheduler(), "not set up for flows"),
        (unipc(thresholding=True), "thresholding"),
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "use_dynamic_shifting"),
        (FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), "stochastic_sampling"),
    ],
)
def test_a_scheduler_that_cannot_be_stepped_is_refused(scheduler: Any, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        DiffusersSolver(scheduler, STEPS)


def same_history(one: History, other: History) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for a, b in zip(one, other, strict=True)
    )
