"""Writes the tables of the chart's README from its values and their schema: `python -m tests.charts.chart_readme`.

Everything between a pair of markers is replaced; the words around them are written by hand.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.charts.chart_rendering import CHART

README = CHART / "README.md"

_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z][\w./-]*):")
_DESCRIPTION = re.compile(r" *# -- (?P<text>.+)")


def described_values() -> Iterator[tuple[str, str]]:
    """Dotted path and description of every value that has one, as they stand in values.yaml."""
    way: list[tuple[int, str]] = []
    text = ""
    for line in (CHART / "values.yaml").read_text().splitlines():
        if found := _DESCRIPTION.fullmatch(line):
            text = found["text"]
        elif found := _KEY.match(line):
            indent = len(found["indent"])
            way = [*(step for step in way if step[0] < indent), (indent, found["key"])]
            if text:
                yield ".".join(key for _, key in way), text
            text = ""


def render_readme(old: str) -> str:
    """The README with its tables made again."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    tables = {
        "values": _values_table(),
        "pools": _fields_table(schema["$defs"]["pool"]),
        "workers": _fields_table(schema["$defs"]["worker"]),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name}: made by tests/charts/chart_readme.py -->", f"<!-- end of {name} -->"
        head, marker, rest = old.partition(begin)
        _, closing, tail = rest.partition(end)
        assert marker, f"README.md lacks: {begin}"
        assert closing, f"README.md lacks: {end}"
        old = f"{head}{begin}\n{table}\n{end}{tail}"
    return old


def _values_table() -> str:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = (f"| `{path}` | {_shown(_at(values, path))} | {_cell(text)} |" for path, text in described_values())
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *rows])


def _fields_table(schema: dict[str, Any]) -> str:
    rows = (
        f"| `{name}` | {'yes' if name in schema['required'] else ''} | {_cell(field['description'])} |"
        for name, field in schema["properties"].items()
        if "description" in field
    )
    return "\n".join(["| field | needed | meaning |", "|---|---|---|", *rows])


def _at(values: Any, path: str) -> Any:
    for part in path.split("."):
        values = values[part]
    return values


def _shown(value: Any) -> str:
    return f"`{json.dumps(value)}`" if value not in ("", [], {}) else ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    README.write_text(render_readme(README.read_text()))
