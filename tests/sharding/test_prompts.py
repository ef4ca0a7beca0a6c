"""A prompt change inside a take is a blend over four latents, not a switch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharding.prompts import BLEND_LATENTS, prompt_weights
from sharding.spans import LatentSpan


@given(st.sets(st.integers(0, 80), max_size=6), st.integers(0, 80), st.integers(1, 30))
def test_prompts_weigh_one_in_all_at_every_latent(changes: set[int], start: int, length: int) -> None:
    span = LatentSpan(start, start + length)
    parts = prompt_weights(sorted(changes), span)
    total = sum((weights for _, weights in parts), torch.zeros(length))
    assert torch.allclose(total, torch.ones(length), atol=1e-6)
    assert all(bool((weights >= 0).all()) and bool((weights > 0).any()) for _, weights in parts)
    assert [index for index, _ in parts] == sorted({index for index, _ in parts})


@given(st.sets(st.integers(0, 80), max_size=6), st.integers(0, 60), st.integers(1, 30))
def test_a_window_weighs_prompts_as_the_whole_take_does(changes: set[int], start: int, length: int) -> None:
    whole = dict(prompt_weights(sorted(changes), LatentSpan(0, 90)))
    window = dict(prompt_weights(sorted(changes), LatentSpan(start, start + length)))
    for index, weights in whole.items():
        part = weights[start : start + length]
        assert torch.equal(window.get(index, torch.zeros(length)), part)


def test_away_from_a_change_one_prompt_is_predicted() -> None:
    assert [index for index, _ in prompt_weights([20], LatentSpan(0, 18))] == [0]
    assert [index for index, _ in prompt_weights([20], LatentSpan(22, 30))] == [1]


def test_the_blend_is_centred_on_the_change_and_as_long_as_stated() -> None:
    (_, before), (_, after) = prompt_weights([20], LatentSpan(10, 30))
    assert torch.allclose(before, after.flip(0))
    assert int(((before > 0) & (after > 0)).sum()) == BLEND_LATENTS


@pytest.mark.parametrize("changes", [[5, 5], [7, 3]])
def test_changes_that_do_not_ascend_are_refused(changes: list[int]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        prompt_weights(changes, LatentSpan(0, 10))
