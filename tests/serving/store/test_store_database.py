import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, make_url, text

from serving.errors import Fault, StoreUnavailable, UserError
from serving.store.database import Database, open_database
from serving.store.jobs import JobStore
from serving.store.tables import metadata
from testkit.postgres import PrivatePostgres
from testkit.records import NOW, new_job, new_takes

WRITER = """
import sys
from serving.store.database import open_database
from serving.store.jobs import JobStore
from testkit.records import NOW, new_job, new_takes

database = open_database(sys.argv[1])
store = JobStore(database)
for number in range(40):
    job = new_job(NOW + number)
    store.insert(job, new_takes(job), actor="ada/laptop")
    for claimed in store.claim(owner=sys.argv[2], now=NOW, lease_s=60, limit=1):
        print(claimed.id)
database.close()
"""
"""A process that submits and claims."""


def test_the_migrations_make_what_tables_says(database: Database) -> None:
    def is_compared(_: Any, name: str | None, *__: Any) -> bool:
        # SQLite does not say that an index descends; the test below compares its words.
        return database.is_postgres or name not in ("ix_jobs_live", "ix_jobs_live_of_pool")

    with database.engine.connect() as connection:
        opts = {"compare_type": True, "include_object": is_compared}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, metadata) == []


def test_the_migrations_make_the_same_indexes_and_constraints_to_the_letter(
    database: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # compare_metadata does not look at the conditions of indexes and at checks.
    if database.is_postgres:
        server: PrivatePostgres = request.getfixturevalue("postgres")
        url = make_url(server.create_database()).set(drivername="postgresql+psycopg")
    else:
        url = make_url(f"sqlite:///{tmp_path / 'made.db'}")
    engine = create_engine(url)
    metadata.create_all(engine)
    made = definitions(engine)
    engine.dispose()
    assert {name: what for name, what in definitions(database.engine).items() if "alembic" not in name} == made


def definitions(engine: Engine) -> dict[str, Any]:
    """Indexes and constraints by name, as the database spells them."""
    if engine.dialect.name == "postgresql":
        query = """
            SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' UNION ALL
            SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        """
    else:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    with engine.connect() as connection:
        found = {row[0]: row[1] for row in connection.execute(text(query))}
        if engine.dialect.name == "sqlite":
            tables = sqlalchemy.inspect(connection)
            for name in tables.get_table_names():
                checks = tables.get_check_constraints(name)
                found[name] = sorted(str(check["name"]) + check["sqltext"] for check in checks)
    return found


def test_opening_again_changes_nothing(database_url: str) -> None:
    for _ in range(2):
        opened = open_database(database_url)
        opened.ping()
        opened.close()


def test_many_may_open_a_new_database_at_once(tmp_path: Path, postgres: PrivatePostgres) -> None:
    for url in (f"sqlite:///{tmp_path / 'deep' / 'new.db'}", postgres.create_database()):
        opened: list[Database] = []
        threads = [threading.Thread(target=lambda: opened.append(open_database(url))) for _ in range(4)]  # noqa: B023
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(opened) == 4
        for database in opened:
            database.close()


def test_a_database_of_a_newer_release_is_refused(database_url: str) -> None:
    opened = open_database(database_url)
    with opened.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    opened.close()
    with pytest.raises(Fault, match="newer"):
        open_database(database_url)


@pytest.mark.parametrize("url", ["", "farm.db", "mysql://host/farm", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="store_url"):
        open_database(url)


def test_a_transaction_is_kept_whole_or_not_at_all(database: Database) -> None:
    store = JobStore(database)
    job = new_job()
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        store.insert(job, [*new_takes(job), *new_takes(job)], actor="ada/laptop")
    assert store.get(job.id) is None
    assert store.last_event_id() == 0


def test_a_restart_of_postgres_between_two_calls_is_not_noticed(postgres: PrivatePostgres) -> None:
    database = open_database(postgres.create_database())
    store = JobStore(database)
    job = store.insert(new_job(), [], actor="ada/laptop")
    postgres.restart()
    assert store.get(job.id) == job
    postgres.restart()
    store.set_terms(job.id, actor="ada/laptop", now=NOW, priority=70)
    database.close()


def test_a_postgres_that_is_down_makes_the_store_unavailable_until_it_is_back(postgres: PrivatePostgres) -> None:
    database = open_database(postgres.create_database())
    store = JobStore(database)
    postgres.stop()
    try:
        with pytest.raises(StoreUnavailable):
            store.insert(new_job(), [], actor="ada/laptop")
        with pytest.raises(StoreUnavailable):
            database.ping()
    finally:
        postgres.start()
    database.ping()
    database.close()


def test_a_connection_that_breaks_in_a_transaction_makes_the_store_unavailable(postgres: PrivatePostgres) -> None:
    database = open_database(postgres.create_database())

    def lose_the_server() -> None:
        with database.begin() as connection:
            connection.execute(text("SELECT 1"))
            postgres.restart()
            connection.execute(text("SELECT 1"))

    with pytest.raises(StoreUnavailable):
        lose_the_server()
    database.ping()
    database.close()


def test_two_processes_write_one_database(database_url: str) -> None:
    command = [sys.executable, "-c", WRITER, database_url]
    root = Path(__file__).parents[3]
    writers = [
        subprocess.Popen([*command, owner], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)
        for owner in ("one", "two")
    ]
    outputs = [writer.communicate(timeout=100) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], outputs
    claimed = [job_id for output, _ in outputs for job_id in output.split()]
    opened = open_database(database_url)
    store = JobStore(opened)
    claimed += [job.id for job in store.claim(owner="three", now=NOW, lease_s=60, limit=200)]
    assert len(claimed) == len(set(claimed)) == 80
    assert len(store.events_after(0)) == 80
    opened.close()
