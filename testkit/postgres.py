"""A private Postgres for tests: made, started and removed by them, reached through a socket in its own folder.

Fixtures: `postgres` (the server), `postgres_url` (an empty database of the session), `database_url` (a database of one
test that has our tables, SQLite and Postgres in turn) and `database` (the same, opened).
"""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from serving.store.database import Database, open_database
from testkit.test_tools import NO_POSTGRES

START_S = 30.0
"""Seconds that the server may take to start or to stop."""


class PrivatePostgres:
    """A server of our own; only this machine's user can reach it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._server: subprocess.Popen[bytes] | None = None
        self._names = (f"test_{number}" for number in itertools.count())
        # Postgres refuses to run as root.
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(folder, user.pw_uid, user.pw_gid)
            identity = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
            # A server whose tests were killed ends too.
            self._as_user = ["setpriv", *identity, "--pdeathsig=INT"]

    def create(self) -> None:
        """Make the server's files."""
        options = ("-U", "farm", "-A", "trust", "-E", "UTF8", "--no-sync")
        self._run("initdb", "-D", str(self._data), *options)

    def start(self) -> None:
        """Start it and wait until it answers."""
        fast = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB")
        options = [part for setting in ("listen_addresses=", "max_connections=80", *fast) for part in ("-c", setting)]
        command = [*self._as_user, find_program("postgres"), "-D", str(self._data), "-k", str(self._folder), *options]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment(), cwd=self._folder)
        until = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > until or self._server.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it at once; connections are cut."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(START_S)
            self._server = None

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def url(self, name: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://farm@/{name}?host={self._folder}"

    def create_database(self, *, template: str = "template0") -> str:
        """The URL of a new database, a copy of `template`, which nobody may be connected to."""
        name = next(self._names)
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database; connections to it are cut."""
        self._execute(f"DROP DATABASE {url.partition('@/')[2].partition('?')[0]} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, find_program(program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment(), cwd=self._folder)
        assert done.returncode == 0, done.stderr

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "LC_ALL": "C", "HOME": str(self._folder)}


def find_program(name: str) -> str:
    """The path of a program of Postgres. Raises FileNotFoundError."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    for folder in (os.environ.get("PG_BIN", ""), *map(str, reversed(packaged))):
        if folder and (Path(folder) / name).exists():
            return str(Path(folder) / name)
    if (found := shutil.which(name)) is None:
        raise FileNotFoundError(name)
    return found


@contextlib.contextmanager
def private_postgres() -> Iterator[PrivatePostgres]:
    """A running server, removed at the end. Raises FileNotFoundError if Postgres is not installed."""
    find_program("initdb")
    # Not below pytest's folders: a socket's path may have about 100 characters, and others may not look into those.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    server = PrivatePostgres(folder)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    """A Postgres server of this session."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(private_postgres())
        except FileNotFoundError:
            pytest.skip(NO_POSTGRES)
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: PrivatePostgres) -> str:
    """An empty database of this session."""
    return postgres.create_database()


@pytest.fixture(scope="session")
def _postgres_template(postgres: PrivatePostgres) -> str:
    """The name of a database that has our tables, to be copied."""
    url = postgres.create_database()
    open_database(url).close()
    return url.partition("@/")[2].partition("?")[0]


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that has our tables, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    open_database(f"sqlite:///{path}").close()  # with its last connection SQLite empties its log into the file
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of this test alone that has our tables and nothing in them; each kind in turn."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("_sqlite_template")
        yield f"sqlite:///{shutil.copy(template, tmp_path / 'farm.db')}"
        return
    server: PrivatePostgres = request.getfixturevalue("postgres")
    url = server.create_database(template=request.getfixturevalue("_postgres_template"))
    yield url
    server.drop_database(url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The same, opened."""
    opened = open_database(database_url)
    yield opened
    opened.close()
