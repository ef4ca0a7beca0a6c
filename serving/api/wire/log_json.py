"""Lines of the farm's log as JSON, as much of them as the one who asks may see. Pure.

An administrator sees a line as it was logged. A tenant sees what became of their job, without the farm's insides:
paths, addresses, ids of processes and whatever follows the first line.
"""

import re
from typing import Any

from serving.store.log_lines import LogLine

TENANT_FIELDS = ("take", "pool", "gang", "step", "chunk", "outcome", "times", "resumed", "calls_done", "calls")
"""What a tenant may see beside the message."""

_HIDDEN = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"]+", re.IGNORECASE), "[address]"),
    (re.compile(r"(?<![\w.])(?:~|\.{1,2})?(?:/[^\s/'\",:;)\]]+)+/?"), "[path]"),
    (re.compile(r"\b[A-Za-z]:\\[^\s'\"]+"), "[path]"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "[address]"),
    (re.compile(r"(?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{1,4}(?![\w:])", re.IGNORECASE), "[address]"),
    (re.compile(r"\b[0-9a-f]{24,}\b", re.IGNORECASE), "[id]"),
    (re.compile(r"\bpid[ =:]*\d+", re.IGNORECASE), "[process]"),
)


def log_line_json(line: LogLine, *, is_admin: bool) -> dict[str, Any]:
    """One line."""
    fields = line.fields if is_admin else {name: line.fields[name] for name in TENANT_FIELDS if name in line.fields}
    return {
        "id": line.id,
        "object": "log_line",
        "at": round(line.at, 3),
        "level": line.level,
        "action": line.action,
        "message": line.message if is_admin else hide_insides(line.message),
        "job": line.job_id,
        "fields": fields,
    }


def hide_insides(message: str) -> str:
    """A message for a tenant."""
    first = message.strip().splitlines()[0] if message.strip() else ""
    for pattern, instead in _HIDDEN:
        first = pattern.sub(instead, first)
    return first
