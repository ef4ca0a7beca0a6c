"""The chart's defaults as one file that reviews can read: what changes in it changes in every cluster.

`python -m tests.charts.test_chart_golden` rewrites it.
"""

from pathlib import Path

from tests.charts.chart_rendering import try_render, values_of

GOLDEN = Path(__file__).parent / "golden" / "minimal.yaml"


def rendered() -> str:
    """The objects of ci/minimal-values.yaml, without blank lines, which Helm 3 and 4 set differently."""
    ran = try_render(values_of("minimal"))
    assert ran.code == 0, ran.err
    return "\n".join(line for line in ran.out.splitlines() if line.strip()) + "\n"


def test_the_defaults_are_as_they_were_reviewed() -> None:
    assert rendered() == GOLDEN.read_text(), "read the difference; python -m tests.charts.test_chart_golden accepts it"


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(rendered())
