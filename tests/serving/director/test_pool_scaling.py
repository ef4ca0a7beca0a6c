"""What the Director measures of gangs that start, and what it says of those that are not there yet."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config.farm import PoolConfig, ScalingConfig
from serving.director.pools.pool_scaling import COLD_START_SAMPLES, PoolScaling
from serving.settings import COLD_START_S

SCALED = PoolConfig(min_gangs=0, max_gangs=8, scaling=ScalingConfig())
DECISION = {"gangs": 3, "reason": "3 gangs: because", "decided_at": 1.0}


def new_scaling(config: PoolConfig = SCALED) -> PoolScaling:
    return PoolScaling(config, config.terms)


def standing(target: int, decision: Any = None) -> dict[str, Any]:
    return {"target": target, "decision": decision}


def test_a_start_lasts_from_asking_for_a_gang_to_its_first_hello() -> None:
    scaling = new_scaling()
    scaling.hear(standing(0), 100.0)
    assert scaling.cold_start_s == COLD_START_S, "nothing was measured"
    scaling.hear(standing(2), 110.0)
    assert scaling.gang_came("a", 130.0)
    assert not scaling.gang_came("a", 140.0), "it is the same gang, formed anew"
    assert scaling.gang_came("b", 150.0)
    assert scaling.cold_start_s == 30.0
    assert not scaling.gang_came("c", 160.0), "nobody asked for it: it replaces another"


def test_gangs_that_are_asked_for_no_more_are_waited_for_no_more() -> None:
    scaling = new_scaling()
    scaling.hear(standing(0), 0.0)
    scaling.hear(standing(1), 10.0)
    scaling.hear(standing(3), 20.0)
    scaling.hear(standing(1), 30.0)
    assert scaling.gang_came("a", 50.0)
    assert scaling.cold_start_s == 40.0, "the one that was asked for first"
    assert not scaling.gang_came("b", 60.0)


def test_the_gangs_that_are_there_when_a_director_begins_are_no_starts() -> None:
    scaling = new_scaling()
    scaling.hear(standing(3), 100.0)
    assert not scaling.gang_came("a", 101.0)


def test_the_newest_starts_count_and_outlive_the_director() -> None:
    scaling = new_scaling()
    for number in range(2 * COLD_START_SAMPLES):
        scaling.hear(standing(number), 1000.0 * number)
        scaling.gang_came(f"g{number}", 1000.0 * number + (10.0 if number < COLD_START_SAMPLES else 20.0))
    assert scaling.cold_start_s == 20.0
    successor = new_scaling()
    successor.load(scaling.dump())
    assert successor.cold_start_s == 20.0
    for broken in ({}, {"seconds": None}, {"seconds": ["many"]}, {"seconds": [float("nan"), float("inf"), -1.0]}):
        fresh = new_scaling()
        fresh.load(broken)
        assert fresh.cold_start_s == COLD_START_S


def test_what_is_wanted_is_the_decision_or_the_fixed_number() -> None:
    scaling = new_scaling()
    assert scaling.gangs_wanted == 0
    scaling.hear(standing(1, DECISION), 0.0)
    assert scaling.gangs_wanted == 3
    fixed = new_scaling(PoolConfig(max_gangs=4, gangs=4))
    assert (fixed.gangs_wanted, fixed.supply(ready=3, idle=1, draining=0).starting) == (4, 1)


@pytest.mark.parametrize("words", [{}, {"target": "many", "decision": None}, {"target": 1, "decision": {"gangs": -1}}])
def test_a_policy_that_is_not_understood_is_refused(words: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        new_scaling().hear(words, 0.0)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), max_size=50))
def test_no_more_starts_are_measured_than_gangs_were_asked_for(steps: list[tuple[int, int]]) -> None:
    scaling = new_scaling()
    asked = measured = gangs = before = 0
    for now, (target, came) in enumerate(steps):
        scaling.hear(standing(target), float(now))
        asked += max(0, target - before) if now else 0
        before = target
        for _ in range(came):
            gangs += 1
            measured += scaling.gang_came(f"g{gangs}", now + 0.5)
        assert measured <= asked
        assert scaling.supply(ready=came, idle=0, draining=0).starting == max(0, target - came)
