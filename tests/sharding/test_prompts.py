"""A prompt change inside a take is a blend over four latents, not a switch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.prompts import BLEND_LATENTS, prompt_weights
from sharding.spans import LatentSpan


@given(st.sets(st.integers(0, 80), max_size=6), st.integers(0, 80), st.integers(1, 30))
def test_prompts_weigh_one_in_all_at_every_latent(changes: set[int], start: int, length: int) -> None:
    span = LatentSpan(start, start + length)
    parts = prompt_weights(sorted(changes), span)
    total = sum((np.array(weights) for _, weights in parts), np.zeros(length))
    assert total == pytest.approx(np.ones(length), abs=1e-6)
    assert all(min(weights) >= 0 and max(weights) > 0 for _, weights in parts)
    assert [index for index, _ in parts] == sorted({index for index, _ in parts})


@given(st.sets(st.integers(0, 80), max_size=6), st.integers(0, 60), st.integers(1, 30))
def test_a_window_weighs_prompts_as_the_whole_take_does(changes: set[int], start: int, length: int) -> None:
    whole = dict(prompt_weights(sorted(changes), LatentSpan(0, 90)))
    window = dict(prompt_weights(sorted(changes), LatentSpan(start, start + length)))
    for index, weights in whole.items():
        part = weights[start : start + length]
        assert window.get(index, [0.0] * length) == part


def test_away_from_a_change_one_prompt_is_predicted() -> None:
    assert [index for index, _ in prompt_weights([20], LatentSpan(0, 18))] == [0]
    assert [index for index, _ in prompt_weights([20], LatentSpan(22, 30))] == [1]


def test_the_blend_is_centred_on_the_change_and_as_long_as_stated() -> None:
    (_, before), (_, after) = prompt_weights([20], LatentSpan(10, 30))
    assert before == pytest.approx(after[::-1])
    assert sum(a > 0 and b > 0 for a, b in zip(before, after, strict=True)) == BLEND_LATENTS


@pytest.mark.parametrize("changes", [[5, 5], [7, 3]])
def test_changes_that_do_not_ascend_are_refused(changes: list[int]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        prompt_weights(changes, LatentSpan(0, 10))
