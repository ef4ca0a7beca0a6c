"""Turns our dashboards into Grafana's JSON, by Grafana's own builders. Decides colours and places, and nothing else.

The same data always gives the same bytes. The builders are pinned to the oldest Grafana that is supported, 11.6.
"""

from collections.abc import Callable, Iterator

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, text, timeseries
from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    ReduceDataOptions,
    ScaleDistributionConfig,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from dashboards.panels import Dashboard, Note, Panel, Query, Threshold

COLUMNS = 24
TAG = "longtake"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

_HEIGHTS = {"stat": 4, "lines": 8, "stacked": 8, "bars": 8, "heatmap": 8}
_NOTE_HEIGHT = 6

DataBuilder = timeseries.Panel | stat.Panel | heatmap.Panel


def to_json(page: Dashboard) -> str:
    """What Grafana imports."""
    built = _page(page).build()
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
    return JSONEncoder(sort_keys=True, indent=2).encode(built) + "\n"


def _page(page: Dashboard) -> build.Dashboard:
    board = (
        build.Dashboard(page.title)
        .uid(page.uid)
        .description(page.description)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(_others())
    )
    for variable in _variables():
        board.with_variable(variable)
    top = 0
    for row in page.rows:
        board.with_row(build.Row(row.title).grid_pos(models.GridPos(h=1, w=COLUMNS, x=0, y=top)))
        top += 1
        for panel, place in list(_places(row.panels, top)):
            board.with_panel(_panel(panel).grid_pos(place))
            top = max(top, place.y + place.h)
    return board


def _others() -> build.DashboardLink:
    """A menu of our dashboards, which keeps what is chosen."""
    link = build.DashboardLink("Longtake").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(False).include_vars(True).keep_time(True)


def _variables() -> Iterator[build.DatasourceVariable | build.QueryVariable]:
    yield build.DatasourceVariable("datasource").label("Data source").type("prometheus")
    for name, label, series in (
        ("cluster", "Cluster", "longtake_build_info"),
        ("pool", "Pool", 'longtake_pool_gangs_ready{cluster=~"$cluster"}'),
    ):
        yield (
            build.QueryVariable(name)
            .label(label)
            .datasource(SOURCE)
            .query(f"label_values({series}, {name})")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")  # also what has no such label: one Prometheus for one cluster need not name it
            .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
        )


def _places(panels: tuple[Panel | Note, ...], top: int) -> Iterator[tuple[Panel | Note, models.GridPos]]:
    """From left to right, and on below where the next does not fit."""
    x, y, line_height = 0, top, 0
    for panel in panels:
        width, height = (COLUMNS, _NOTE_HEIGHT) if isinstance(panel, Note) else (panel.width, _HEIGHTS[panel.look])
        if x + width > COLUMNS:
            x, y, line_height = 0, y + line_height, 0
        yield panel, models.GridPos(h=height, w=width, x=x, y=y)
        x, line_height = x + width, max(line_height, height)


def _panel(panel: Panel | Note) -> DataBuilder | text.Panel:
    if isinstance(panel, Note):
        return text.Panel().title(panel.title).mode(TextMode.MARKDOWN).content(panel.text)
    made = _LOOKS[panel.look](panel)
    made.title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE)
    made.thresholds(_thresholds(panel.threshold))
    if panel.empty_when:
        made.no_value("none")
    for number, query in enumerate(panel.queries):
        made.with_target(_target(panel, query, ref="ABCDEFGH"[number]))
    return made


def _target(panel: Panel, query: Query, *, ref: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref).datasource(SOURCE)
    if panel.look == "stat":
        target.instant()
    else:
        target.range()
    return target.format(PromQueryFormat.HEATMAP if panel.look == "heatmap" else PromQueryFormat.TIME_SERIES)


def _thresholds(threshold: Threshold | None) -> build.ThresholdsConfig:
    steps = [models.Threshold(value=None, color="green")]
    if threshold is not None:
        below, above = ("green", "red") if threshold.bad == "above" else ("red", "green")
        steps = [models.Threshold(value=None, color=below), models.Threshold(value=threshold.value, color=above)]
    return build.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _stat(panel: Panel) -> stat.Panel:
    coloured = common.BigValueColorMode.VALUE if panel.threshold else common.BigValueColorMode.NONE
    newest = ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    made = stat.Panel().graph_mode(common.BigValueGraphMode.NONE).color_mode(coloured).reduce_options(newest)
    return made.decimals(0) if panel.unit == "none" else made  # an increase is extrapolated: 1.01 gangs were lost


def _lines(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .draw_style(common.GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(8)
        .show_points(common.VisibilityMode.AUTO)
        .legend(
            VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs([])
        )
        .tooltip(VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    )
    if panel.threshold is not None:
        made.thresholds_style(GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
    return made if panel.below_zero else made.min(0)


def _stacked(panel: Panel) -> timeseries.Panel:
    return _lines(panel).fill_opacity(40).stacking(StackingConfig().mode(common.StackingMode.NORMAL).group("A"))


def _bars(panel: Panel) -> timeseries.Panel:
    return _stacked(panel).draw_style(common.GraphDrawStyle.BARS).fill_opacity(80)


def _heatmap(panel: Panel) -> heatmap.Panel:
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(32)
    axis = heatmap.YAxisConfig().unit(panel.unit).axis_placement(common.AxisPlacement.LEFT)
    scale = ScaleDistributionConfig().type(common.ScaleDistribution.LINEAR)
    return heatmap.Panel().calculate(False).color(colours).y_axis(axis).cell_gap(1).scale_distribution(scale)


_LOOKS: dict[str, Callable[[Panel], DataBuilder]] = {
    "stat": _stat,
    "lines": _lines,
    "stacked": _stacked,
    "bars": _bars,
    "heatmap": _heatmap,
}
