"""What a tenant may see of a message: what became of their job, without the farm's insides. Pure.

Hidden are paths, addresses, ids of processes, and whatever follows the first line.
"""

import re

_HIDDEN = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"]+", re.IGNORECASE), "[address]"),
    (re.compile(r"(?<![\w.])(?:~|\.{1,2})?(?:/[^\s/'\",:;)\]]+)+/?"), "[path]"),
    (re.compile(r"\b[A-Za-z]:\\[^\s'\"]+"), "[path]"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "[address]"),
    (re.compile(r"(?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{1,4}(?![\w:])", re.IGNORECASE), "[address]"),
    (re.compile(r"\b[0-9a-f]{24,}\b", re.IGNORECASE), "[id]"),
    (re.compile(r"\bpid[ =:]*\d+", re.IGNORECASE), "[process]"),
)


def hide_insides(message: str) -> str:
    """A message for a tenant."""
    first = message.strip().splitlines()[0] if message.strip() else ""
    for pattern, instead in _HIDDEN:
        first = pattern.sub(instead, first)
    return first
