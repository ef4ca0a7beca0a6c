"""How long to wait before something that failed is tried again. Pure: the caller waits."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Waits that grow with every failure in a row, up to a bound. Raises ValueError if they make no sense."""

    first_s: float
    """Seconds after the first failure."""
    cap_s: float
    """Seconds that no wait exceeds."""
    factor: float = 2.0
    """By which each wait is longer than the one before it."""

    def __post_init__(self) -> None:
        if not (0 <= self.first_s <= self.cap_s < float("inf") and 1 <= self.factor < float("inf")):
            raise ValueError(f"0 <= first_s <= cap_s and factor >= 1 are needed, all finite: {self}")

    @classmethod
    def steady(cls, wait_s: float) -> "Backoff":
        """The same wait each time."""
        return cls(wait_s, wait_s, factor=1.0)

    def wait_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row; none after none."""
        if failures < 1 or not self.first_s:
            return 0.0
        try:
            return min(self.cap_s, self.first_s * self.factor ** (failures - 1))
        except OverflowError:
            return self.cap_s

    def waits(self) -> Iterator[float]:
        """The wait after the first failure, after the second, and so on, without end."""
        return map(self.wait_s, itertools.count(1))
