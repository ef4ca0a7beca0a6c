"""How long a call takes: a first guess from the model's size, corrected by every call that was measured. Pure.

Kept per cost key (model, picture size, shape of the gang). A curve says how seconds grow with latents; the median
of the newest measured calls says how far off it is, for each size of call apart where enough were seen, else for all.
Medians of logarithms: a call that met a cold gang, or a busy machine, weighs no more than any other.
"""

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from serving.planning.plan import TakePlan
from serving.settings import FIRST_GUESS_S

MAX_COST_KEYS = 1000
"""Kinds of calls whose cost is remembered; the one that was measured longest ago is forgotten first."""

MAX_COST_SIZES = 128
"""Sizes of calls of one kind that are remembered apart."""

COST_SAMPLES = 15
"""Newest measured calls of one size whose median is expected of the next; robust against 7 strange ones."""

MIN_COST_SAMPLES = 3
"""Measured calls of one size below which those of other sizes are asked instead."""


TYPICAL_LATENTS = 16
"""Latents of a call where its length is not known."""

LEAST_S = 1e-6
"""Seconds; what a clock says that has not moved."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds of one evaluation of n latents: overhead + linear n + quadratic n^2."""

    linear_s: float = FIRST_GUESS_S
    quadratic_s: float = 0.0
    overhead_s: float = 0.0

    def seconds(self, latents: float) -> float:
        return self.overhead_s + latents * (self.linear_s + latents * self.quadratic_s)


@dataclass(slots=True)
class _Median:
    """The median of the newest values."""

    values: deque[float] = field(default_factory=lambda: deque(maxlen=COST_SAMPLES))
    known: float | None = None

    def add(self, value: float) -> None:
        self.values.append(value)
        self.known = None

    @property
    def value(self) -> float:
        """0 before the first."""
        if self.known is None:
            self.known = statistics.median(self.values) if self.values else 0.0
        return self.known


@dataclass(slots=True)
class _Measured:
    """What was measured of one cost key: logarithms of measured over the curve's seconds."""

    curve: Curve
    all_sizes: _Median = field(default_factory=_Median)
    sizes: dict[tuple[int, int], _Median] = field(default_factory=dict)
    """By latents and evaluations."""

    def log_ratio(self, size: tuple[int, int]) -> float:
        own = self.sizes.get(size)
        return own.value if own is not None and len(own.values) >= MIN_COST_SAMPLES else self.all_sizes.value


class CostModel:
    """Knows what calls cost. `guesses` gives curves for cost keys that nothing was measured of."""

    def __init__(self, guesses: Mapping[str, Curve] | None = None) -> None:
        self._guesses = dict(guesses or {})
        self._known: dict[str, _Measured] = {}

    def guess(self, key: str, curve: Curve) -> None:
        """Expect this of calls of which nothing was measured."""
        self._guesses[key] = curve

    def expect_like(self, key: str, known: str, *, factor: float) -> None:
        """Expect `factor` of the seconds of a key that was measured of one that was not."""
        ratio = factor * math.exp(self._known[known].all_sizes.value)
        curve = self._known[known].curve
        self.guess(key, Curve(curve.linear_s * ratio, curve.quadratic_s * ratio, curve.overhead_s * ratio))

    def seconds(self, key: str, *, latents: int, evaluations: int) -> float:
        """Expected seconds of one call."""
        known = self._known.get(key)
        if known is None:
            return evaluations * self._curve(key).seconds(latents)
        return evaluations * known.curve.seconds(latents) * math.exp(known.log_ratio((latents, evaluations)))

    def per_latent_s(self, key: str) -> float:
        """Seconds for one latent of one evaluation, in a call of usual length."""
        return self._evaluation_s(key, TYPICAL_LATENTS) / TYPICAL_LATENTS

    def take_seconds(self, key: str, take: TakePlan) -> float:
        """Expected gang-seconds of a whole take; none if all of it is given."""
        if not take.evaluations:
            return 0.0
        return take.evaluations * self._evaluation_s(key, take.latents_evaluated / take.evaluations)

    def path_seconds(self, key: str, take: TakePlan, *, window: int) -> float:
        """Expected seconds of a take on gangs without end: its longest chain of calls, one after the other."""
        return take.longest_chain * self._evaluation_s(key, min(window, take.latents))

    def is_measured(self, key: str) -> bool:
        """Whether any call of this key has been measured."""
        return key in self._known

    def observe(self, key: str, *, latents: int, evaluations: int, seconds: float) -> None:
        """Learn from a call that was measured: the seconds that the gang worked, without any wait before."""
        known = self._known.pop(key, None)
        if known is None:
            while len(self._known) >= MAX_COST_KEYS:
                del self._known[next(iter(self._known))]
            known = _Measured(self._curve(key))
        self._known[key] = known  # the newest at the end
        size = (latents, evaluations)
        ratio = math.log(max(seconds, LEAST_S) / (evaluations * known.curve.seconds(latents)))
        known.all_sizes.add(ratio)
        if size in known.sizes or len(known.sizes) < MAX_COST_SIZES:
            known.sizes.setdefault(size, _Median()).add(ratio)

    def dump(self) -> dict[str, Any]:
        """What was learned, for JSON."""
        return {
            key: {
                "curve": asdict(known.curve),
                "ratios": list(known.all_sizes.values),
                "sizes": [[*size, list(median.values)] for size, median in known.sizes.items()],
            }
            for key, known in self._known.items()
        }

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Take over what was learned before; what cannot be read is left out."""
        for key, value in dumped.items():
            try:
                self._known[key] = _parse(value)
            except (AttributeError, KeyError, TypeError, ValueError):
                continue
        while len(self._known) > MAX_COST_KEYS:
            del self._known[next(iter(self._known))]

    def _curve(self, key: str) -> Curve:
        return self._guesses.get(key, Curve())

    def _evaluation_s(self, key: str, latents: float) -> float:
        known = self._known.get(key)
        if known is None:
            return self._curve(key).seconds(latents)
        return known.curve.seconds(latents) * math.exp(known.all_sizes.value)


def _parse(value: Any) -> _Measured:
    """Raises KeyError, TypeError, ValueError if it is not what `dump` wrote."""
    curve = Curve(*_numbers([value["curve"][name] for name in ("linear_s", "quadratic_s", "overhead_s")]))
    if min(curve.linear_s, curve.quadratic_s, curve.overhead_s) < 0 or curve.seconds(1) <= 0:
        raise ValueError(f"not a curve of a cost: {curve}")
    known = _Measured(curve)
    known.all_sizes.values.extend(_numbers(value["ratios"]))
    for latents, evaluations, ratios in value["sizes"][:MAX_COST_SIZES]:
        known.sizes[int(latents), int(evaluations)] = median = _Median()
        median.values.extend(_numbers(ratios))
    return known


def _numbers(values: list[Any]) -> list[float]:
    numbers = [float(value) for value in values]
    if not all(math.isfinite(number) and abs(number) < 700 for number in numbers):  # exp of more is infinite
        raise ValueError("not finite")
    return numbers
