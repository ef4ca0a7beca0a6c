"""The ledger: GPU-seconds and money by job, take and shot, useful and wasted apart. Only added to.

It is also the only writer of the sums that jobs and takes carry, in the same transaction, so they always agree. Entries
are facts that add up in any order, and each is written once however often it is sent.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from serving.store.database import Database
from serving.store.records import LedgerEntry
from serving.store.rows import batches, insert_or
from serving.store.tables import jobs, ledger, takes

_SUMS = (
    func.coalesce(func.sum(ledger.c.useful_s), 0.0).label("gpu_seconds"),
    func.coalesce(func.sum(ledger.c.wasted_s), 0.0).label("wasted_gpu_seconds"),
    func.coalesce(func.sum(ledger.c.usd), 0.0).label("usd"),
)


@dataclass(frozen=True)
class Cost:
    """What something cost."""

    gpu_seconds: float
    """Useful ones."""
    wasted_gpu_seconds: float
    usd: float
    """Useful and wasted together."""


@dataclass(frozen=True)
class ShotCost(Cost):
    """What one shot of a job cost."""

    take: str
    shot: str


class Ledger:
    """Reads the ledger, and takes entries of jobs that the writer need not hold any more."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, entries: Sequence[LedgerEntry]) -> None:
        """Write entries, whoever holds their jobs now: the GPU-seconds are spent. For those of a job that is held,
        JobStore.save_progress does it in one transaction with the job's progress."""
        with self._database.begin() as connection:
            write_costs(connection, entries)

    def by_job(self, job_id: str) -> Sequence[ShotCost]:
        """What each shot of a job cost."""
        query = select(ledger.c.take, ledger.c.shot, *_SUMS).where(ledger.c.job_id == job_id)
        query = query.group_by(ledger.c.take, ledger.c.shot).order_by(ledger.c.take, ledger.c.shot)
        with self._database.read() as connection:
            return [ShotCost(**row._mapping) for row in connection.execute(query)]

    def by_tenant(self, *, since: float, until: float) -> dict[str, Cost]:
        """What each tenant spent in since <= time < until."""
        query = select(ledger.c.tenant, *_SUMS).where(ledger.c.at >= since, ledger.c.at < until)
        query = query.group_by(ledger.c.tenant).order_by(ledger.c.tenant)
        with self._database.read() as connection:
            return {
                row.tenant: Cost(row.gpu_seconds, row.wasted_gpu_seconds, row.usd) for row in connection.execute(query)
            }


def write_costs(connection: Connection, entries: Iterable[LedgerEntry]) -> None:
    """Write entries that are new, and add them to the sums of their jobs and takes, within a transaction."""
    by_job: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    by_take: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for entry in _new(connection, entries):
        for place, value in enumerate((entry.useful_s, entry.wasted_s, entry.usd)):
            by_job[entry.job_id][place] += value
        for place, value in enumerate((entry.useful_s, entry.wasted_s)):
            by_take[entry.job_id, entry.take][place] += value
    if by_job:
        connection.execute(_ADD_TO_JOB, [_sums(*values, b_id=job_id) for job_id, values in sorted(by_job.items())])
        rows = [_sums(*values, b_id=job_id, b_key=take) for (job_id, take), values in sorted(by_take.items())]
        connection.execute(_ADD_TO_TAKE, rows)


def _new(connection: Connection, entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """Write entries, and return those that were not there yet."""
    new = []
    for batch in batches({entry.id: entry for entry in entries}.values()):
        statement = insert_or(connection, ledger).on_conflict_do_nothing(index_elements=["id"]).returning(ledger.c.id)
        written = set(connection.execute(statement, [asdict(entry) for entry in batch]).scalars())
        new += [entry for entry in batch if entry.id in written]
    return new


def _sums(useful_s: float, wasted_s: float, usd: float | None = None, **where: str) -> dict[str, Any]:
    money = {} if usd is None else {"b_usd": usd}
    return {"b_useful": useful_s, "b_wasted": wasted_s, **money, **where}


_ADD_TO_JOB = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"))
    .values(
        gpu_seconds=jobs.c.gpu_seconds + bindparam("b_useful"),
        wasted_gpu_seconds=jobs.c.wasted_gpu_seconds + bindparam("b_wasted"),
        usd=jobs.c.usd + bindparam("b_usd"),
        revision=jobs.c.revision + 1,
    )
)

_ADD_TO_TAKE = (
    update(takes)
    .where(takes.c.job_id == bindparam("b_id"), takes.c.key == bindparam("b_key"))
    .values(
        gpu_seconds=takes.c.gpu_seconds + bindparam("b_useful"),
        wasted_gpu_seconds=takes.c.wasted_gpu_seconds + bindparam("b_wasted"),
    )
)
