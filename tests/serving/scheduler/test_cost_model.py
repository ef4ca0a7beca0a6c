"""What calls cost: guessed first, then learned from what was measured, whatever the machine does meanwhile."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.scheduler.cost_model import COST_SAMPLES, MAX_COST_KEYS, MAX_COST_SIZES, CostModel, Curve
from serving.settings import FIRST_GUESS_S

SECONDS = st.floats(1e-4, 1e5)


def observe(costs: CostModel, seconds: float, *, times: int = 1, latents: int = 10, evaluations: int = 1) -> None:
    for _ in range(times):
        costs.observe("key", latents=latents, evaluations=evaluations, seconds=seconds)


def expected(costs: CostModel, *, latents: int = 10, evaluations: int = 1) -> float:
    return costs.seconds("key", latents=latents, evaluations=evaluations)


def test_nothing_known_is_guessed_by_size() -> None:
    costs = CostModel()
    assert expected(costs, latents=10) == pytest.approx(10 * FIRST_GUESS_S)
    assert expected(costs, latents=10, evaluations=3) == pytest.approx(30 * FIRST_GUESS_S)
    assert not costs.is_measured("key")


def test_a_curve_that_is_told_is_expected_until_something_is_measured() -> None:
    costs = CostModel()
    costs.guess("key", Curve(linear_s=2.0, quadratic_s=0.5, overhead_s=1.0))
    assert expected(costs, latents=4) == 1 + 4 * 2 + 16 * 0.5
    observe(costs, 34.0, latents=4)
    assert expected(costs, latents=4) == pytest.approx(34.0)


@given(SECONDS, st.integers(1, 500), st.integers(1, 5))
def test_one_measured_call_is_expected_again(seconds: float, latents: int, evaluations: int) -> None:
    costs = CostModel()
    observe(costs, seconds, latents=latents, evaluations=evaluations)
    assert costs.is_measured("key")
    assert expected(costs, latents=latents, evaluations=evaluations) == pytest.approx(seconds)


@given(st.lists(SECONDS, max_size=40), SECONDS)
def test_what_was_measured_lately_is_learned_whatever_was_before(before: list[float], seconds: float) -> None:
    costs = CostModel()
    for one in before:
        observe(costs, one)
    observe(costs, seconds, times=COST_SAMPLES)
    assert expected(costs) == pytest.approx(seconds)


@given(st.lists(st.floats(1e-4, 1e4), max_size=(COST_SAMPLES - 1) // 2))
def test_a_few_strange_calls_change_nothing(strange: list[float]) -> None:
    costs = CostModel()
    observe(costs, 5.0, times=COST_SAMPLES)
    for one in strange:
        observe(costs, one)
    assert expected(costs) == pytest.approx(5.0)


def test_sizes_are_learned_apart_where_enough_was_seen_of_them() -> None:
    costs = CostModel()
    observe(costs, 1.0, times=5, latents=10)
    observe(costs, 9.0, times=5, latents=20)
    assert expected(costs, latents=10) == pytest.approx(1.0)
    assert expected(costs, latents=20) == pytest.approx(9.0)
    assert 1.0 < expected(costs, latents=15) < 15.0


@given(st.integers(1, 400), st.integers(1, 400))
def test_longer_calls_of_a_size_never_seen_cost_more(one: int, other: int) -> None:
    costs = CostModel()
    observe(costs, 3.0, times=4, latents=1000)
    assert (expected(costs, latents=one) < expected(costs, latents=other)) == (one < other)


def test_keys_are_learned_apart() -> None:
    costs = CostModel()
    observe(costs, 3.0)
    assert costs.seconds("other", latents=10, evaluations=1) == pytest.approx(10 * FIRST_GUESS_S)


@given(st.floats(allow_nan=False, allow_infinity=False, max_value=1e300))
def test_whatever_a_clock_says_the_estimate_stays_a_positive_number(seconds: float) -> None:
    costs = CostModel()
    observe(costs, seconds)
    assert 0 < expected(costs) < math.inf


@given(st.lists(st.tuples(SECONDS, st.integers(1, 30), st.integers(1, 3)), max_size=60))
def test_what_was_learned_survives_the_store(calls: list[tuple[float, int, int]]) -> None:
    costs = CostModel()
    for seconds, latents, evaluations in calls:
        observe(costs, seconds, latents=latents, evaluations=evaluations)
    again = CostModel()
    again.load(json.loads(json.dumps(costs.dump())))
    assert again.is_measured("key") == costs.is_measured("key")
    for latents in range(1, 31):
        for evaluations in (1, 2, 3):
            told = expected(again, latents=latents, evaluations=evaluations)
            assert told == pytest.approx(expected(costs, latents=latents, evaluations=evaluations))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
CURVE = st.fixed_dictionaries(dict.fromkeys(("linear_s", "quadratic_s", "overhead_s"), st.floats() | JSON))
DUMPED = st.fixed_dictionaries(
    {
        "curve": CURVE | JSON,
        "ratios": st.lists(st.floats(), max_size=3) | JSON,
        "sizes": st.lists(st.tuples(st.integers(), st.integers(), st.lists(st.floats(), max_size=3)).map(list)) | JSON,
        "errors": st.lists(st.floats(), max_size=3) | JSON,
    }
)


@given(DUMPED | JSON)
def test_what_cannot_be_read_is_left_out(value: Any) -> None:
    costs = CostModel()
    costs.load({"key": value, "old": [-3.0, 10, 0.1]})
    assert not costs.is_measured("old")
    for latents in (1, 10, 500):
        assert expected(costs, latents=latents) > 0
    observe(costs, 1.0)
    assert costs.is_measured("key")


def test_no_more_keys_and_sizes_are_kept_than_a_bound() -> None:
    costs = CostModel()
    observe(costs, 1.0)
    for index in range(MAX_COST_KEYS):
        costs.observe(f"key {index}", latents=1, evaluations=1, seconds=1.0)
    assert len(costs.dump()) == MAX_COST_KEYS
    assert not costs.is_measured("key"), "the one measured longest ago is let go"
    assert costs.is_measured("key 0")
    for latents in range(1, 2 * MAX_COST_SIZES):
        observe(costs, 1.0, latents=latents)
    assert len(costs.dump()["key"]["sizes"]) == MAX_COST_SIZES
