"""Events: written in the transaction that changes the job, read in the order of their ids, none ever passed over.

On Postgres an id is drawn before its transaction ends, so a later id may be seen before an earlier one, and a reader
that goes on after the highest it saw would lose the earlier. Therefore writers hold a shared lock from drawing an id to
their end, and a reader over all jobs takes the same lock alone for a moment: what it could see before is then settled,
and no lower id can come. The events of one job need no such care: whoever writes them has locked the job's row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select

from serving import settings
from serving.store.records import Event, Job
from serving.store.rows import plain, to_event
from serving.store.tables import events

EVENT_LOCK = 7_203_150_412
"""Key of the Postgres advisory lock that orders events."""

_NEWEST = select(func.coalesce(func.max(events.c.id), 0))


def write_event(
    connection: Connection,
    job: Job,
    *,
    kind: str,
    at: float,
    data: Mapping[str, Any] | None = None,
    reason: str | None = None,
) -> int:
    """Write an event about a job as it is now, whose row the caller has locked or made; returns its id."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock_shared(EVENT_LOCK)))
    row = {
        "job_id": job.id,
        "tenant": job.tenant,
        "at": at,
        "kind": kind,
        "status": job.status,
        "reason": job.reason if reason is None else reason,
        "data": plain(data),
    }
    identity: int = connection.execute(insert(events).values(row).returning(events.c.id)).scalar_one()
    return identity


def settled_id(connection: Connection) -> int:
    """The id of the newest event before which none will appear any more; 0 if there is none."""
    if connection.dialect.name == "postgresql":
        # The maximum is as old as the statement, the lock is had later: all up to it are visible to the next statement.
        query = select(_NEWEST.scalar_subquery(), func.pg_advisory_xact_lock(EVENT_LOCK))
        return int(connection.execute(query).scalar_one())
    return int(connection.execute(_NEWEST).scalar_one())


def newest_id_of(connection: Connection, job_id: str) -> int:
    """The id of a job's newest event; 0 if there is none."""
    return int(connection.execute(_NEWEST.where(events.c.job_id == job_id)).scalar_one())


def read_events(
    connection: Connection, after: int, *, job_id: str | None, tenant: str | None, limit: int
) -> Sequence[Event]:
    """Events after one, oldest first."""
    query = select(events).where(events.c.id > after).order_by(events.c.id).limit(min(limit, settings.MAX_PAGE))
    if job_id is not None:
        query = query.where(events.c.job_id == job_id)
    elif connection.execute(_NEWEST).scalar_one() <= after:
        return []
    else:
        query = query.where(events.c.id <= settled_id(connection))
    if tenant is not None:
        query = query.where(events.c.tenant == tenant)
    return [to_event(row) for row in connection.execute(query)]
