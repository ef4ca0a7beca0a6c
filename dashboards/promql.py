"""The few shapes that queries of dashboards have. Every series and label in them is checked when they are written.

Each process that exports a number of the whole farm makes a series of its own: of a gauge one is taken per farm, and
farms are added up. A farm is a cluster and a namespace; both labels come from Prometheus, and may be absent.
"""

from dashboards.declared import labels_of

FARM_LABELS = ("cluster", "namespace")

INTERVAL = "$__rate_interval"
"""Grafana's own: wide enough for four scrapes, and for one point of the graph."""

RANGE = "$__range"
"""All the time that is shown."""


def select(series: str, where: str = "") -> str:
    """A series, for the clusters and pools that are chosen above the dashboard."""
    matchers = ['cluster=~"$cluster"']
    if "pool" in labels_of(series):
        matchers.append('pool=~"$pool"')
    return f"{series}{{{','.join([*matchers, *([where] if where else [])])}}}"


def gauge(series: str, *by: str, where: str = "") -> str:
    """A number that each farm says once, added up over farms."""
    _check(series, by)
    one = f"max by ({', '.join([*FARM_LABELS, *_own(series, by)])}) ({select(series, where)})"
    return f"{_over('sum', by)} ({one})"


def largest(series: str, *by: str, where: str = "") -> str:
    """The largest of a number: for ages, and for times that do not add up."""
    _check(series, by)
    return f"{_over('max', by)} ({select(series, where)})"


def smallest(series: str, *by: str, where: str = "") -> str:
    """The smallest of a number."""
    _check(series, by)
    return f"{_over('min', by)} ({select(series, where)})"


def rate(series: str, *by: str, where: str = "") -> str:
    """How fast a counter grows, per second."""
    _check(series, by)
    return f"{_over('sum', by)} (rate({select(series, where)}[{INTERVAL}]))"


def increase(series: str, *by: str, where: str = "", window: str = INTERVAL) -> str:
    """By how much a counter grew."""
    _check(series, by)
    return f"{_over('sum', by)} (increase({select(series, where)}[{window}]))"


def share(part: str, whole: str) -> str:
    """A part of a whole; nothing if there is no whole."""
    return f"{part} / ({whole} > 0)"


def or_zero(expr: str) -> str:
    """0 if nothing has been counted yet: for what comes into being with its first count."""
    return f"({expr} or vector(0))"


def quantile(part: float, histogram: str, *by: str, where: str = "") -> str:
    """What a part of the observations of a histogram stays below. Raises LookupError."""
    return f"histogram_quantile({part}, {rate(f'{histogram}_bucket', 'le', *by, where=where)})"


def buckets(histogram: str, where: str = "") -> str:
    """Observations in each bucket, for a heatmap."""
    return increase(f"{histogram}_bucket", "le", where=where)


def _over(how: str, by: tuple[str, ...]) -> str:
    return f"{how} by ({', '.join(by)})" if by else how


def _own(series: str, by: tuple[str, ...]) -> list[str]:
    """Labels that tell a gauge apart before farms are added up: its own, so that no pool is taken for a replica."""
    return sorted({*labels_of(series), *by} - {*FARM_LABELS})


def _check(series: str, by: tuple[str, ...]) -> None:
    unknown = {*by} - {*labels_of(series), *FARM_LABELS, "le"}
    if unknown:
        raise LookupError(f"{series} has no label {', '.join(sorted(unknown))}")
