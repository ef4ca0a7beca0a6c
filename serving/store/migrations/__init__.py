"""Brings a database's tables up to this release: the steps lie in versions/, and Alembic runs those that are missing.

To write the next step: change tables.py, then call `write_step("what it does", database.engine)` on an up-to-date
database, and read and repair what it wrote.
"""

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from serving.errors import Fault

MIGRATION_S = 600.0
"""Seconds that one statement of a migration may take on Postgres, and that others wait for it to be done."""


MIGRATION_LOCK = 7_203_150_411
"""Key of the Postgres advisory lock under which migrations run."""

_one_at_a_time = threading.Lock()  # Alembic keeps the migration that runs in a global


def migrate(engine: Engine) -> None:
    """Run what the database lacks, all in one transaction; whoever comes second waits and finds nothing to do.

    Raises Fault if the database is of a newer release.
    """
    config = _config()
    scripts = ScriptDirectory.from_config(config)
    with engine.connect() as connection:
        if _is_current(connection, scripts):
            return
    with _one_at_a_time, engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            _lock(connection)
        if not _is_current(connection, scripts):
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def schema_version(connection: Connection) -> str | None:
    """The newest step that a database has taken; None for one without tables."""
    return MigrationContext.configure(connection).get_current_revision()


def write_step(message: str, engine: Engine) -> None:
    """Write the step from the tables of a database to those of tables.py into versions/."""
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        steps = list(ScriptDirectory.from_config(config).walk_revisions())
        command.revision(config, message, autogenerate=True, rev_id=f"{len(steps) + 1:04}")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    return config


def _is_current(connection: Connection, scripts: ScriptDirectory) -> bool:
    current = schema_version(connection)
    known = {step.revision for step in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise Fault(f"the database was made by a newer Longtake (its tables are of step {current})")
    return current == scripts.get_current_head()


def _lock(connection: Connection) -> None:
    patience_ms = round(MIGRATION_S * 1000)
    for bound in ("statement_timeout", "lock_timeout"):
        connection.execute(text(f"SET LOCAL {bound} = {patience_ms}"))
    connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
