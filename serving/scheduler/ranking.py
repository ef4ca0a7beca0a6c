"""A changing set, in order: the one data structure of the policy."""

import heapq
from collections.abc import Hashable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Ranking(Generic[T]):
    """Members ordered by a key of their own, least first; equal keys in the order of coming.

    A heap that forgets lazily: what left or changed its key stays in the heap until it surfaces, or until such
    leftovers are the greater part. All operations take O(log n), amortized.
    """

    __slots__ = ("_counter", "_heap", "_places")

    def __init__(self) -> None:
        self._heap: list[tuple[Any, int, T]] = []
        self._places: dict[T, tuple[Any, int]] = {}
        self._counter = 0

    def put(self, member: T, key: Any) -> None:
        """Take a member in, or give it another key."""
        place = self._places.get(member)
        if place is not None and place[0] == key:
            return
        self._counter += 1
        self._places[member] = (key, self._counter)
        heapq.heappush(self._heap, (key, self._counter, member))
        if len(self._heap) > 2 * len(self._places) + 32:
            self._heap = [(key, stamp, member) for member, (key, stamp) in self._places.items()]
            heapq.heapify(self._heap)

    def discard(self, member: T) -> None:
        """Let a member go, if it is one."""
        self._places.pop(member, None)

    def first(self) -> T | None:
        """The member with the least key."""
        heap, places = self._heap, self._places
        while heap:
            _, stamp, member = heap[0]
            place = places.get(member)
            if place is not None and place[1] == stamp:
                return member
            heapq.heappop(heap)
        return None

    def first_key(self) -> Any:
        """The least key; None if there is no member."""
        return None if (member := self.first()) is None else self._places[member][0]

    def key(self, member: T) -> Any:
        """The key of a member. Raises KeyError."""
        return self._places[member][0]

    def least(self, count: int) -> list[T]:
        """Up to `count` members with the least keys, in order: O(count log n)."""
        entries: list[tuple[Any, int, T]] = []
        while len(entries) < count and self.first() is not None:
            entries.append(heapq.heappop(self._heap))
        for entry in entries:
            heapq.heappush(self._heap, entry)
        return [member for _, _, member in entries]

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, member: T) -> bool:
        return member in self._places

    def __iter__(self) -> Iterator[T]:
        """Every member, in the order of coming."""
        return iter(self._places)
