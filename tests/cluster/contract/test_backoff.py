"""How long to wait before something is tried again: growing, bounded, and a number whatever it is asked."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.contract.backoff import Backoff

BACKOFFS = st.builds(
    lambda first_s, more_s, factor: Backoff(first_s, first_s + more_s, factor),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.floats(1, 1e6),
)


@given(BACKOFFS, st.integers(-3, 10**9))
def test_a_wait_is_never_longer_than_the_cap_and_never_shorter_than_the_first(backoff: Backoff, failures: int) -> None:
    wait_s = backoff.wait_s(failures)
    assert 0 <= wait_s <= backoff.cap_s
    assert wait_s == 0 if failures < 1 else wait_s >= backoff.first_s


@given(BACKOFFS)
def test_waits_never_shrink(backoff: Backoff) -> None:
    waits = list(itertools.islice(backoff.waits(), 30))
    assert waits == sorted(waits)
    assert waits == [backoff.wait_s(failures) for failures in range(1, 31)]


def test_waits_double_up_to_the_cap_unless_they_are_steady() -> None:
    assert list(itertools.islice(Backoff(0.5, 3.0).waits(), 4)) == [0.5, 1.0, 2.0, 3.0]
    assert list(itertools.islice(Backoff.steady(2.0).waits(), 3)) == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("values", [(-1.0, 1.0), (2.0, 1.0), (1.0, float("inf")), (float("nan"), 1.0), (1.0, 2.0, 0.5)])
def test_a_backoff_that_makes_no_sense_is_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="first_s"):
        Backoff(*values)
