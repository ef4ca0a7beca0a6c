"""Jobs, their takes and their events.

Who holds a job is decided in leases.py; its status is decided in jobs/lifecycle.py alone.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, Unpack

from sqlalchemy import Connection, Select, func, insert, select, union_all

from serving import settings
from serving.errors import IdempotencyBusy
from serving.store.assets import use_assets
from serving.store.audit import AuditEntry, write_audit
from serving.store.database import Database
from serving.store.events import newest_id_of, read_events, settled_id, write_event
from serving.store.facts import Learned
from serving.store.idempotency import find_reserved, reserve
from serving.store.leases import Leases
from serving.store.records import ENDED, Event, IdempotencyRecord, Job, JobFact, JobStatus, JobUse, Take
from serving.store.rows import batches, change_job, find_job, job_row, lock_job, take_row, to_job, to_take, whole_jobs
from serving.store.tables import THERE, job_tags, jobs, storyboards, takes
from serving.store.webhooks import queue_deliveries


class Terms(TypedDict, total=False):
    """What may be changed of a job at any time."""

    priority: int
    budget_usd: float | None
    due_at: float | None


class JobStore(Leases, Learned):
    """Everything about jobs but the decision about their status."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------------------------------------------------------ accepting

    def insert(
        self,
        job: Job,
        job_takes: Sequence[Take],
        *,
        actor: str,
        assets: Sequence[str] = (),
        idempotency: IdempotencyRecord | None = None,
    ) -> Job:
        """Accept a job: it, its takes, its first event, and the request's key, or nothing. `assets` are the hashes of
        those that its storyboard names.

        Returns the job with its version, which is the next of its family; or the job of an earlier request with the
        same key and body. Raises IdempotencyConflict if the body was another, MissingAssets.
        """
        now = job.created_at
        with self._database.begin() as connection:
            if idempotency is not None:
                earlier = reserve(connection, idempotency, job_id=job.id, now=now)
                if earlier is not None:
                    return _job_of(connection, idempotency, earlier.job_id)
            job = _number(connection, job)
            connection.execute(insert(jobs).values(job_row(job)))
            connection.execute(insert(storyboards).values(job_id=job.id, storyboard=job.storyboard))
            use_assets(connection, job.id, job.tenant, assets, now)
            if job.tags:
                rows = [{"job_id": job.id, "key": key, "value": value} for key, value in job.tags.items()]
                connection.execute(insert(job_tags), rows)
            if job_takes:
                connection.execute(insert(takes), [take_row(take) for take in job_takes])
            write_audit(connection, AuditEntry(now, job.tenant, actor, "submit", job.id, detail=job.title))
            write_event(connection, job, kind="submitted", at=now)
        return job

    def find_request(self, record: IdempotencyRecord, *, now: float) -> Job | None:
        """The job that an earlier request with this key made. Raises IdempotencyConflict if its body was another."""
        with self._database.read() as connection:
            earlier = find_reserved(connection, record, now=now)
            return None if earlier is None else _job_of(connection, record, earlier.job_id)

    # ------------------------------------------------------------------------------------------------ reading

    def get(self, job_id: str, *, tenant: str | None = None) -> Job | None:
        """The job, unless it is deleted or belongs to another tenant."""
        with self._database.read() as connection:
            return find_job(connection, job_id, tenant=tenant)

    def takes(self, job_id: str) -> Sequence[Take]:
        """The takes of a job in the order of the film."""
        return self.takes_of([job_id])[job_id]

    def takes_of(self, job_ids: Sequence[str]) -> dict[str, list[Take]]:
        """The takes of several jobs, each in the order of the film."""
        found: dict[str, list[Take]] = {job_id: [] for job_id in job_ids}
        with self._database.read() as connection:
            for batch in batches(found):
                query = select(takes).where(takes.c.job_id.in_(batch)).order_by(takes.c.job_id, takes.c.index)
                for row in connection.execute(query):
                    found[row.job_id].append(to_take(row))
        return found

    def list(
        self,
        *,
        tenant: str | None = None,
        statuses: Sequence[JobStatus] = (),
        tags: Mapping[str, str] | None = None,
        kind: str | None = None,
        family: str | None = None,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = True,
    ) -> Sequence[Job]:
        """A page of jobs by creation, without deleted ones. `after` is the id of the last job of the page before."""
        equal = {"tenant": tenant, "kind": kind, "family": family}
        query = page_query(
            {name: value for name, value in equal.items() if value is not None},
            statuses=statuses,
            tags=tags or {},
            after=after,
            limit=min(limit, settings.MAX_PAGE),
            newest_first=newest_first,
        )
        with self._database.read() as connection:
            return [to_job(row) for row in connection.execute(query)]

    def count(self, *, tenant: str | None = None, statuses: Sequence[JobStatus] = ()) -> dict[JobStatus, int]:
        """How many jobs have each status, of these or of all statuses."""
        query = select(jobs.c.status, func.count()).where(THERE).group_by(jobs.c.status)
        if tenant is not None:
            query = query.where(jobs.c.tenant == tenant)
        if statuses:
            query = query.where(jobs.c.status.in_(statuses))
        with self._database.read() as connection:
            found = {row[0]: row[1] for row in connection.execute(query)}
        return {status: found.get(status, 0) for status in statuses or JobStatus}

    def events_after(
        self, event_id: int, *, job_id: str | None = None, tenant: str | None = None, limit: int = 500
    ) -> Sequence[Event]:
        """Events after one, oldest first. Whoever asks again after the last of them misses none."""
        with self._database.read() as connection:
            return read_events(connection, event_id, job_id=job_id, tenant=tenant, limit=limit)

    def last_event_id(self, *, job_id: str | None = None) -> int:
        """The id of the newest event, of this job or of all; 0 if there is none. What is read after this call is at
        least as new."""
        with self._database.read() as connection:
            return settled_id(connection) if job_id is None else newest_id_of(connection, job_id)

    def facts_after(self, event_id: int) -> tuple[int, Sequence[JobFact]]:
        """A page of what happened to all jobs after an event, oldest first, and the id of its last event. Jobs that
        were deleted count too."""
        with self._database.read() as connection:
            page = read_events(connection, event_id, job_id=None, tenant=None, limit=settings.MAX_PAGE)
            wanted = jobs.c.id, jobs.c.pool, jobs.c.created_at, jobs.c.due_at, jobs.c.film
            known = {
                row.id: row
                for batch in batches({event.job_id: None for event in page})
                for row in connection.execute(select(*wanted).where(jobs.c.id.in_(batch)))
            }
        facts = [_fact(event, known[event.job_id]) for event in page if event.job_id in known]
        return (page[-1].id if page else event_id), facts

    def uses(self) -> Sequence[JobUse]:
        """Every job that ever was, with the takes that it used."""
        query = (
            select(jobs.c.id, jobs.c.status, jobs.c.finished_at, jobs.c.deleted_at, takes.c.content_key)
            .outerjoin(takes, takes.c.job_id == jobs.c.id)
            .order_by(jobs.c.id)
        )
        with self._database.read() as connection:
            return [_use(rows) for _, rows in itertools.groupby(connection.execute(query), lambda row: row.id)]

    # ------------------------------------------------------------------------------------------------ changing

    def set_terms(
        self, job_id: str, *, actor: str, now: float, tenant: str | None = None, **terms: Unpack[Terms]
    ) -> Job:
        """Change priority, budget_usd or due_at. Raises NotFound."""
        words = ", ".join(f"{name} {value}" for name, value in terms.items())
        with self._database.begin() as connection:
            job = lock_job(connection, job_id, tenant=tenant)
            job = change_job(connection, job, terms, now=now)
            write_audit(connection, AuditEntry(now, job.tenant, actor, "change", job.id, detail=words))
            write_event(connection, job, kind="changed", at=now, data=terms, reason=words)
        return job

    def delete(self, job_id: str, *, actor: str, now: float, tenant: str | None = None) -> None:
        """Hide a job forever; whoever holds it is fenced. Its artifacts go by retention. Raises NotFound."""
        with self._database.begin() as connection:
            job = lock_job(connection, job_id, tenant=tenant)
            values = {"deleted_at": now, "lease_owner": None, "lease_until": None, "lease_token": job.lease_token + 1}
            job = change_job(connection, job, values, now=now)
            write_audit(connection, AuditEntry(now, job.tenant, actor, "delete", job.id))
            write_event(connection, job, kind="deleted", at=now, reason=f"deleted by {actor}")

    def transition(
        self,
        job_id: str,
        decide: Callable[[Job], Mapping[str, Any]],
        *,
        kind: str,
        actor: str,
        now: float,
        tenant: str | None = None,
        token: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Job:
        """Change a job's status with all that goes with it, or nothing. For jobs/lifecycle.py alone.

        `decide` says what becomes of the job as it is, and may raise. Raises NotFound, and Fenced if `token` is not
        the one that the job is held by.
        """
        with self._database.begin() as connection:
            job = lock_job(connection, job_id, tenant=tenant, token=token)
            job = change_job(connection, job, decide(job), now=now)
            write_audit(connection, AuditEntry(now, job.tenant, actor, kind, job.id, detail=job.reason))
            event_id = write_event(connection, job, kind=kind, at=now, data=data)
            queue_deliveries(connection, job, event_id=event_id, now=now)
        return job


def page_query(
    equal: Mapping[str, Any],
    *,
    statuses: Sequence[JobStatus],
    tags: Mapping[str, str],
    after: str | None,
    limit: int,
    newest_first: bool,
) -> Select[Any]:
    """A page of jobs. Several statuses are several walks along one index, each as long as the page at most."""

    def ids(status: JobStatus | None) -> Select[Any]:
        query = select(jobs.c.id).where(THERE, *(jobs.c[name] == value for name, value in equal.items()))
        sorting = jobs.c.id
        for key, value in tags.items():
            tag = job_tags.alias()
            query = query.join(tag, tag.c.job_id == jobs.c.id).where(tag.c.key == key, tag.c.value == value)
            sorting = tag.c.job_id  # equal to the job's id, and in the index that finds the tag
        if status is not None:
            query = query.where(jobs.c.status == status)
        if after is not None:
            query = query.where(sorting < after if newest_first else sorting > after)
        return query.order_by(sorting.desc() if newest_first else sorting.asc()).limit(limit)

    walks = [ids(status).subquery() for status in dict.fromkeys(statuses)] or [ids(None).subquery()]
    found = union_all(*(select(walk.c.id) for walk in walks)).subquery() if len(walks) > 1 else walks[0]
    order = jobs.c.id.desc() if newest_first else jobs.c.id.asc()
    return whole_jobs().join(found, found.c.id == jobs.c.id).order_by(order).limit(limit)


def _fact(event: Event, job: Any) -> JobFact:
    return JobFact(
        kind=event.kind,
        at=event.at,
        pool=job.pool,
        created_at=job.created_at,
        due_at=job.due_at,
        film_s=float((job.film or {}).get("seconds", 0.0)),
        code=str(event.data.get("code", "")),
    )


def _use(rows: Iterable[Any]) -> JobUse:
    """What the rows of one job, one for each take, say."""
    job, *others = rows
    keys = frozenset(row.content_key for row in (job, *others) if row.content_key is not None)
    ended_at = job.finished_at if job.status in ENDED else job.deleted_at
    return JobUse(job.id, keys, ended_at=ended_at, deleted_at=job.deleted_at)


def _number(connection: Connection, job: Job) -> Job:
    """The job with the next version of its family. The first of the family is locked meanwhile."""
    if job.family == job.id:
        return job
    connection.execute(select(jobs.c.id).where(jobs.c.id == job.family).with_for_update())
    last = connection.execute(select(func.max(jobs.c.version)).where(jobs.c.family == job.family)).scalar_one()
    return replace(job, version=(last or 0) + 1)


def _job_of(connection: Connection, record: IdempotencyRecord, job_id: str | None) -> Job:
    job = None if job_id is None else find_job(connection, job_id, deleted=True)
    if job is None:
        raise IdempotencyBusy(f"a request with Idempotency-Key {record.key!r} is being answered; try again")
    return job
