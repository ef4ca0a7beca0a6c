"""Writes the table of docs/metrics.md: `python -m tests.serving.telemetry.metrics_table` brings it up to date."""

from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

from serving.telemetry.histograms import MergedHistogram
from serving.telemetry.metrics import FarmMetrics

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
BEGIN, END = "<!-- the table begins -->\n", "<!-- the table ends -->\n"


def declared() -> list[tuple[str, str, tuple[str, ...], str]]:
    """Name as it is scraped, type, labels and meaning of every metric, in the order of their declaration."""
    found = []
    for metric in vars(FarmMetrics()).values():
        if isinstance(metric, MergedHistogram):
            found.append((metric.name, "histogram", metric.labels, metric.documentation))
        elif isinstance(metric, Counter | Gauge | Histogram):
            [family] = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found.append((name, family.type, metric._labelnames, family.documentation))
    return found


def table() -> str:
    """In Markdown."""
    rows = [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"
        for name, kind, labels, meaning in declared()
    ]
    return "\n".join(["| metric | type | labels | meaning |", "|---|---|---|---|", *rows]) + "\n"


def with_table(page: str) -> str:
    """The page with the table as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
