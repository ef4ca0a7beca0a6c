"""Plots dashboards from a live Prometheus, for docs/dashboards.md: one picture of each, with all its panels.

It is not Grafana: the same queries and places, in plain lines. Needs matplotlib, which nothing else does.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from dashboards.asking import Line, Stretch, ask
from dashboards.panels import Dashboard, Panel, Query
from dashboards.written import DASHBOARDS

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images" / "dashboards"

_COLUMNS = 24
_WIDTH = 12.0
_HEADING = 0.4
_HEIGHTS = {"stat": 0.8}
_GRAPH = 1.8
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.55, 0.15, 0.22, 0.25
"""Inches; the last four are kept free around each panel for its title and numbers."""

_SECONDS = (1, 2, 5, 15, 30, 60, 120, 300, 900, 1800, 3600, 7200, 6 * 3600, 86_400)


def plot_all(address: str, stretch: Stretch) -> None:
    """One PNG for each dashboard."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for page in DASHBOARDS:
        figure = plot(page, address, stretch)
        figure.savefig(IMAGES / f"{page.uid.removeprefix('longtake-')}.png", dpi=80, metadata={"Software": ""})


def plot(page: Dashboard, address: str, stretch: Stretch) -> Figure:
    """A dashboard as it is in that stretch."""
    mpl.rcParams.update({"font.size": 7, "axes.titlesize": 8, "axes.titleweight": "bold"})
    boxes = list(_boxes(page.panels))
    height = _HEADING + max(top + deep for _, _, top, _, deep in boxes)
    figure = Figure(figsize=(_WIDTH, height))
    figure.text(_LEFT / _WIDTH, 1 - 0.2 / height, page.title, fontsize=11, fontweight="bold", va="center")
    for panel, left, top, wide, deep in boxes:
        x, y = left + _LEFT, height - _HEADING - top - deep + _BOTTOM
        inner = (x / _WIDTH, y / height, (wide - _LEFT - _RIGHT) / _WIDTH, (deep - _TOP - _BOTTOM) / height)
        _draw(figure.add_axes(inner), panel, address, stretch)
    return figure


def _boxes(panels: tuple[Panel, ...]) -> Iterator[tuple[Panel, float, float, float, float]]:
    """Each panel with left, top, width and height of its place, in inches."""
    column, top, deepest = 0, 0.0, 0.0
    for panel in panels:
        if column + panel.width > _COLUMNS:
            column, top, deepest = 0, top + deepest, 0.0
        deep = _HEIGHTS.get(panel.look, _GRAPH)
        yield panel, _WIDTH * column / _COLUMNS, top, _WIDTH * panel.width / _COLUMNS, deep
        column, deepest = column + panel.width, max(deepest, deep)


def _draw(axes: Axes, panel: Panel, address: str, stretch: Stretch) -> None:
    axes.set_title(panel.title, loc="left")
    asked = [(query, line) for query in panel.queries for line in ask(address, query.expr, stretch)]
    if panel.look == "stat":
        _draw_number(axes, panel, asked[0][1].points[-1][1] if asked else None)
    elif not asked:
        axes.set_axis_off()
        axes.text(0.5, 0.5, panel.empty_when, ha="center", va="center", wrap=True, color="0.5")
    elif panel.look == "heatmap":
        _draw_heatmap(axes, [line for _, line in asked], stretch)
    else:
        _draw_lines(axes, panel, asked, stretch)


def _draw_number(axes: Axes, panel: Panel, value: float | None) -> None:
    axes.set_axis_off()
    if panel.unit == "none" and value is not None:
        value = float(round(value))
    words = "none" if value is None else shown(value, panel.unit)
    bad = value is not None and panel.threshold is not None and _is_bad(panel, value)
    axes.text(0.0, 0.4, words, fontsize=18, va="center", color="tab:red" if bad else "black")


def _is_bad(panel: Panel, value: float) -> bool:
    assert panel.threshold is not None
    return (value >= panel.threshold.value) == (panel.threshold.bad == "above")


def _draw_lines(axes: Axes, panel: Panel, asked: list[tuple[Query, Line]], stretch: Stretch) -> None:
    names = [_name(query, line) for query, line in asked]
    times = _times([line for _, line in asked], stretch)
    minutes = [_minute(at, stretch) for at in times]
    values = [[dict(line.points).get(at, 0.0) for at in times] for _, line in asked]
    match panel.look:
        case "stacked":
            axes.stackplot(minutes, values, labels=names, alpha=0.7)
        case "bars":
            bottom = [0.0] * len(times)
            for name, row in zip(names, values, strict=True):
                axes.bar(minutes, row, width=0.8 * stretch.step_s / 60, bottom=bottom, label=name)
                bottom = [below + value for below, value in zip(bottom, row, strict=True)]
        case _:
            for name, row in zip(names, _with_gaps(asked, times), strict=True):
                axes.plot(minutes, row, label=name, linewidth=1, marker=".", markersize=2)
    if panel.threshold is not None:
        axes.axhline(panel.threshold.value, color="tab:red", linewidth=0.8, linestyle="--")
    lowest, highest = axes.get_ylim()
    axes.set_ylim(lowest if panel.below_zero else 0, 1.1 * highest)
    if panel.unit == "s" and axes.get_ylim()[1] > 2:
        axes.yaxis.set_major_locator(MultipleLocator(_seconds_between(axes.get_ylim()[1])))
    axes.yaxis.set_major_formatter(lambda value, _: shown(value, panel.unit))
    axes.grid(alpha=0.3)
    _finish(axes, stretch)
    axes.legend(loc="upper left", fontsize=6, ncols=2, framealpha=0.6)


def _times(lines: list[Line], stretch: Stretch) -> list[float]:
    """Every step from the first point to the last."""
    seen = [at for line in lines for at, _ in line.points]
    number = round((max(seen) - min(seen)) / stretch.step_s)
    return [round(min(seen) + step * stretch.step_s, 3) for step in range(number + 1)]


def _with_gaps(asked: list[tuple[Query, Line]], times: list[float]) -> list[list[float]]:
    """Values at all times; where a line has none it is broken."""
    return [[dict(line.points).get(at, math.nan) for at in times] for _, line in asked]


def _seconds_between(top: float) -> float:
    """Between two numbers of an axis of times: whole minutes and hours."""
    return next((step for step in _SECONDS if top / step <= 5), top)


def _draw_heatmap(axes: Axes, lines: list[Line], stretch: Stretch) -> None:
    """Observations by bucket; Prometheus' buckets hold all that is below too."""
    lines = sorted(lines, key=lambda line: float(line.labels["le"]))
    times = _times(lines, stretch)
    rows = [[dict(line.points).get(at, 0.0) for at in times] for line in lines]
    below = [[0.0] * len(times), *rows[:-1]]
    cells = [
        [max(0.0, here - lower) for here, lower in zip(row, others, strict=True)]
        for row, others in zip(rows, below, strict=True)
    ]
    axes.pcolormesh([_minute(at, stretch) for at in times], range(len(lines)), cells, cmap="Blues", shading="nearest")
    axes.set_yticks(range(len(lines)), [line.labels["le"] for line in lines])
    _finish(axes, stretch)


def _finish(axes: Axes, stretch: Stretch) -> None:
    axes.set_xlim(0, _minute(stretch.end, stretch))
    axes.xaxis.set_major_formatter("{x:.3g} min")


def _minute(at: float, stretch: Stretch) -> float:
    return (at - stretch.start) / 60


def _name(query: Query, line: Line) -> str:
    name = query.legend
    for label, value in line.labels.items():
        name = name.replace(f"{{{{{label}}}}}", value)
    return name or "all"


def shown(value: float, unit: str) -> str:
    """A number with its unit, as people say it."""
    match unit:
        case "percentunit":
            return f"{100 * value:.3g} %"
        case "currencyUSD":
            return f"${value:.3g}"
        case "s":
            return _duration(value)
        case "Bps":
            return f"{value / 1000:.3g} kB/s"
        case "cps" | "reqps":
            return f"{value:.3g}/s"
        case _:
            return f"{value:.3g}"


def _duration(seconds: float) -> str:
    size = abs(seconds)
    for unit, length in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if size >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{1000 * seconds:.3g} ms" if size else "0"
