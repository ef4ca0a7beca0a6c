"""A ranking is what a sorted list would be, however often keys change."""

from hypothesis import given
from hypothesis import strategies as st

from serving.scheduler.ranking import Ranking

Change = tuple[str, int, int]

CHANGES = st.lists(st.tuples(st.sampled_from(["put", "discard"]), st.integers(0, 9), st.integers(0, 5)), max_size=300)


@given(CHANGES)
def test_a_ranking_is_always_in_order(changes: list[Change]) -> None:
    ranking: Ranking[int] = Ranking()
    keys: dict[int, int] = {}
    for kind, member, key in changes:
        if kind == "put":
            ranking.put(member, key)
            keys[member] = key
        else:
            ranking.discard(member)
            keys.pop(member, None)
        assert len(ranking) == len(keys)
        assert set(ranking) == keys.keys()
        assert ranking.first_key() == min(keys.values(), default=None)
        assert [keys[found] for found in ranking.least(4)] == sorted(keys.values())[:4]
        assert all(ranking.key(member) == key for member, key in keys.items())


def test_equal_keys_stand_in_the_order_of_coming() -> None:
    ranking: Ranking[str] = Ranking()
    for name in ("c", "a", "b"):
        ranking.put(name, 1)
    ranking.put("c", 1)  # no change
    assert ranking.least(3) == ["c", "a", "b"]


def test_changing_a_key_again_and_again_takes_no_more_memory() -> None:
    ranking: Ranking[str] = Ranking()
    for key in range(10_000):
        ranking.put("a", key)
    assert len(ranking._heap) < 100
