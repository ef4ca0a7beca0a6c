"""Noise is a function of its keys, unit normal, and shares exactly as much identity as asked."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharding.noise import initial_noise, renewed_noise, unit_normal

SHAPE = (4, 6, 8)


def noise(num_latents: int = 20, **changes: Any) -> torch.Tensor:
    arguments: dict[str, Any] = {"storyboard_seed": 1, "take_seed": 1, "take_key": "open", "window": 8, "identity": 0.3}
    return initial_noise(SHAPE, num_latents=num_latents, **(arguments | changes))


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_longer_take_starts_with_the_noise_of_a_shorter_one(a: int, b: int) -> None:
    short, long = sorted((a, b))
    assert torch.equal(noise(short), noise(long)[:short])


@pytest.mark.parametrize("change", [{"take_seed": 2}, {"take_key": "turn"}])
def test_another_seed_or_take_gives_other_noise(change: dict[str, Any]) -> None:
    assert not torch.equal(noise(), noise(**change))


def test_without_identity_the_storyboard_seed_is_not_looked_at() -> None:
    assert torch.equal(noise(identity=0.0), noise(identity=0.0, storyboard_seed=9))


@pytest.mark.parametrize("rho", [0.0, 0.3, 1.0])
def test_every_window_is_independent_unit_normal(rho: float) -> None:
    draws = torch.stack([noise(16, identity=rho, take_seed=s, storyboard_seed=s) for s in range(400)])
    window = draws[:, 5:13].flatten(2)  # [draws, latents, numbers]
    assert abs(float(window.mean())) < 0.01
    assert abs(float(window.std()) - 1) < 0.01
    assert abs(float((window**4).mean()) - 3) < 0.1
    correlation = torch.einsum("dnx,dmx->nm", window, window) / (window.shape[0] * window.shape[2])
    assert float((correlation - torch.eye(8)).abs().max()) < 0.03


def test_takes_share_as_much_noise_as_identity_says() -> None:
    for rho in (0.0, 0.3, 1.0):
        a = torch.stack([noise(8, identity=rho, storyboard_seed=s, take_key="a") for s in range(200)])
        b = torch.stack([noise(8, identity=rho, storyboard_seed=s, take_key="b") for s in range(200)])
        assert abs(float((a * b).mean()) - rho) < 0.02


def renewed(n: int, step: int, **changes: Any) -> torch.Tensor:
    arguments: dict[str, Any] = {"storyboard_seed": 1, "take_seed": 1, "take_key": "open", "window": 8, "identity": 0.3}
    return renewed_noise(SHAPE, n, step, **(arguments | changes))


def test_new_noise_is_another_at_every_step_and_shared_among_takes_as_the_first_is() -> None:
    for rho in (0.0, 0.3, 1.0):
        draws = [
            torch.stack(
                [renewed(n, step, identity=rho, storyboard_seed=s, take_seed=s, take_key=key) for s in range(200)]
            )
            for n, step, key in ((9, 5, "a"), (9, 5, "b"), (9, 6, "a"), (10, 5, "a"))
        ]
        first = torch.stack(
            [noise(10, identity=rho, storyboard_seed=s, take_seed=s, take_key="a")[9] for s in range(200)]
        )
        a, b, later, next_latent = draws
        assert abs(float((a * b).mean()) - rho) < 0.03
        assert abs(float(a.std()) - 1) < 0.02
        for other in (later, next_latent, first):
            assert abs(float((a * other).mean())) < 0.03


def test_the_bits_are_the_same_with_every_release() -> None:
    values = unit_normal((4,), "take", 7, "open", 0)
    assert values.dtype == torch.float32
    assert [round(float(v), 5) for v in values] == [0.73785, 1.78732, -0.56415, 1.42437]


@pytest.mark.parametrize("rho", [-0.1, 1.5])
def test_an_identity_outside_zero_to_one_is_refused(rho: float) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        noise(identity=rho)
