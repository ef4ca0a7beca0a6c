"""Gang shapes: what they are called, who is where in them, which of them fit a model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.gang_shape import GangShape, Workload, choose_shape, fewest_ranks, shapes_of

WAN_14B = Workload(heads=40, tokens=75_600, guided=True)
degrees = st.integers(1, 8)
shapes = st.builds(GangShape, cfg=st.integers(1, 2), ulysses=degrees, ring=degrees, threads=degrees)
works = st.builds(Workload, heads=st.integers(1, 64), tokens=st.integers(1, 5000), guided=st.booleans())


@given(shapes)
def test_a_shape_reads_back_as_it_is_written(shape: GangShape) -> None:
    assert GangShape.parse(str(shape)) == shape


def test_a_shape_may_be_written_in_any_order_and_with_commas() -> None:
    assert GangShape.parse("ring=2,ulysses = 4") == GangShape.parse("ulysses=4 x ring=2") == GangShape(1, 4, 2)


@pytest.mark.parametrize("text", ["", "2", "ulyses=2", "ulysses=0", "cfg=3", "ulysses=2 x", "ulysses=2 x 1", "ring=-1"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"gang shape|at least 1|cfg is 1 or 2"):
        GangShape.parse(text)


@given(shapes)
def test_every_rank_has_a_place_of_its_own_and_knows_its_tokens(shape: GangShape) -> None:
    places = [shape.coordinates(rank) for rank in range(shape.ranks)]
    assert len(set(places)) == shape.ranks
    for rank, place in enumerate(places):
        assert shape.sequence_index(rank) == place.ring * shape.ulysses + place.ulysses
    with pytest.raises(ValueError, match="has no rank"):
        shape.coordinates(shape.ranks)


def test_the_ranks_of_a_ulysses_group_are_neighbours() -> None:
    shape = GangShape(cfg=2, ulysses=2, ring=2)
    assert [shape.coordinates(rank).ulysses for rank in range(8)] == [0, 1] * 4
    assert [shape.coordinates(rank).ring for rank in range(8)] == [0, 0, 1, 1] * 2
    assert [shape.coordinates(rank).cfg for rank in range(8)] == [0] * 4 + [1] * 4


def test_a_shape_that_does_not_fit_says_why_and_what_would() -> None:
    work = Workload(heads=12, tokens=1560, guided=False)
    with pytest.raises(ValueError, match="gang shape cfg=2 x ulysses=16: ") as caught:
        GangShape(cfg=2, ulysses=16).check(work)
    said = str(caught.value)
    assert "not guided" in said
    assert "at most ulysses=12" in said
    assert "with 32 ranks ulysses=4 x ring=8 or" in said


def test_no_more_parts_than_tokens() -> None:
    with pytest.raises(ValueError, match="leave ranks without any; fewer ranks would"):
        GangShape(ring=8).check(Workload(heads=1, tokens=7, guided=False))


@given(shapes, works)
def test_check_and_is_valid_agree(shape: GangShape, work: Workload) -> None:
    if shape.is_valid(work):
        shape.check(work)
    else:
        with pytest.raises(ValueError, match="would"):
            shape.check(work)


@given(st.integers(1, 32), works)
def test_the_shapes_of_a_number_of_ranks_are_all_valid_and_the_best_comes_first(ranks: int, work: Workload) -> None:
    found = shapes_of(ranks, work)
    assert all(shape.ranks == ranks and shape.is_valid(work) for shape in found)
    shares = [round(shape.largest_share(work), 3) for shape in found]
    assert shares == sorted(shares)
    assert all(share >= round(1 / ranks, 3) for share in shares)


@pytest.mark.parametrize(
    ("ranks", "heads", "guided", "best"),
    [
        (1, 40, True, "1"),
        (2, 40, True, "cfg=2"),
        (2, 40, False, "ulysses=2"),
        (8, 40, True, "cfg=2 x ulysses=4"),
        (8, 12, False, "ulysses=4 x ring=2"),
        (16, 40, False, "ulysses=8 x ring=2"),
    ],
)
def test_cfg_comes_before_ulysses_and_ulysses_before_ring_unless_heads_do_not_divide(
    ranks: int, heads: int, guided: bool, best: str
) -> None:
    assert str(shapes_of(ranks, Workload(heads, 75_600, guided))[0]) == best


def test_ulysses_stays_inside_a_node() -> None:
    across = shapes_of(16, Workload(48, 75_600, guided=False), gpus_per_node=4)
    assert str(across[0]) == "ulysses=4 x ring=4"
    assert all(shape.ulysses in (1, 2, 4) for shape in across)


def test_a_gang_is_as_small_as_memory_allows() -> None:
    def chosen(gpu_gib: int) -> str:
        shape = choose_shape(
            WAN_14B, gpus_per_node=8, bytes_per_token=1 << 19, weights_bytes=28 << 30, gpu_bytes=gpu_gib << 30
        )
        return str(shape)

    assert [chosen(80), chosen(60), chosen(40)] == ["1", "ulysses=2", "ulysses=4"]


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        fewest_ranks(tokens=1, bytes_per_token=1, weights_bytes=10, gpu_bytes=10)


@given(tokens=st.integers(1, 10**6), per_token=st.integers(1, 10**6), room=st.integers(1, 10**9))
def test_the_fewest_ranks_fit_and_one_less_would_not(tokens: int, per_token: int, room: int) -> None:
    if room < per_token:
        return
    ranks = fewest_ranks(tokens=tokens, bytes_per_token=per_token, weights_bytes=5, gpu_bytes=room + 5)
    assert -(-tokens // ranks) * per_token <= room
    assert ranks == 1 or -(-tokens // (ranks - 1)) * per_token > room
