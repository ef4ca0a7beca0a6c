"""Forgets what the database need not know any longer: old events, keys of requests, deliveries, lines of the
audit log and of the farm's.

Jobs and the ledger are never forgotten. Rows go in small portions, each a transaction of its own, so that nobody waits.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, select, tuple_

from serving import settings
from serving.store.database import Database
from serving.store.records import ENDED
from serving.store.tables import audit, events, idempotency_keys, jobs, log_lines, webhook_deliveries

AUDIT_KEPT_S = 400 * 86_400.0
"""Seconds that the audit log is kept: a year and a month."""

LOG_LINES_KEPT_S = 30 * 86_400.0
"""Seconds that lines of the farm's log are kept in the database."""

WEBHOOKS_KEPT_S = 7 * 86_400.0
"""Seconds that deliveries are kept after they were made or given up, for their owner to look at."""


def forget_old_rows(database: Database, *, now: float, events_kept_s: float | None = settings.EVENTS_KEPT_S) -> int:
    """Delete what is older than its time; returns the number of rows. Events are kept while their job may go on, and
    forever if `events_kept_s` is None."""
    return sum(_forget(database, table, old) for table, old in _old_rows(now, events_kept_s))


def _old_rows(now: float, events_kept_s: float | None) -> Iterator[tuple[Table, ColumnElement[bool]]]:
    yield idempotency_keys, idempotency_keys.c.expires_at <= now
    over = webhook_deliveries.c.due_at.is_(None)
    yield webhook_deliveries, over & (webhook_deliveries.c.created_at <= now - WEBHOOKS_KEPT_S)
    yield audit, audit.c.at <= now - AUDIT_KEPT_S
    yield log_lines, log_lines.c.at <= now - LOG_LINES_KEPT_S
    if events_kept_s is not None:
        job_is_over = (
            select(jobs.c.id)
            .where(jobs.c.id == events.c.job_id, jobs.c.status.in_(ENDED) | jobs.c.deleted_at.is_not(None))
            .exists()
        )
        yield events, (events.c.at <= now - events_kept_s) & job_is_over


def _forget(database: Database, table: Table, old: ColumnElement[bool]) -> int:
    key: Any = tuple_(*table.primary_key.columns)
    some = select(*table.primary_key.columns).where(old).limit(settings.MAX_BATCH)
    total, removed = 0, settings.MAX_BATCH
    while removed == settings.MAX_BATCH:
        with database.begin() as connection:
            removed = connection.execute(delete(table).where(key.in_(some))).rowcount
        total += removed
    return total
