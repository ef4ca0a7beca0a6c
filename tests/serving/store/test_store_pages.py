import threading

import pytest

from serving.errors import NotFound
from serving.store.audit import AuditEntry, AuditLog
from serving.store.database import Database
from serving.store.jobs import JobStore
from serving.store.records import Event, Job
from testkit.records import NOW, new_job, new_takes


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


def pages(store: JobStore, *, limit: int = 3, **how: object) -> list[str]:
    """The ids of all jobs of a list, read page by page."""
    found: list[str] = []
    while page := store.list(after=found[-1] if found else None, limit=limit, **how):  # type: ignore[arg-type]
        assert len(page) <= limit
        found += [job.id for job in page]
    return found


def submit(store: JobStore, count: int, **changes: object) -> list[str]:
    # Several in one millisecond: then chance decides their order, and pages must go by it all the same.
    made = [new_job(NOW + number // 3, **changes) for number in range(count)]
    return [store.insert(job, new_takes(job), actor="ada/laptop").id for job in made]


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_show_every_job_once_in_order(store: JobStore, newest_first: bool) -> None:
    ids = submit(store, 10)
    assert pages(store, newest_first=newest_first) == sorted(ids, reverse=newest_first)


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_of_a_selection_show_it_alone_and_all_of_it(store: JobStore, newest_first: bool) -> None:
    ada = submit(store, 4) + submit(store, 4, status="paused", tags={"film": "ring", "for": "ada"})
    submit(store, 3, tenant="bob", tags={"film": "ring"})
    failed = submit(store, 4, status="failed", finished_at=NOW, kind="video")
    deleted = submit(store, 1)[0]
    store.delete(deleted, actor="ada/laptop", now=NOW)

    def ordered(ids: list[str]) -> list[str]:
        return sorted(ids, reverse=newest_first)

    assert pages(store, newest_first=newest_first, tenant="ada") == ordered(ada + failed)
    assert pages(store, newest_first=newest_first, tenant="ada", statuses=["paused", "failed"]) == ordered(
        ada[4:] + failed
    )
    assert pages(store, newest_first=newest_first, kind="video") == ordered(failed)
    assert pages(store, newest_first=newest_first, tags={"film": "ring", "for": "ada"}) == ordered(ada[4:])
    assert pages(store, newest_first=newest_first, tenant="ada", tags={"film": "ring"}) == ordered(ada[4:])
    assert pages(store, tags={"film": "king"}) == []
    assert store.count(tenant="ada") | {"queued": 0} == {
        "queued": 0,
        "in_progress": 0,
        "paused": 4,
        "completed": 0,
        "failed": 4,
        "cancelled": 0,
    }


def test_jobs_that_come_meanwhile_do_not_move_a_page(store: JobStore) -> None:
    ids = submit(store, 6)
    first = [job.id for job in store.list(limit=3)]
    store.insert(new_job(NOW + 100), [], actor="ada/laptop")
    assert first + [job.id for job in store.list(after=first[-1], limit=3)] == sorted(ids, reverse=True)


def test_versions_of_a_family_are_numbered_by_the_store(store: JobStore) -> None:
    first = store.insert(new_job(), [], actor="ada/laptop")
    made: list[Job] = []

    def revise(number: int) -> None:
        job = new_job(NOW + number, family=first.id, parent=first.id, version=2)
        made.append(store.insert(job, [], actor="ada/laptop"))

    threads = [threading.Thread(target=revise, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(job.version for job in made) == [2, 3, 4, 5]
    assert {job.id for job in store.list(family=first.id)} == {first.id, *(job.id for job in made)}


def test_a_job_is_read_back_as_it_was_written(store: JobStore) -> None:
    text = 'ein roter Ball \U0001f534 "quoted" \\ \u2028 end'
    job = new_job(title=text, tags={text[:20]: text}, storyboard={"b": [1, 2.5, None], "a": text}, budget_usd=0.1)
    takes = new_takes(job)
    store.insert(job, takes, actor="ada/laptop")
    found = store.get(job.id)
    assert found == job
    assert found is not None
    assert list(found.storyboard) == ["b", "a"]
    assert list(store.takes(job.id)) == takes


def test_a_deleted_job_is_not_there_and_cannot_be_changed(store: JobStore) -> None:
    job_id = submit(store, 1)[0]
    held = store.claim(owner="one", now=NOW, lease_s=10, limit=1)[0]
    store.delete(job_id, actor="ada/laptop", now=NOW)
    assert store.get(job_id) is None
    assert store.renew({job_id: held.lease_token}, now=NOW, lease_s=10) == set()
    assert [job.deleted_at for job in store.changed_since({job_id: held.revision})] == [NOW]
    with pytest.raises(NotFound):
        store.set_terms(job_id, actor="ada/laptop", now=NOW, priority=1)
    with pytest.raises(NotFound):
        store.delete(job_id, actor="ada/laptop", now=NOW)


def test_changed_terms_leave_an_event_and_a_line_in_the_audit_log(database: Database, store: JobStore) -> None:
    job_id = submit(store, 1)[0]
    job = store.set_terms(job_id, actor="ada/laptop", now=NOW + 1, priority=90, budget_usd=2.5)
    assert store.get(job_id) == job
    assert (job.priority, job.budget_usd) == (90, 2.5)
    event = store.events_after(0, job_id=job_id)[-1]
    assert (event.kind, event.data) == ("changed", {"priority": 90, "budget_usd": 2.5})
    line = AuditLog(database).list(target=job_id)[0]
    assert (line.action, line.detail) == ("change", "priority 90, budget_usd 2.5")


def test_a_reader_of_all_events_misses_none_while_many_write(store: JobStore) -> None:
    seen: list[Event] = []
    ids = submit(store, 4)
    done = threading.Event()

    def write(job_id: str) -> None:
        for number in range(30):
            store.note(job_id, kind="retried", reason=f"time {number}", now=NOW)

    def read() -> None:
        while True:
            last_look = done.is_set()
            while events := store.events_after(seen[-1].id if seen else 0, limit=7):
                seen.extend(events)
            if last_look:
                return

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(job_id,)) for job_id in ids]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert len(seen) == 4 + 4 * 30
    assert [event.id for event in seen] == sorted({event.id for event in seen})
    assert store.last_event_id() == seen[-1].id


def test_events_are_read_of_one_job_or_one_tenant(store: JobStore) -> None:
    job_id = submit(store, 2)[0]
    submit(store, 1, tenant="bob")
    assert [event.job_id for event in store.events_after(0, job_id=job_id)] == [job_id]
    assert [event.tenant for event in store.events_after(0, tenant="bob")] == ["bob"]
    assert len(store.events_after(0)) == 3


def test_the_audit_log_is_read_page_by_page_for_one_tenant(database: Database) -> None:
    log = AuditLog(database)
    for number in range(5):
        log.add(AuditEntry(NOW + number, "ada", "ada/laptop", "revoke", f"key_{number}", result="refused"))
        log.add(AuditEntry(NOW + number, "bob", "bob/pc", "create", f"key_{number}"))
    log.add(AuditEntry(NOW, "ada", "longtake", "sweep", "all"))  # no person
    found: list[AuditEntry] = []
    while page := log.list(tenant="ada", before=found[-1].id if found else None, limit=2):
        found += page
    assert [entry.target for entry in found] == [f"key_{number}" for number in reversed(range(5))]
    assert {entry.result for entry in found} == {"refused"}
