"""The solvers that need no library: what a prediction says of the clean latent."""

import pytest
import torch

from sharding.solver import EulerSolver, TwoStepSolver, flow_sigmas

SHAPE = (3, 4, 2, 2)


@pytest.mark.parametrize("kind", [EulerSolver, TwoStepSolver])
def test_an_exact_prediction_points_to_the_clean_latents_from_every_step(
    kind: type[EulerSolver] | type[TwoStepSolver],
) -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)
    solver = kind(flow_sigmas(7, shift=3))
    for i, sigma in enumerate(solver.sigmas[:-1]):
        x = (1 - sigma) * clean + sigma * noise
        before = x.clone()
        assert torch.allclose(solver.clean(i, x, noise - clean), clean, atol=1e-5)
        assert torch.equal(x, before)


def test_the_last_step_of_euler_ends_at_the_estimate() -> None:
    solver = EulerSolver(flow_sigmas(5, shift=3))
    x, v = torch.ones(SHAPE), torch.full(SHAPE, 0.3)
    assert torch.allclose(solver.step(4, x, v, (), None)[0], solver.clean(4, x, v), atol=1e-6)
