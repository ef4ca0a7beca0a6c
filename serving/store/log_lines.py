"""What the farm's log said of its jobs, and of what went wrong: bounded, the oldest goes first.

Lines come from the Director in batches. On Postgres a batch holds a lock from before it draws ids until it is there, so
that ids appear in order and a reader that goes on after the last it saw misses none.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, delete, func, insert, select

from serving import settings
from serving.store.database import Database
from serving.store.rows import plain
from serving.store.tables import log_lines

LOG_LINES_PER_JOB = 1000
"""Lines kept of one job; the oldest goes first."""

LOG_LINES_OF_FARM = 50_000
"""Lines kept in all; the oldest goes first."""


Level = Literal["info", "warning", "error"]

NUMBERS: dict[Level, int] = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
"""As logging counts them; kept so, because a query asks for one level and those above."""

LOG_LOCK = 7_203_150_413
"""Key of the Postgres advisory lock that orders log lines."""


@dataclass(frozen=True)
class LogLine:
    """One event."""

    at: float
    """Unix seconds."""
    level: Level
    action: str
    message: str
    """May name hosts, paths and addresses."""
    job_id: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    """Other ids and numbers: take, pool, gang, host, node..."""
    id: int = 0
    """Rises; given by the store."""


class LogLines:
    """Writes and reads them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, lines: Sequence[LogLine]) -> None:
        """Write a batch, and remove what is too much by now: of a job, and of all."""
        rows = [
            {
                "at": line.at,
                "level": NUMBERS[line.level],
                "action": line.action,
                "message": line.message.replace("\0", " ")[: settings.MAX_LOG_CHARS],
                "job_id": line.job_id,
                "fields": plain(line.fields),
            }
            for line in lines
        ]
        with self._database.begin() as connection:
            if self._database.is_postgres:
                connection.execute(select(func.pg_advisory_xact_lock(LOG_LOCK)))
            for row in rows:
                connection.execute(insert(log_lines).values(row))
            for job_id in sorted({line.job_id for line in lines if line.job_id is not None}):
                _trim(connection, LOG_LINES_PER_JOB, job_id)
            _trim(connection, LOG_LINES_OF_FARM)

    def list(
        self, *, job_id: str | None = None, level: Level = "info", after: int | None = None, limit: int = 100
    ) -> Sequence[LogLine]:
        """Lines of a job or of all, of this level and above, oldest first: those after one, else the newest."""
        query = select(log_lines).where(log_lines.c.level >= NUMBERS[level]).limit(min(limit, settings.MAX_PAGE))
        if job_id is not None:
            query = query.where(log_lines.c.job_id == job_id)
        if after is None:
            query = query.order_by(log_lines.c.id.desc())
        else:
            query = query.where(log_lines.c.id > after).order_by(log_lines.c.id)
        with self._database.read() as connection:
            found = [_to_line(row._mapping) for row in connection.execute(query)]
        return found[::-1] if after is None else found


def _to_line(row: Any) -> LogLine:
    level = next(name for name, number in reversed(NUMBERS.items()) if row["level"] >= number)
    return LogLine(**{**row, "level": level})


def _trim(connection: Connection, most: int, job_id: str | None = None) -> None:
    """Keep the newest `most`."""
    newest = select(log_lines.c.id).order_by(log_lines.c.id.desc()).offset(most).limit(1)
    whose = log_lines.c.job_id == job_id
    if job_id is not None:
        newest = newest.where(whose)
    too_old = log_lines.c.id <= newest.scalar_subquery()
    connection.execute(delete(log_lines).where(too_old & whose if job_id is not None else too_old))
