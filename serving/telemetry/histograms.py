"""Histograms that are counted in one process and shown in another: the Api measures, the Director exports.

What travels is what came since the last time, so adding it up twice would lie: each report has a number, and the
receiver takes each once. Knows no clock and no transport.
"""

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds of a request."""

LAG_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds from the writing of an event until it is sent."""

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Counted:
    """Observations by bucket, each in the first whose bound it does not exceed; the last bucket has no bound."""

    counts: tuple[int, ...]
    total: float
    """Sum of what was observed."""


@dataclass
class Tally:
    """Observations that are being counted."""

    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, counted: Counted) -> None:
        """Count those of another. Raises ValueError if its buckets are others."""
        self.counts = [mine + other for mine, other in zip(self.counts, counted.counts, strict=True)]
        self.total += counted.total

    def counted(self) -> Counted:
        """What was counted until now."""
        return Counted(tuple(self.counts), self.total)


@dataclass(frozen=True)
class ApiReport:
    """From a process of the Api to the Director: what it has measured since its last report."""

    sender: str
    """Unique forever."""
    number: int
    """Of the sender's reports, from 1: a report that comes twice has the same number."""
    requests: Mapping[Labels, Counted]
    """By route, method and class of status."""
    events_lag: Counted


class MergedHistogram(Collector):
    """A histogram whose observations come counted. Shows what was added; a registry collects it."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], *, buckets: Sequence[float]) -> None:
        self.name, self.documentation, self.labels = name, documentation, tuple(labels)
        self.bounds = tuple(buckets)
        self._tallies: dict[Labels, Tally] = {}

    def open(self, labels: Labels = ()) -> None:
        """Show these labels though nothing was observed yet."""
        self._tallies.setdefault(labels, Tally(self.bounds))

    def add(self, labels: Labels, counted: Counted) -> None:
        """Add observations."""
        self.open(labels)
        self._tallies[labels].add(counted)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """For the registry."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.labels)
        names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        for labels, tally in list(self._tallies.items()):
            cumulative = itertools.accumulate(tally.counts)
            family.add_metric(labels, list(zip(names, cumulative, strict=True)), tally.total)
        return [family]
