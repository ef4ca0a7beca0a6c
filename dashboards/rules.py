"""What a rule of Prometheus is, and its YAML. The rules themselves are in recordings.py and alerts.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

RUNBOOKS_URL = "https://longtake.dev/docs/runbooks"
"""Where runbooks are read. The chart puts another address in its place where a value says so."""

Severity = Literal["critical", "warning", "info"]
"""critical: work stands still or will be lost, look now. warning: look today. info: somebody may want to know."""


@dataclass(frozen=True)
class Recording:
    """A series that rules ask for more than once. `name` says level, metric and operation."""

    name: str
    expr: str


@dataclass(frozen=True)
class Alert:
    """A condition that somebody should look at; docs/runbooks/NAME.md says how."""

    name: str
    severity: Severity
    expr: str
    lasting: str
    """How long the condition must hold, such as 10m."""
    summary: str
    """One sentence that is always true of it."""
    description: str
    """What it is here and now, with {{ $labels.pool }} and {{ $value }}."""


class _Block(str):
    """Text that is written as it is, with its lines."""


def to_yaml(groups: dict[str, Sequence[Recording | Alert]]) -> str:
    """A rules file of these groups."""
    made = [{"name": name, "rules": [_rule(rule) for rule in rules]} for name, rules in groups.items()]
    head = "# Written by `python -m dashboards`; change dashboards/alerts.py or recordings.py instead.\n"
    return head + yaml.dump({"groups": made}, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def _rule(rule: Recording | Alert) -> dict[str, Any]:
    if isinstance(rule, Recording):
        return {"record": rule.name, "expr": _Block(rule.expr.strip() + "\n")}
    return {
        "alert": rule.name,
        "expr": _Block(rule.expr.strip() + "\n"),
        "for": rule.lasting,
        "labels": {"severity": rule.severity},
        "annotations": {
            "summary": rule.summary,
            "description": rule.description,
            "runbook_url": f"{RUNBOOKS_URL}/{rule.name}.md",
        },
    }


class _Dumper(yaml.SafeDumper):
    """Writes expressions as blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_block(dumper: yaml.SafeDumper, text: _Block) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")


_Dumper.add_representer(_Block, _represent_block)
