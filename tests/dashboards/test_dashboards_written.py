"""What is committed is what the data say, and nothing else lies in the chart's folders."""

from pathlib import Path

import pytest

from dashboards.panels import Dashboard
from dashboards.written import CHART, DASHBOARDS, written_files


@pytest.mark.parametrize("path", written_files(), ids=lambda path: path.name)
def test_writing_anew_gives_the_same_bytes(path: Path) -> None:
    assert written_files()[path].encode() == path.read_bytes(), "run python -m dashboards"


def test_nothing_else_lies_where_dashboards_and_rules_are_written() -> None:
    there = {path for folder in ("dashboards", "rules") for path in (CHART / folder).iterdir()}
    assert there == set(written_files())


def test_there_are_the_four_dashboards() -> None:
    assert [page.title.removeprefix("Longtake / ") for page in DASHBOARDS] == [
        "Farm overview",
        "Pools and autoscaling",
        "Film quality and lost work",
        "API and store",
    ]


@pytest.mark.parametrize("page", DASHBOARDS, ids=lambda page: page.uid)
def test_the_documentation_shows_and_explains_every_panel(page: Dashboard) -> None:
    text = (CHART.parents[1] / "docs" / "dashboards.md").read_text()
    image = f"images/dashboards/{page.uid.removeprefix('longtake-')}.png"
    assert f"({image})" in text
    assert (CHART.parents[1] / "docs" / image).is_file(), "see dashboards/plot.py"
    for panel in page.panels:
        empty = f" Empty when {panel.empty_when}." if panel.empty_when else ""
        assert f"- *{panel.title}*: {panel.description}{empty}\n" in text
