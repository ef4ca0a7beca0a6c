"""The audit log: who did what to which job or key, when, and how it came out. Only added to."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from serving import settings
from serving.store.database import Database
from serving.store.records import SYSTEM
from serving.store.tables import audit


@dataclass(frozen=True)
class AuditEntry:
    """One thing that a person did."""

    at: float
    tenant: str
    actor: str
    """`tenant/name of the key`."""
    action: str
    target: str
    """Id of the job, key or endpoint."""
    result: str = "done"
    """`done`, or why it was refused."""
    detail: str = ""
    id: int = 0
    """Rises; given by the log."""


class AuditLog:
    """Reads the log, and takes entries about what is no part of a job's own transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, entry: AuditEntry) -> None:
        """Write one entry."""
        with self._database.begin() as connection:
            write_audit(connection, entry)

    def list(
        self, *, tenant: str | None = None, target: str | None = None, before: int | None = None, limit: int = 100
    ) -> Sequence[AuditEntry]:
        """A page of the log, newest first. `before` is the id of the last entry of the page before."""
        query = select(audit).order_by(audit.c.id.desc()).limit(min(limit, settings.MAX_PAGE))
        if tenant is not None:
            query = query.where(audit.c.tenant == tenant)
        if target is not None:
            query = query.where(audit.c.target == target)
        if before is not None:
            query = query.where(audit.c.id < before)
        with self._database.read() as connection:
            return [AuditEntry(**row._mapping) for row in connection.execute(query)]


def write_audit(connection: Connection, entry: AuditEntry) -> None:
    """Write one entry within a transaction, unless the actor is no person."""
    if entry.actor != SYSTEM:
        row = {
            "at": entry.at,
            "tenant": entry.tenant,
            "actor": entry.actor,
            "action": entry.action,
            "target": entry.target,
            "result": entry.result,
            "detail": entry.detail,
        }
        connection.execute(insert(audit).values(row))
