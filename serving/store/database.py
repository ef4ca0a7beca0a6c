"""Opens the database, SQLite or Postgres, and turns its failures into ours.

SQLite: one host, several processes; write-ahead log; a transaction that writes takes the write lock at its beginning,
so that none fails half-way for another's sake. Postgres: a bounded pool whose connections are tried before use, so that
a restart of the server costs at most the transactions that it interrupted. Nothing is tried again here: whoever calls
knows whether a second try is safe.
"""

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Connection, event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from serving.errors import StoreUnavailable, UserError, hide_urls
from serving.store.migrations import migrate, schema_version

STORE_CONNECTIONS = 10
"""Connections that one process holds to the database."""

STORE_BUSY_S = 10.0
"""Seconds to wait for a connection, for a lock, or for SQLite's turn to write."""

STORE_CONNECT_S = 5.0
"""Seconds to wait for Postgres to accept a connection."""

STORE_STATEMENT_S = 30.0
"""Seconds that one statement may take on Postgres."""

STORE_IDLE_S = 60.0
"""Seconds that a transaction may do nothing on Postgres: a process that was stopped must not keep its locks."""


_PASSING = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN}
)
"""Primary result codes of SQLite that a later try may not meet; the others are our mistakes."""

_write_json = partial(json.dumps, allow_nan=False, separators=(",", ":"))


class Database:
    """A database that has the tables of this release. Close it to give its connections back."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.dialect = engine.dialect.name
        """`sqlite` or `postgresql`."""
        alone = {"reading": True} if self.dialect == "sqlite" else {"isolation_level": "AUTOCOMMIT"}
        self._reading = engine.execution_options(**alone)
        self._turn = threading.Lock()
        """SQLite lets one write at a time. Threads of one process wait here in place of polling the file."""

    @property
    def is_postgres(self) -> bool:
        return self.dialect == "postgresql"

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that may write: all of it or nothing. Must not be nested. Raises StoreUnavailable for what a
        later try may cure; where that comes at the very end, the transaction may have been kept all the same."""
        with self._take_turn(), translated(), self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading only. On SQLite all statements see one moment, on Postgres each its own."""
        with translated(), self._reading.connect() as connection:
            yield connection

    def ping(self) -> None:
        """Raises StoreUnavailable if the database does not answer."""
        with self.read() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))

    def schema_version(self) -> str:
        """The newest step of migrations/ that it has taken. Raises StoreUnavailable."""
        with self.read() as connection:
            return schema_version(connection) or "none"

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _take_turn(self) -> Iterator[None]:
        if self.is_postgres:
            yield
            return
        if not self._turn.acquire(timeout=STORE_BUSY_S):
            raise StoreUnavailable("the store is busy: other writers of this process take too long")
        try:
            yield
        finally:
            self._turn.release()


def open_database(url: str) -> Database:
    """Open `sqlite:///path` or `postgresql://...` and bring its tables up to this release.

    Raises StoreUnavailable, UserError for a URL that cannot be meant, Fault for a database of a newer release.
    """
    engine = _engine(url)
    try:
        with translated():
            migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return Database(engine)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns failures of the connection or of a busy database into StoreUnavailable."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable("the store is busy: no connection became free in time") from error
    except DBAPIError as error:
        if error.connection_invalidated or _passes(error):
            raise StoreUnavailable(f"the store does not answer: {_first_line(error)}") from error
        raise


def _passes(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", None)  # the extended code; its lowest byte is the primary one
        return code is not None and code & 0xFF in _PASSING
    return isinstance(error, (OperationalError, InterfaceError))


def _first_line(error: DBAPIError) -> str:
    lines = str(error.orig).splitlines() or [type(error.orig).__name__]
    return hide_urls(lines[0])[:300]


def _engine(url: str) -> Engine:
    message = "store_url: must be sqlite:///path or postgresql://user:password@host/database"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise UserError(message) from error
    match parsed.get_backend_name():
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return _sqlite(parsed)
        case "postgresql" | "postgres":
            return _postgres(parsed)
        case _:
            raise UserError(message)


def _sqlite(url: URL) -> Engine:
    Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(
        url.set(drivername="sqlite+pysqlite"),
        connect_args={"timeout": STORE_BUSY_S, "check_same_thread": False},
        pool_size=STORE_CONNECTIONS,
        max_overflow=0,
        pool_timeout=STORE_BUSY_S,
        json_serializer=_write_json,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # transactions are ours to begin
        _use_log(connection)
        connection.execute("PRAGMA synchronous=FULL").close()  # what was committed survives a power cut
        connection.execute("PRAGMA foreign_keys=ON").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _use_log(connection: sqlite3.Connection) -> None:
    """Switch a new file to its write-ahead log. SQLite does not wait by itself where another process is at it."""
    patience = time.monotonic() + STORE_BUSY_S
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError:
            if time.monotonic() > patience:
                raise
            time.sleep(0.01)


def _postgres(url: URL) -> Engine:
    bounds = {
        "statement_timeout": STORE_STATEMENT_S,
        "lock_timeout": STORE_BUSY_S,
        "idle_in_transaction_session_timeout": STORE_IDLE_S,
    }
    options = " ".join(f"-c {name}={round(seconds * 1000)}" for name, seconds in bounds.items())
    own = url.query.get("options", "")
    return sqlalchemy.create_engine(
        url.set(drivername="postgresql+psycopg").difference_update_query(["options"]),
        pool_size=STORE_CONNECTIONS,
        max_overflow=0,
        pool_timeout=STORE_BUSY_S,
        pool_pre_ping=True,
        json_serializer=_write_json,
        connect_args={
            "connect_timeout": round(STORE_CONNECT_S),
            "application_name": "longtake",
            # A server that vanished without a word is noticed also while its answer is waited for.
            "keepalives_idle": round(STORE_CONNECT_S),
            "keepalives_interval": round(STORE_CONNECT_S),
            "keepalives_count": 3,
            "tcp_user_timeout": round(STORE_STATEMENT_S * 1000),
            "options": f"{options} {own if isinstance(own, str) else ' '.join(own)}".strip(),
        },
    )
