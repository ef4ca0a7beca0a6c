"""Idempotency keys: a request that comes again with its key and body has the first one's answer, and acts once.

A request that makes a job writes its key in the job's own transaction (`reserve`, called by JobStore.insert). For the
others IdempotencyKeys keeps the whole answer.
"""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from serving.errors import IdempotencyBusy, IdempotencyConflict
from serving.store.database import Database
from serving.store.records import IdempotencyRecord
from serving.store.rows import insert_or
from serving.store.tables import idempotency_keys as keys

IDEMPOTENCY_KEPT_S = 86_400.0
"""Seconds for which a request that is repeated with its Idempotency-Key has the first one's answer."""

IDEMPOTENCY_BUSY_S = 60.0
"""Seconds after which a request that has no answer yet may be tried again with the same Idempotency-Key."""


@dataclass(frozen=True)
class StoredAnswer:
    """What the first request was answered."""

    status_code: int
    body: Any


class IdempotencyKeys:
    """Answers of requests that make no job."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, record: IdempotencyRecord, *, now: float) -> StoredAnswer | None:
        """The answer of an earlier request with this key, or None: then act, and call `finish` or `forget`.

        Raises IdempotencyConflict if the body was another, IdempotencyBusy while the first is not answered yet.
        """
        with self._database.begin() as connection:
            row = reserve(connection, record, job_id=None, now=now, keep_s=IDEMPOTENCY_BUSY_S)
        if row is None:
            return None
        if row.status_code is None:
            raise IdempotencyBusy(f"a request with Idempotency-Key {record.key!r} is being answered; try again")
        return StoredAnswer(row.status_code, row.answer)

    def finish(self, record: IdempotencyRecord, answer: StoredAnswer, *, now: float) -> None:
        """Keep the answer."""
        values = {
            "status_code": answer.status_code,
            "answer": answer.body,
            "expires_at": now + IDEMPOTENCY_KEPT_S,
        }
        with self._database.begin() as connection:
            connection.execute(update(keys).where(*_is(record)).values(values))

    def forget(self, record: IdempotencyRecord) -> None:
        """The request failed without having done anything: it may be tried again with the same key."""
        with self._database.begin() as connection:
            connection.execute(delete(keys).where(*_is(record), keys.c.status_code.is_(None), keys.c.job_id.is_(None)))


def reserve(
    connection: Connection,
    record: IdempotencyRecord,
    *,
    job_id: str | None,
    now: float,
    keep_s: float = IDEMPOTENCY_KEPT_S,
) -> Row[Any] | None:
    """Take a key within a transaction; returns None, or the row of the request that has it already.

    Of two at the same time the second waits for the first one's end. Raises IdempotencyConflict if the body differs.
    """
    row = {**asdict(record), "job_id": job_id, "expires_at": now + keep_s, "status_code": None, "answer": None}
    statement = insert_or(connection, keys).values(row)
    taken = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant", "route", "key"], set_=row, where=keys.c.expires_at <= now
        ).returning(keys.c.key)
    ).first()
    if taken is not None:
        return None
    return find_reserved(connection, record, now=now)


def find_reserved(connection: Connection, record: IdempotencyRecord, *, now: float) -> Row[Any] | None:
    """The row of the request that has a key. Raises IdempotencyConflict if its body differs."""
    earlier = connection.execute(select(keys).where(*_is(record), keys.c.expires_at > now)).first()
    if earlier is not None and earlier.body_sha256 != record.body_sha256:
        raise IdempotencyConflict(f"Idempotency-Key {record.key!r} came before with another body; use a new key")
    return earlier


def _is(record: IdempotencyRecord) -> tuple[Any, ...]:
    return (keys.c.tenant == record.tenant, keys.c.route == record.route, keys.c.key == record.key)
