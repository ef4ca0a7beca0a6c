"""The run-length code of a timeline: exact while it is short, and never too far if it is not."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from serving.render.farm_messages import encode_runs


def decoded(runs: object) -> list[int]:
    return [step for step, length in runs for _ in range(length)]  # type: ignore[attr-defined]


@given(steps=st.lists(st.integers(0, 40), min_size=1, max_size=300), most=st.integers(1, 50))
def test_a_code_is_bounded_covers_every_latent_and_tells_none_too_far(steps: list[int], most: int) -> None:
    runs = encode_runs(steps, most=most)
    assert len(runs) <= most
    assert len(decoded(runs)) == len(steps)
    assert all(told <= reached for told, reached in zip(decoded(runs), steps, strict=True))
    assert all(one[0] != other[0] for one, other in itertools.pairwise(runs))


@given(steps=st.lists(st.integers(0, 3), max_size=50))
def test_what_is_short_enough_is_told_exactly(steps: list[int]) -> None:
    assert decoded(encode_runs(steps, most=50)) == steps
