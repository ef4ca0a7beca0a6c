"""Takes become a film of the right length: cuts are hard, dissolves blend handles, surplus is dropped."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.render.assembler import Frame, TakeAssembler, blend


def frame(value: int) -> Frame:
    return np.full((2, 4, 3), value, np.uint8)


def assembled(takes: list[tuple[list[int], int, int]], surplus: int = 0) -> list[int]:
    """Values of the film's frames, from takes of (values, dissolve in, dissolve out)."""
    assembler = TakeAssembler()
    film: list[Frame] = []
    for values, dissolve_in, dissolve_out in takes:
        assembler.begin_take(frames=len(values), dissolve_in=dissolve_in, dissolve_out=dissolve_out)
        for value in values + [255] * surplus:
            film.extend(assembler.add(frame(value)))
    return [int(picture[0, 0, 0]) for picture in film]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.data(), st.integers(0, 3))
def test_a_film_is_as_long_as_its_shots_together(shots: list[int], data: st.DataObject, surplus: int) -> None:
    dissolves = [0] + [data.draw(st.integers(0, min(a, b))) for a, b in itertools.pairwise(shots)]
    takes = []
    for k, length in enumerate(shots):
        into, out_of = dissolves[k], dissolves[k + 1] if k + 1 < len(shots) else 0
        rendered = into // 2 + length + out_of - out_of // 2
        takes.append(([k] * rendered, into, out_of))
    assert len(assembled(takes, surplus)) == sum(shots)


def test_a_cut_changes_from_one_frame_to_the_next() -> None:
    assert assembled([([10, 11, 12], 0, 0), ([20, 21], 0, 0)]) == [10, 11, 12, 20, 21]


def test_a_dissolve_passes_evenly_from_one_take_to_the_other() -> None:
    assert assembled([([0] * 5, 0, 3), ([100] * 4, 3, 0)]) == [0, 0, 25, 50, 75, 100]


def test_what_the_grid_adds_is_dropped() -> None:
    assert assembled([([1, 2], 0, 0), ([3], 0, 0)], surplus=3) == [1, 2, 3]


def test_a_blend_rounds_to_the_nearest_value() -> None:
    assert int(blend(frame(0), frame(255), 0.5)[0, 0, 0]) == 128
    assert int(blend(frame(7), frame(7), 1 / 3)[0, 0, 0]) == 7


def test_dissolves_that_do_not_fit_a_take_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        TakeAssembler().begin_take(frames=4, dissolve_in=0, dissolve_out=5)


def test_a_dissolve_that_the_take_before_did_not_leave_is_refused() -> None:
    with pytest.raises(ValueError, match="left 0 frames for a dissolve of 2"):
        TakeAssembler().begin_take(frames=4, dissolve_in=2, dissolve_out=0)
