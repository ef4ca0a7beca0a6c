"""Between rows and records: what the other modules of the store read and write jobs and takes by."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, Table, select, update
from sqlalchemy.dialects import postgresql, sqlite

from serving import settings
from serving.errors import Fenced, NotFound
from serving.store.records import Event, Job, JobStatus, Take
from serving.store.tables import jobs, storyboards

_JOB_FIELDS = tuple(field.name for field in fields(Job))
_TAKE_FIELDS = tuple(field.name for field in fields(Take))

Value = TypeVar("Value")
Insert = postgresql.Insert | sqlite.Insert


def whole_jobs() -> Select[Any]:
    """A query for jobs with all that `to_job` needs."""
    return select(*jobs.c, storyboards.c.storyboard).join_from(jobs, storyboards)


def to_job(row: Row[Any]) -> Job:
    """A job from a row of `whole_jobs`."""
    values = {name: row._mapping[name] for name in _JOB_FIELDS}
    return Job(**{**values, "status": JobStatus(row.status)})


def to_take(row: Row[Any]) -> Take:
    """A take from its row."""
    return Take(**{name: row._mapping[name] for name in _TAKE_FIELDS})


def to_event(row: Row[Any]) -> Event:
    """An event from its row."""
    return Event(**{**row._mapping, "status": JobStatus(row.status)})


def job_row(job: Job) -> dict[str, Any]:
    """What the jobs table holds of a job."""
    return {name: getattr(job, name) for name in _JOB_FIELDS if name != "storyboard"}


def take_row(take: Take) -> dict[str, Any]:
    """What the takes table holds of a take."""
    return {name: getattr(take, name) for name in _TAKE_FIELDS}


def find_job(
    connection: Connection, job_id: str, *, tenant: str | None = None, lock: bool = False, deleted: bool = False
) -> Job | None:
    """The job, unless it belongs to another tenant or is deleted (`deleted`: then too); locked against other writers
    if asked."""
    query = whole_jobs().where(jobs.c.id == job_id)
    if not deleted:
        query = query.where(jobs.c.deleted_at.is_(None))
    if tenant is not None:
        query = query.where(jobs.c.tenant == tenant)
    row = connection.execute(query.with_for_update(of=jobs) if lock else query).first()
    return None if row is None else to_job(row)


def lock_job(connection: Connection, job_id: str, *, tenant: str | None = None, token: int | None = None) -> Job:
    """The job, locked against other writers. Raises NotFound, and Fenced if `token` is not the one it is held by."""
    job = find_job(connection, job_id, tenant=tenant, lock=True)
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    if token is not None and job.lease_token != token:
        raise Fenced(f"job {job_id} is not held by token {token} any more")
    return job


def change_job(connection: Connection, job: Job, values: Mapping[str, Any], *, now: float) -> Job:
    """Change a job whose row is locked; returns it as it is then."""
    every = {**values, "revision": job.revision + 1, "updated_at": now}
    connection.execute(update(jobs).where(jobs.c.id == job.id).values(every))
    return replace(job, **every)


def insert_or(connection: Connection, table: Table) -> Insert:
    """An INSERT that can say what to do on a conflict; both databases spell it alike."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def batches(values: Iterable[Value]) -> Iterator[Sequence[Value]]:
    """Values in portions that one statement may name."""
    rest = list(values)
    for start in range(0, len(rest), settings.MAX_BATCH):
        yield rest[start : start + settings.MAX_BATCH]


def plain(data: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of what JSON can hold, as it will be read back. Raises ValueError or TypeError for what it cannot."""
    copy: dict[str, Any] = json.loads(json.dumps(dict(data or {}), allow_nan=False))
    return copy
