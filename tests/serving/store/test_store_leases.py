import threading
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Text, cast, insert, literal, select, text, true

from serving.errors import Fenced
from serving.store.database import Database
from serving.store.jobs import JobStore
from serving.store.leases import claim_query
from serving.store.records import Job, JobProgress
from serving.store.tables import jobs
from testkit.records import NOW, new_entry, new_job, new_takes

LEASE_S = 10.0


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


def submit(store: JobStore, count: int = 1, **changes: object) -> list[Job]:
    made = [new_job(NOW + number, **changes) for number in range(count)]
    return [store.insert(job, new_takes(job), actor="ada/laptop") for job in made]


def claim(store: JobStore, owner: str = "one", *, now: float = NOW, limit: int = 10) -> list[Job]:
    return list(store.claim(owner=owner, now=now, lease_s=LEASE_S, limit=limit))


def progress(job: Job, store: JobStore, *, percent: float = 40.0) -> JobProgress:
    takes = tuple(replace(take, status="rendering", calls_done=4, step_counts=[3, 6]) for take in store.takes(job.id))
    return JobProgress(
        job_id=job.id,
        token=job.lease_token,
        progress=percent,
        calls_total=20,
        calls_done=8,
        eta_at=NOW + 60,
        at_risk=True,
        takes=takes,
    )


def whole(store: JobStore, job: Job) -> tuple[object, ...]:
    return store.get(job.id), list(store.takes(job.id)), list(store.events_after(0, job_id=job.id))


def test_claims_go_by_priority_and_then_by_age(store: JobStore) -> None:
    older, newer = submit(store, 2)
    urgent = submit(store, 1, priority=90)[0]
    assert [job.id for job in claim(store, limit=2)] == [urgent.id, older.id]
    assert [job.id for job in claim(store, limit=2)] == [newer.id]


def test_a_claim_of_some_pools_leaves_the_others(store: JobStore) -> None:
    one, other = submit(store, 1, pool="small")[0], submit(store, 1, pool="large")[0]
    assert [job.id for job in store.claim(owner="a", now=NOW, lease_s=1, limit=9, pools=["large"])] == [other.id]
    assert [job.id for job in claim(store)] == [one.id]


def test_jobs_that_are_over_or_deleted_are_not_claimed(store: JobStore) -> None:
    submit(store, 1, status="paused")
    submit(store, 1, status="completed")
    deleted = submit(store)[0]
    store.delete(deleted.id, actor="ada/laptop", now=NOW)
    assert claim(store) == []


def test_two_claimers_at_once_never_share_a_job(store: JobStore) -> None:
    submitted = submit(store, 60)
    got: dict[str, list[str]] = {"one": [], "two": [], "three": []}
    start = threading.Barrier(len(got))

    def work(owner: str) -> None:
        start.wait()
        while found := claim(store, owner, limit=3):
            got[owner] += [job.id for job in found]

    threads = [threading.Thread(target=work, args=(owner,)) for owner in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    claimed = [job_id for ids in got.values() for job_id in ids]
    # A claimer that finds the last jobs locked goes home; nobody else has those it missed.
    claimed += [job.id for job in claim(store, "last", limit=99)]
    assert sorted(claimed) == sorted(job.id for job in submitted)


def test_a_lease_that_ran_out_is_taken_over_with_a_higher_token(store: JobStore) -> None:
    submit(store)
    first = claim(store, "one")[0]
    assert claim(store, "two", now=NOW + LEASE_S - 0.1) == []
    second = claim(store, "two", now=NOW + LEASE_S)[0]
    assert (second.id, second.lease_owner) == (first.id, "two")
    assert second.lease_token > first.lease_token


def test_a_lease_that_ran_out_can_be_renewed_while_nobody_has_taken_it(store: JobStore) -> None:
    submit(store)
    job = claim(store, "one")[0]
    late = NOW + 5 * LEASE_S
    assert store.renew({job.id: job.lease_token}, now=late, lease_s=LEASE_S) == {job.id}
    assert claim(store, "two", now=late + 1) == []


def test_a_lease_that_was_taken_over_cannot_be_renewed(store: JobStore) -> None:
    submit(store, 2)
    lost, kept = claim(store, "one")
    store.renew({kept.id: kept.lease_token}, now=NOW + 5, lease_s=LEASE_S)
    claim(store, "two", now=NOW + LEASE_S)
    tokens = {lost.id: lost.lease_token, kept.id: kept.lease_token}
    assert store.renew(tokens, now=NOW + LEASE_S, lease_s=LEASE_S) == {kept.id}


def test_a_released_job_can_be_claimed_at_once_and_only_its_holder_can_release_it(store: JobStore) -> None:
    submit(store)
    job = claim(store, "one")[0]
    store.release({job.id: job.lease_token - 1})
    assert claim(store, "two") == []
    store.release({job.id: job.lease_token})
    assert [found.id for found in claim(store, "two")] == [job.id]
    assert store.renew({job.id: job.lease_token}, now=NOW, lease_s=LEASE_S) == set()


def test_a_holder_writes_progress_takes_and_costs(store: JobStore) -> None:
    submit(store)
    job = claim(store)[0]
    assert store.save_progress([progress(job, store)], [new_entry(job, useful_s=2, wasted_s=1)], now=NOW + 1) == set()
    after = store.get(job.id)
    assert after is not None
    assert (after.progress, after.calls_done, after.eta_at, after.at_risk) == (40.0, 8, NOW + 60, True)
    assert (after.gpu_seconds, after.wasted_gpu_seconds) == (2.0, 1.0)
    assert after.usd == pytest.approx(0.03)
    assert [take.step_counts for take in store.takes(job.id)] == [[3, 6], [3, 6]]
    assert after.revision > job.revision


def test_progress_never_falls(store: JobStore) -> None:
    submit(store)
    job = claim(store)[0]
    store.save_progress([progress(job, store, percent=60)], now=NOW)
    store.save_progress([progress(job, store, percent=30)], now=NOW)
    after = store.get(job.id)
    assert after is not None
    assert after.progress == 60


def test_who_lost_a_job_changes_nothing_of_it(store: JobStore) -> None:
    submit(store, 2)
    lost, kept = claim(store, "one")
    stale = progress(lost, store)
    store.renew({kept.id: kept.lease_token}, now=NOW + 5, lease_s=LEASE_S)
    claim(store, "two", now=NOW + LEASE_S)
    before = whole(store, lost)
    entries = [new_entry(lost), new_entry(kept)]
    assert store.save_progress([stale, progress(kept, store)], entries, now=NOW + 11) == {lost.id}
    with pytest.raises(Fenced):
        store.note(lost.id, token=lost.lease_token, kind="warned", reason="too late", now=NOW + 11)
    assert whole(store, lost) == before
    after = store.get(kept.id)
    assert after is not None
    assert after.gpu_seconds == 1.0


def test_what_changed_since_is_found_by_revision(store: JobStore) -> None:
    one, other = submit(store, 2)
    store.set_terms(other.id, actor="ada/laptop", now=NOW, priority=80)
    assert [job.id for job in store.changed_since({one.id: one.revision, other.id: other.revision})] == [other.id]


@pytest.mark.parametrize("pool", [None, "default"])
def test_a_claim_walks_the_index_of_live_jobs(database: Database, pool: str | None) -> None:
    store = JobStore(database)
    over, live = new_job(status="completed", finished_at=NOW), new_job(NOW + 1)
    for job in (over, live):
        store.insert(job, [], actor="ada/laptop")
    with database.begin() as connection:
        multiply(connection, over, count=20_000)
        multiply(connection, live, count=500)
        connection.execute(text("ANALYZE"))
    query = claim_query(NOW, 10, pool).compile(database.engine, compile_kwargs={"literal_binds": True})
    explain = "EXPLAIN" if database.is_postgres else "EXPLAIN QUERY PLAN"
    with database.read() as connection:
        plan = "\n".join(str(tuple(row)) for row in connection.execute(text(f"{explain} {query}")))
    assert "ix_jobs_live" in plan, plan
    assert "Sort" not in plan, plan
    assert "TEMP B-TREE" not in plan, plan


def multiply(connection: Connection, job: Job, *, count: int) -> None:
    """Copies of a job under other ids."""
    numbers = select(literal(1).label("n")).cte(recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < count))
    identity = literal(f"{job.id}-") + cast(numbers.c.n, Text)
    columns = [identity if column.name in ("id", "family") else column for column in jobs.c]
    copies = select(*columns).select_from(jobs.join(numbers, true())).where(jobs.c.id == job.id)
    connection.execute(insert(jobs).from_select(list(jobs.c.keys()), copies))
