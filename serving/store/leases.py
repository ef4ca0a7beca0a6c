"""Who holds a job: claims, renewals, and what only the holder may write.

A claim gives a job a new token. Every write of a holder names its token and does nothing if the job has another, so
a Director that was taken for dead, and is not, can do no harm. The token changes whenever the job is taken or given
back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, case, func, or_, select, update

from serving.store.database import Database
from serving.store.events import write_event
from serving.store.ledger import write_costs
from serving.store.records import Job, JobProgress, LedgerEntry, WaitingJob
from serving.store.rows import batches, change_job, lock_job, take_row, to_job, whole_jobs
from serving.store.tables import LIVE_JOB, jobs, takes

GIVEN_BACK: Mapping[str, Any] = {"lease_owner": None, "lease_until": None, "lease_token": jobs.c.lease_token + 1}
"""What releases a job, whoever holds it."""


class Leases:
    """The part of JobStore that Directors work with."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self, *, owner: str, now: float, lease_s: float, limit: int, pools: Sequence[str] | None = None
    ) -> Sequence[Job]:
        """Take up to `limit` live jobs that nobody holds, highest priority first, then oldest.

        Two claimers never get the same job. A lease that ran out is anybody's to claim, also of who let it run out: so
        renew before you claim.
        """
        queries = [claim_query(now, limit, pool) for pool in (dict.fromkeys(pools) if pools is not None else (None,))]
        with self._database.begin() as connection:
            free = [row for query in queries for row in connection.execute(query)]
            free = sorted(free, key=lambda row: (-row.priority, row.id))[:limit]
            for batch in batches(row.id for row in free):
                values = {"lease_owner": owner, "lease_until": now + lease_s, "lease_token": jobs.c.lease_token + 1}
                connection.execute(update(jobs).where(jobs.c.id.in_(batch)).values(values))
            taken = _by_id(connection, [row.id for row in free])
        return [taken[row.id] for row in free]

    def waiting(self, *, now: float, limit: int) -> tuple[Sequence[WaitingJob], Mapping[str, int]]:
        """Live jobs that nobody holds: the first `limit` of them in the order of `claim`, and for each pool the calls
        of all of them that are not done."""
        left = jobs.c.calls_total - jobs.c.calls_done
        first = (
            select(jobs.c.id, jobs.c.pool, jobs.c.due_at, jobs.c.created_at, left.label("calls_left"))
            .where(LIVE_JOB, _is_free(now))
            .order_by(jobs.c.priority.desc(), jobs.c.id)
            .limit(limit)
        )
        sums = select(jobs.c.pool, func.sum(left).label("calls")).where(LIVE_JOB, _is_free(now)).group_by(jobs.c.pool)
        with self._database.read() as connection:
            found = [WaitingJob(**row._mapping) for row in connection.execute(first)]
            return found, {row.pool: int(row.calls) for row in connection.execute(sums)}

    def renew(self, tokens: Mapping[str, int], *, now: float, lease_s: float) -> set[str]:
        """Hold on to jobs; returns the ids of those that are still held. A lease that ran out is, until it is taken."""
        with self._database.begin() as connection:
            held = _held(connection, tokens)
            for batch in batches(held):
                connection.execute(update(jobs).where(jobs.c.id.in_(batch)).values(lease_until=now + lease_s))
        return held

    def release(self, tokens: Mapping[str, int]) -> None:
        """Give jobs back for others to claim."""
        with self._database.begin() as connection:
            for batch in batches(_held(connection, tokens)):
                connection.execute(update(jobs).where(jobs.c.id.in_(batch)).values(GIVEN_BACK))

    def save_progress(
        self, updates: Sequence[JobProgress], entries: Sequence[LedgerEntry] = (), *, now: float
    ) -> set[str]:
        """Write down how far jobs are and what they cost; returns the ids of those that are not held any more, of
        which nothing is written. `entries` are of these jobs alone. Progress never falls."""
        tokens = {one.job_id: one.token for one in updates}
        assert all(entry.job_id in tokens for entry in entries)
        with self._database.begin() as connection:
            held = _held(connection, tokens)
            mine = [one for one in updates if one.job_id in held]
            if mine:
                connection.execute(_SAVE_JOB, [_progress_row(one, now) for one in mine])
            if rows := [_prefixed(take_row(take)) for one in mine for take in one.takes]:
                connection.execute(_SAVE_TAKE, rows)
            write_costs(connection, [entry for entry in entries if entry.job_id in held])
        return tokens.keys() - held

    def changed_since(self, revisions: Mapping[str, int]) -> Sequence[Job]:
        """Of these jobs those that have a higher revision than the one named, deleted ones included."""
        with self._database.read() as connection:
            changed = [
                row.id
                for batch in batches(revisions)
                for row in connection.execute(select(jobs.c.id, jobs.c.revision).where(jobs.c.id.in_(batch)))
                if row.revision > revisions[row.id]
            ]
            return list(_by_id(connection, changed).values())

    def note(
        self,
        job_id: str,
        *,
        kind: str,
        reason: str,
        now: float,
        token: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """An event that changes nothing of the job but its revision: a retry, a warning, a take that is done. Raises
        NotFound, and Fenced where a `token` is named that does not hold the job."""
        with self._database.begin() as connection:
            job = change_job(connection, lock_job(connection, job_id, token=token), {}, now=now)
            write_event(connection, job, kind=kind, at=now, data=data, reason=reason)


def claim_query(now: float, limit: int, pool: str | None) -> Select[Any]:
    """Live jobs that nobody holds, of one pool or of all, locked; those that another locks are passed over."""
    query = select(jobs.c.id, jobs.c.priority).where(LIVE_JOB, _is_free(now))
    if pool is not None:
        query = query.where(jobs.c.pool == pool)
    query = query.order_by(jobs.c.priority.desc(), jobs.c.id).limit(limit)
    return query.with_for_update(skip_locked=True)


def _is_free(now: float) -> ColumnElement[bool]:
    return or_(jobs.c.lease_until.is_(None), jobs.c.lease_until <= now)


def _by_id(connection: Connection, ids: Sequence[str]) -> dict[str, Job]:
    rows = [row for batch in batches(ids) for row in connection.execute(whole_jobs().where(jobs.c.id.in_(batch)))]
    return {row.id: to_job(row) for row in rows}


def _held(connection: Connection, tokens: Mapping[str, int]) -> set[str]:
    """Those of these jobs that are held by these tokens, locked to the end of the transaction."""
    return {
        row.id
        for batch in batches(sorted(tokens))  # in order, so that two who lock several never wait for each other
        for row in connection.execute(
            select(jobs.c.id, jobs.c.lease_token)
            .where(jobs.c.id.in_(batch), jobs.c.deleted_at.is_(None))
            .order_by(jobs.c.id)
            .with_for_update()
        )
        if row.lease_token == tokens[row.id]
    }


def _prefixed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {f"b_{name}": value for name, value in row.items()}


def _progress_row(one: JobProgress, now: float) -> dict[str, Any]:
    names = ("progress", "calls_total", "calls_done", "eta_at", "at_risk")
    return _prefixed({name: getattr(one, name) for name in names}) | {"b_id": one.job_id, "b_now": now}


_SAVE_JOB = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"))
    .values(
        progress=case((jobs.c.progress > bindparam("b_progress"), jobs.c.progress), else_=bindparam("b_progress")),
        calls_total=bindparam("b_calls_total"),
        calls_done=bindparam("b_calls_done"),
        eta_at=bindparam("b_eta_at"),
        at_risk=bindparam("b_at_risk"),
        updated_at=bindparam("b_now"),
        revision=jobs.c.revision + 1,
    )
)

_LEDGERS = ("gpu_seconds", "wasted_gpu_seconds")
"""Columns of a take that only the ledger writes."""

_SAVE_TAKE = (
    update(takes)
    .where(takes.c.job_id == bindparam("b_job_id"), takes.c.index == bindparam("b_index"))
    .values(
        {
            column.name: bindparam(f"b_{column.name}", type_=column.type)
            for column in takes.c
            if not column.primary_key and column.name not in _LEDGERS
        }
    )
)
