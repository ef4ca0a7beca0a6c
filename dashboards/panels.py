"""What a dashboard is made of, as plain data. How it looks is for grafana.py, what is asked for farm.py and others."""

from dataclasses import dataclass
from typing import Literal

Look = Literal["stat", "lines", "stacked", "bars", "heatmap"]
"""stat: one number for the time shown. lines: levels and rates. stacked: parts of a whole. bars: how many in each
interval. heatmap: a histogram over time."""

Unit = Literal["none", "s", "percentunit", "currencyUSD", "cps", "reqps", "Bps", "bytes"]
"""Units as Grafana calls them. none is a plain number, cps counts per second, reqps requests per second."""


@dataclass(frozen=True)
class Query:
    """One query of a panel. `legend` names its lines, with labels as {{label}}."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Threshold:
    """Where a value becomes good or bad: what is from `value` on has the colour, what is below the other one."""

    value: float
    bad: Literal["above", "below"] = "above"


@dataclass(frozen=True)
class Panel:
    """One question of an operator. `width` is in Grafana's columns, of which there are 24."""

    title: str
    description: str
    unit: Unit
    look: Look
    queries: tuple[Query, ...]
    width: int = 12
    threshold: Threshold | None = None
    below_zero: bool = False
    """Whether its values may be negative."""
    empty_when: str = ""
    """Why it may rightly show nothing on a farm that works; nothing if it never may."""


@dataclass(frozen=True)
class Note:
    """Words, in Markdown, over the whole width."""

    title: str
    text: str


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel | Note, ...]


@dataclass(frozen=True)
class Dashboard:
    """One page. `uid` is also the name of its file, and what other dashboards link to: it never changes."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Those that ask Prometheus, in order."""
        return tuple(panel for row in self.rows for panel in row.panels if isinstance(panel, Panel))
