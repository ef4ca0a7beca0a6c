"""With 100,000 jobs stored, claims, pages and events look at little more than what they return.

Rows and steps are counted, not seconds: on Postgres the rows that each part of the plan produced or threw away, on
SQLite the instructions of its virtual machine.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Executable,
    Table,
    Text,
    case,
    cast,
    event,
    func,
    insert,
    literal,
    select,
    text,
    true,
)
from sqlalchemy.sql import ClauseElement

from serving.store.database import Database
from serving.store.jobs import JobStore, page_query
from serving.store.leases import claim_query
from serving.store.records import JobStatus
from serving.store.tables import events, job_tags, jobs, storyboards
from testkit.records import NOW, new_job

NUM_JOBS = 100_000
NUM_LEASED = 200
MOST_ROWS = 2_000
MOST_STEPS = 50_000

SELECTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "of a tenant": {"equal": {"tenant": "t3"}},
    "of one status": {"statuses": ("failed",)},
    "of a tenant and a rare status": {"equal": {"tenant": "t3"}, "statuses": ("failed",)},
    "of a tenant and several statuses": {
        "equal": {"tenant": "t3"},
        "statuses": ("queued", "in_progress", "paused", "failed"),
    },
    "of a rare kind": {"equal": {"tenant": "t3", "kind": "video"}},
    "of a tag": {"tags": {"film": "ring"}},
    "of a family": {"equal": {"family": "job_00050003"}},
}


@pytest.fixture
def farm(database: Database) -> Database:
    """100,000 jobs of ten tenants: half of them wait, the foremost 200 are held, the rest is over."""
    numbers = select(literal(0).label("n")).cte(recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < NUM_JOBS - 1))
    n = numbers.c.n
    identity = "job_" + func.substr(cast(n + 10**8, Text), 2)
    tenant = "t" + cast(n % 10, Text)
    held = n < NUM_LEASED
    varied = {
        "id": identity,
        "family": identity,
        "tenant": tenant,
        "status": case((held, "in_progress"), (n % 5000 == 3, "failed"), (n % 2 == 1, "queued"), else_="completed"),
        "priority": case((held, 90), else_=50),
        "lease_owner": case((held, "other")),
        "lease_until": case((held, NOW + 60)),
        "kind": case((n % 1000 == 3, "video"), else_="native"),
    }
    template = new_job()
    with database.begin() as connection:
        _fill(
            connection,
            jobs,
            numbers,
            {**{c.name: getattr(template, c.name) for c in jobs.c if c.name != "id"}, **varied},
        )
        _fill(connection, storyboards, numbers, {"job_id": identity, "storyboard": {}})
        tags = {"job_id": identity, "key": "film", "value": case((n % 1000 == 0, "ring"), else_="other")}
        _fill(connection, job_tags, numbers, tags)
        happened = {"at": NOW, "kind": "submitted", "status": "queued", "reason": "accepted", "data": {}}
        _fill(connection, events, numbers, {**happened, "job_id": identity, "tenant": tenant})
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    return database


def _fill(connection: Connection, table: Table, numbers: CTE, values: Mapping[str, Any]) -> None:
    """A row for every number."""
    columns = [
        value if isinstance(value, ColumnElement) else cast(literal(value, table.c[name].type), table.c[name].type)
        for name, value in values.items()
    ]
    connection.execute(insert(table).from_select(list(values), select(*columns).select_from(numbers)))


def _looked_at(database: Database, query: Executable) -> int:
    """The rows that Postgres went through for a query."""
    assert isinstance(query, ClauseElement)
    words = query.compile(database.engine, compile_kwargs={"literal_binds": True})
    with database.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {words}").scalar_one()
    return _count(plan[0]["Plan"] if isinstance(plan, list) else json.loads(plan)[0]["Plan"])


def _count(node: dict[str, Any]) -> int:
    removed = sum(rows for name, rows in node.items() if name.startswith("Rows Removed"))
    own = node["Actual Loops"] * (node["Actual Rows"] + removed)
    return int(own) + sum(_count(part) for part in node.get("Plans", []))


def _steps(database: Database, act: Callable[[], object]) -> int:
    """The instructions that SQLite went through, to the hundred."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 100
        return 0

    def watch(connection: Any, *_: Any) -> None:
        connection.set_progress_handler(count, 100)

    event.listen(database.engine, "checkout", watch)
    act()
    event.remove(database.engine, "checkout", watch)
    return steps


def _read(database: Database, query: Any) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(query))


def _assert_little_work(database: Database, query: Any, *, rows: int | None, what: str) -> None:
    found = _read(database, query)
    assert rows is None or len(found) == rows, what
    if database.is_postgres:
        assert _looked_at(database, query) <= MOST_ROWS, what
    else:
        assert _steps(database, lambda: _read(database, query)) <= MOST_STEPS, what


def test_claims_and_pages_look_at_little_more_than_they_return(farm: Database) -> None:
    for pool in ("default", None):
        _assert_little_work(farm, claim_query(NOW, 10, pool), rows=10, what=f"claim of pool {pool}")
    for name, selection in SELECTIONS.items():
        for after in (None, "job_00050005"):
            for newest_first in (True, False):
                options = {"equal": {}, "statuses": (), "tags": {}, **selection}
                query = page_query(**options, after=after, limit=20, newest_first=newest_first)
                _assert_little_work(farm, query, rows=None, what=f"page {name}, after {after}, {newest_first=}")
    last = JobStore(farm).last_event_id()
    for column in (true(), events.c.tenant == "t3", events.c.job_id == "job_00050003"):
        for earlier in (0, last - 30):
            query = select(events).where(column, events.c.id > earlier).order_by(events.c.id).limit(20)
            _assert_little_work(farm, query, rows=None, what=f"events by {column} after {earlier}")

    store = JobStore(farm)
    assert [job.id for job in store.claim(owner="one", now=NOW, lease_s=9, limit=2, pools=["default"])] == [
        "job_00000201",
        "job_00000203",
    ]
    newest = store.list(tenant="t3", statuses=(JobStatus.FAILED, JobStatus.QUEUED), limit=2)
    assert [job.id for job in newest] == ["job_00099993", "job_00099983"]
    if not farm.is_postgres:
        acts: list[Callable[[], object]] = [
            lambda: store.claim(owner="one", now=NOW, lease_s=9, limit=10, pools=["default", "none"]),
            lambda: store.list(tenant="t3", limit=20),
            lambda: store.events_after(store.last_event_id() - 5),
            lambda: store.get("job_00050003", tenant="t3"),
            lambda: store.changed_since({f"job_{number:08d}": 1 for number in range(50)}),
        ]
        for act in acts:
            assert _steps(farm, act) <= MOST_STEPS
