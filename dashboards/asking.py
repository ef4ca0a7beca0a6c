"""Asks a Prometheus what a panel would show, as Grafana does: variables filled in, over a stretch of time."""

import json
import math
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Stretch:
    """What Grafana shows: from `start` to `end`, in unix seconds, with a point every `step_s`."""

    start: float
    end: float
    step_s: float
    scrape_s: float


@dataclass(frozen=True)
class Line:
    """One series of an answer: its labels, and (unix seconds, value) of the points that are numbers."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


def fill_in(expr: str, stretch: Stretch) -> str:
    """The query that Grafana would send, for all clusters and pools."""
    interval_s = max(stretch.step_s + stretch.scrape_s, 4 * stretch.scrape_s)
    filled = {
        "$__rate_interval": f"{interval_s:.0f}s",
        "$__range": f"{stretch.end - stretch.start:.0f}s",
        "$cluster": ".*",
        "$pool": ".*",
    }
    for name, value in filled.items():
        expr = expr.replace(name, value)
    return expr


def ask(address: str, expr: str, stretch: Stretch) -> list[Line]:
    """All series of a query that have a number. Raises OSError if Prometheus does not answer or refuses."""
    query = {"query": fill_in(expr, stretch), "start": stretch.start, "end": stretch.end, "step": stretch.step_s}
    url = f"{address}/api/v1/query_range?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        found = json.load(answer)["data"]["result"]
    lines = [Line(series["metric"], _numbers(series["values"])) for series in found]
    return [line for line in lines if line.points]


def _numbers(values: list[tuple[float, str]]) -> tuple[tuple[float, float], ...]:
    return tuple((round(at, 3), float(value)) for at, value in values if math.isfinite(float(value)))
