"""Chunks first, then CFG, Ulysses, ring: how GPUs are laid out for a film."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.advice import advise
from sharding.gang_shape import Workload

WAN = Workload(heads=40, tokens=75_600, guided=True)


@pytest.mark.parametrize(
    ("gpus", "calls_at_once", "parts", "gangs", "shape"),
    [
        (8, 20, 1, 8, "1"),
        (8, 4, 1, 4, "cfg=2"),
        (8, 2, 1, 2, "cfg=2 x ulysses=2"),
        (8, 1, 1, 1, "cfg=2 x ulysses=4"),
        (8, 20, 2, 4, "ulysses=2"),
        (8, 20, 4, 2, "ulysses=4"),
        (7, 3, 1, 3, "cfg=2"),
    ],
)
def test_gangs_grow_only_where_gpus_would_have_no_call(
    gpus: int, calls_at_once: int, parts: int, gangs: int, shape: str
) -> None:
    advice = advise(WAN, gpus=gpus, calls_at_once=calls_at_once, parts=parts)
    assert (advice.gangs, str(advice.shape)) == (gangs, shape)


def test_it_says_why() -> None:
    advice = advise(Workload(12, 1560, guided=True), gpus=8, calls_at_once=1)
    assert str(advice.shape) == "cfg=2 x ulysses=4"
    assert [reason.split(":")[0] for reason in advice.reasons[2:]] == ["then CFG", "then Ulysses"]
    assert "7 gangs will have nothing to do" not in advice.reasons


def test_too_few_gpus_are_refused() -> None:
    with pytest.raises(ValueError, match="a call needs 4 GPUs to fit, and there are 2"):
        advise(WAN, gpus=2, calls_at_once=5, parts=4)


@given(
    gpus=st.integers(1, 64),
    calls=st.integers(1, 100),
    heads=st.integers(1, 64),
    guided=st.booleans(),
)
def test_what_is_advised_fits_and_is_valid(gpus: int, calls: int, heads: int, guided: bool) -> None:
    work = Workload(heads, 75_600, guided)
    advice = advise(work, gpus=gpus, calls_at_once=calls)
    assert 1 <= advice.gangs * advice.shape.ranks <= gpus
    assert advice.shape.is_valid(work)
    assert advice.shape.ranks == 1 or advice.gangs >= min(calls, gpus // advice.shape.ranks)
