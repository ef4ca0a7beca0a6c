"""On Postgres ids are drawn before transactions end; a reader must not see a later one and lose an earlier."""

import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import text

from serving.store.database import Database
from serving.store.events import write_event
from serving.store.jobs import JobStore
from serving.store.records import Event
from testkit.records import NOW, new_job


def wait_until(condition: Callable[[], bool], patience_s: float = 20.0) -> None:
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until
        threading.Event().wait(0.01)


def is_waiting(database: Database) -> bool:
    query = """
        SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
        WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted
    """
    with database.read() as connection:
        return bool(connection.execute(text(query)).scalar_one())


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_later_event_is_not_shown_before_an_earlier_one(database: Database) -> None:
    store = JobStore(database)
    slow, quick = (store.insert(new_job(NOW + number), [], actor="ada/laptop") for number in range(2))
    seen = store.last_event_id()
    read: list[Event] = []
    reader = threading.Thread(target=lambda: read.extend(store.events_after(seen)))
    with database.begin() as connection:
        earlier = write_event(connection, slow, kind="retry", at=NOW)
        store.note(quick.id, kind="retry", reason="quick", now=NOW)  # has a later id, and is kept at once
        assert [event.reason for event in store.events_after(seen, job_id=quick.id)] == ["quick"]
        reader.start()
        wait_until(lambda: is_waiting(database))
        assert read == []
    reader.join(20)
    assert [event.job_id for event in read] == [slow.id, quick.id]
    assert read[0].id == earlier < read[1].id


def test_the_newest_event_is_known_for_all_and_for_one_job(database: Database) -> None:
    store = JobStore(database)
    assert store.last_event_id() == store.last_event_id(job_id="job_nowhere") == 0
    one, other = (store.insert(new_job(NOW + number), [], actor="ada/laptop") for number in range(2))
    store.note(one.id, kind="retry", reason="a gang died", now=NOW)
    assert store.last_event_id(job_id=other.id) < store.last_event_id(job_id=one.id) == store.last_event_id()
