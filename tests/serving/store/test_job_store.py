"""A job is accepted with all that belongs to it in few statements, or not at all; what is hidden or lost stays so."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.exc import IntegrityError

from serving.errors import Fenced, NotFound
from serving.jobs.lifecycle import Lifecycle
from serving.store.audit import AuditLog
from serving.store.database import Database
from serving.store.jobs import JobStore
from serving.store.leases import claim_query
from serving.store.records import SYSTEM, IdempotencyRecord, JobProgress, JobStatus, JobUse
from serving.store.tables import metadata
from serving.store.webhooks import Webhooks
from testkit.records import NOW, new_entry, new_job, new_takes

PERSON = "ada/laptop"
RECORD = IdempotencyRecord("ada", "POST /v1/jobs", "key", "a" * 64)


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """The statements that reach the database."""
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if not statement.startswith("BEGIN"):
            statements.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield statements
    event.remove(database.engine, "before_cursor_execute", note)


def num_rows(database: Database) -> dict[str, int]:
    with database.read() as connection:
        counts = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
        }
    return {name: count for name, count in counts.items() if count}


def test_a_job_is_accepted_in_few_statements(store: JobStore, database: Database) -> None:
    store.insert(new_job(), [], actor=PERSON)
    job = new_job(NOW + 1, tags={"a": "b", "c": "d"})
    with counted(database) as statements:
        store.insert(job, new_takes(job, 30), actor=PERSON, idempotency=RECORD)
    # key, job, storyboard, tags, takes, audit, event, and on Postgres the lock that orders events
    assert len(statements) == (8 if database.is_postgres else 7), statements


def test_a_job_is_read_in_one_statement(store: JobStore, database: Database) -> None:
    job = store.insert(new_job(), [], actor=PERSON)
    with counted(database) as statements:
        assert store.get(job.id) == job
    assert len(statements) == 1, statements


def test_progress_of_many_jobs_is_written_in_as_few_statements_as_of_one(store: JobStore, database: Database) -> None:
    for number in range(20):
        job = new_job(NOW + number)
        store.insert(job, new_takes(job), actor=PERSON)
    held = store.claim(owner="one", now=NOW, lease_s=10, limit=20)
    updates = [
        JobProgress(job.id, job.lease_token, 5.0, 20, 1, None, False, tuple(store.takes(job.id))) for job in held
    ]
    with counted(database) as statements:
        assert store.save_progress(updates, [new_entry(job) for job in held], now=NOW) == set()
    # lock, jobs, takes, ledger, sums of jobs, sums of takes
    assert len(statements) == 6, statements


def test_a_job_that_cannot_be_stored_leaves_nothing(store: JobStore, database: Database) -> None:
    before = num_rows(database)
    job = new_job(tags={"a": "b"})
    with pytest.raises(IntegrityError):
        store.insert(job, new_takes(job, 1) * 2, actor=PERSON, idempotency=RECORD)
    assert num_rows(database) == before


def test_terms_of_a_job_that_is_not_there_leave_nothing(store: JobStore, database: Database) -> None:
    before = num_rows(database)
    with pytest.raises(NotFound, match="job_nowhere"):
        store.set_terms("job_nowhere", actor=PERSON, now=NOW, priority=1)
    with pytest.raises(NotFound, match="job_nowhere"):
        store.note("job_nowhere", kind="retry", reason="a gang died", now=NOW)
    assert num_rows(database) == before


def test_other_tenants_jobs_cannot_be_changed(store: JobStore) -> None:
    job = store.insert(new_job(), [], actor=PERSON)
    with pytest.raises(NotFound):
        store.set_terms(job.id, actor="bob/pc", now=NOW, tenant="bob", priority=90)
    with pytest.raises(NotFound):
        store.delete(job.id, actor="bob/pc", now=NOW, tenant="bob")
    assert store.get(job.id) == job


def test_what_no_person_asked_for_is_not_in_the_audit_log(store: JobStore, database: Database) -> None:
    job = store.insert(new_job(), [], actor=PERSON)
    store.set_terms(job.id, actor=SYSTEM, now=NOW, priority=1)
    assert [line.action for line in AuditLog(database).list()] == ["submit"]


def test_an_unknown_status_is_refused_by_the_database_itself(store: JobStore) -> None:
    with pytest.raises(IntegrityError):
        store.insert(new_job(status="lost"), [], actor=PERSON)


def test_a_thousand_takes_are_accepted_at_once(store: JobStore) -> None:
    job = new_job()
    store.insert(job, new_takes(job, 1000), actor=PERSON)
    assert [take.index for take in store.takes(job.id)] == list(range(1000))


def test_a_note_is_heard_of_and_a_lease_is_not(store: JobStore) -> None:
    job = store.insert(new_job(), [], actor=PERSON)
    [held] = store.claim(owner="one", now=NOW, lease_s=10, limit=1)
    store.renew({held.id: held.lease_token}, now=NOW + 1, lease_s=10)
    assert store.changed_since({job.id: job.revision, "job_nowhere": 1}) == []
    store.note(job.id, token=held.lease_token, kind="retry", reason="a gang died", now=NOW + 1, data={"gang": "g1"})
    [changed] = store.changed_since({job.id: job.revision})
    assert changed == replace(held, lease_until=NOW + 11, revision=job.revision + 1, updated_at=NOW + 1)
    last = store.events_after(0)[-1]
    assert (last.kind, last.reason, last.status, last.data) == ("retry", "a gang died", "queued", {"gang": "g1"})


def test_whoever_holds_a_deleted_job_is_fenced(store: JobStore) -> None:
    store.insert(new_job(), [], actor=PERSON)
    [held] = store.claim(owner="one", now=NOW, lease_s=10, limit=1)
    store.delete(held.id, actor=PERSON, now=NOW + 5)
    late = JobProgress(held.id, held.lease_token, 5.0, 20, 1, None, False, ())
    assert store.save_progress([late], now=NOW + 6) == {held.id}
    assert store.events_after(0, job_id=held.id)[-1].kind == "deleted"
    assert sum(store.count().values()) == 0
    assert store.claim(owner="two", now=NOW + 100, lease_s=10, limit=1) == []
    assert store.uses() == [JobUse(held.id, frozenset(), ended_at=NOW + 5, deleted_at=NOW + 5)]


@pytest.mark.parametrize(
    ("status", "finished_at", "deleted_at", "ended_at"),
    [
        ("queued", None, None, None),
        ("paused", None, None, None),
        ("completed", NOW + 1, None, NOW + 1),
        ("failed", NOW + 2, None, NOW + 2),
        ("cancelled", NOW + 3, NOW + 4, NOW + 3),
        ("in_progress", None, NOW + 5, NOW + 5),
    ],
)
def test_every_job_is_known_with_what_it_used_and_when_it_ended(
    store: JobStore, status: JobStatus, finished_at: float | None, deleted_at: float | None, ended_at: float | None
) -> None:
    job = new_job(status=status, finished_at=finished_at, deleted_at=deleted_at)
    first, *others = new_takes(job)
    store.insert(job, [replace(first, content_key="k" * 64), *others], actor=PERSON)
    bare = store.insert(new_job(), [], actor=PERSON)
    uses = {use.job_id: use for use in store.uses()}
    assert uses == {
        job.id: JobUse(job.id, frozenset({"k" * 64}), ended_at=ended_at, deleted_at=deleted_at),
        bare.id: JobUse(bare.id, frozenset()),
    }


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_on_postgres_a_claimer_passes_over_what_another_is_taking(store: JobStore, database: Database) -> None:
    first, second = (store.insert(new_job(NOW + number), [], actor=PERSON) for number in range(2))
    with database.begin() as other:
        assert [row.id for row in other.execute(claim_query(NOW, 1, "default"))] == [first.id]
        assert [job.id for job in store.claim(owner="two", now=NOW, lease_s=10, limit=1)] == [second.id]


def test_a_limit_counts_over_all_pools_and_what_was_not_taken_stays_free(store: JobStore) -> None:
    for number in range(6):
        store.insert(new_job(NOW, pool="ab"[number % 2], priority=number), [], actor=PERSON)
    claimed = store.claim(owner="one", now=NOW, lease_s=10, limit=3, pools=["a", "b", "a", "nowhere"])
    assert [job.priority for job in claimed] == [5, 4, 3]
    assert len(store.claim(owner="two", now=NOW, lease_s=10, limit=9, pools=["a", "b"])) == 3
    assert store.claim(owner="two", now=NOW, lease_s=10, limit=9, pools=[]) == []


def test_a_token_is_worth_nothing_once_its_job_was_given_back(store: JobStore) -> None:
    store.insert(new_job(), [], actor=PERSON)
    [held] = store.claim(owner="one", now=NOW, lease_s=10, limit=1)
    store.release({held.id: held.lease_token})
    late = JobProgress(held.id, held.lease_token, 5.0, 20, 1, None, False, ())
    assert store.save_progress([late], now=NOW) == {held.id}
    with pytest.raises(Fenced):
        store.note(held.id, token=held.lease_token, kind="retry", reason="too late", now=NOW)
    [again] = store.claim(owner="two", now=NOW, lease_s=10, limit=1)
    store.release({held.id: held.lease_token})
    found = store.get(held.id)
    assert found is not None
    assert (found.lease_owner, found.lease_token) == ("two", again.lease_token)


def test_more_leases_are_renewed_than_one_statement_may_name(store: JobStore) -> None:
    for number in range(3):
        store.insert(new_job(NOW + number), [], actor=PERSON)
    tokens = {job.id: job.lease_token for job in store.claim(owner="one", now=NOW, lease_s=10, limit=3)}
    strangers = {f"job_nowhere{number}": 1 for number in range(1000)}
    assert store.renew(strangers | tokens, now=NOW, lease_s=10) == set(tokens)


def test_what_a_take_cost_is_the_ledgers_to_write(store: JobStore) -> None:
    job = new_job()
    store.insert(job, new_takes(job), actor=PERSON)
    [held] = store.claim(owner="one", now=NOW, lease_s=10, limit=1)
    wrong = tuple(replace(take, gpu_seconds=99.0, wasted_gpu_seconds=99.0) for take in store.takes(job.id))
    said = JobProgress(held.id, held.lease_token, 5.0, 20, 1, None, False, wrong)
    store.save_progress([said], [new_entry(job, take=1, useful_s=3.0)], now=NOW)
    assert [take.gpu_seconds for take in store.takes(job.id)] == [0.0, 3.0]
    assert [take.wasted_gpu_seconds for take in store.takes(job.id)] == [0.0, 0.0]


def test_a_transition_whose_event_cannot_be_written_changes_nothing(store: JobStore, database: Database) -> None:
    job = store.insert(new_job(), [], actor=PERSON)
    Webhooks(database).add(tenant="ada", url="https://example.com/hook", now=NOW)
    before = num_rows(database)
    with pytest.raises(TypeError):
        Lifecycle(database).apply(job.id, "cancel", reason="asked", actor=PERSON, now=NOW, data={"what": object()})
    assert store.get(job.id) == job
    assert num_rows(database) == before
