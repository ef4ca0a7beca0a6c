"""How a log line of any of our processes looks: one JSON object a line, or words on a terminal. Pure.

One event is one line with one `action`; ids (job, take, pool, gang, host, node) are fields of it, given as `extra`.
Farm and cluster agree on this, as on pools_and_nodes.py.
"""

import json
import logging
from typing import Any

from cluster.contract.plain_text import make_plain

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
"""A line for people."""

FORMS = ("json", "text")
"""What LONGTAKE_LOG may be."""

_KNOWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """One JSON object a line, with the fields that were given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= extra_of(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class PlainLines(logging.Formatter):
    """Words on one line, whatever people wrote into them; a traceback on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging calls it so
        """The line without its traceback."""
        return make_plain(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The traceback."""
        return make_plain(super().formatException(ei), lines=True)


def extra_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`: its action and ids."""
    given = record.__dict__.items()
    return {name: value for name, value in given if name not in _KNOWN and not name.startswith("_")}  # Ray adds one


def choose_formatter(form: str, *, is_terminal: bool, text: str = TEXT) -> logging.Formatter:
    """The formatter for `form` (one of FORMS); anything else chooses by whether the lines go to a terminal."""
    if form == "text" or (form != "json" and is_terminal):
        return PlainLines(text)
    return JsonLines()
