"""Small facts that outlive a process: what pools are and can do now, measured costs, the Directors' generation.

Each is a JSON value under a kind and a name, and replaces the one before it.
"""

from typing import Any, cast

from sqlalchemy import select, update

from serving.store.database import Database
from serving.store.records import StoredSupply
from serving.store.rows import insert_or
from serving.store.tables import learned


class Learned:
    """The facts; JobStore is one of these."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def learn(self, kind: str, name: str, value: Any, *, now: float) -> None:
        """Keep a fact in place of the one before it."""
        with self._database.begin() as connection:
            statement = insert_or(connection, learned).values(kind=kind, name=name, value=value, at=now)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["kind", "name"], set_={"value": value, "at": now})
            )

    def recall(self, kind: str, name: str) -> Any | None:
        """A fact that was kept."""
        query = select(learned.c.value).where(learned.c.kind == kind, learned.c.name == name)
        with self._database.read() as connection:
            return connection.execute(query).scalar_one_or_none()

    def recall_all(self, kind: str) -> dict[str, Any]:
        """Every fact of a kind, by name."""
        query = select(learned.c.name, learned.c.value).where(learned.c.kind == kind)
        with self._database.read() as connection:
            return {row.name: row.value for row in connection.execute(query)}

    def advance(self, name: str, *, before: int, after: int, by: int, now: float) -> bool:
        """Move a mark that says how far something was read, which only rises, from `before` to `after`, for the
        Director of generation `by`; a mark that is not there stands at 0. False if it is elsewhere: another has
        moved it. Asked again, because the answer was lost, it says the same."""
        this = (learned.c.kind == "mark", learned.c.name == name)
        with self._database.begin() as connection:
            first = insert_or(connection, learned).values(kind="mark", name=name, value={"n": 0, "by": 0}, at=now)
            connection.execute(first.on_conflict_do_nothing())
            value = connection.execute(select(learned.c.value).where(*this).with_for_update()).scalar_one()
            if value["n"] == before:
                value = {"n": after, "by": by}
                connection.execute(update(learned).where(*this).values(value=value, at=now))
        return bool(value == {"n": after, "by": by})

    def mark(self, name: str) -> int | None:
        """How far something was read; None if it never was."""
        value = self.recall("mark", name)
        return None if value is None else int(value["n"])

    def pool_numerics(self, pool: str) -> dict[str, str] | None:
        """What the bytes of a pool's predictions depend on, as its gangs last said."""
        return cast("dict[str, str] | None", self.recall("numerics", pool))

    def pool_supply(self, pool: str) -> StoredSupply | None:
        """What the Director last said of a pool."""
        value = self.recall("supply", pool)
        return None if value is None else StoredSupply(**value)

    def next_generation(self, *, now: float) -> int:
        """A number higher than that of any Director before."""
        this = (learned.c.kind == "generation", learned.c.name == "director")
        with self._database.begin() as connection:
            first = insert_or(connection, learned).values(kind="generation", name="director", value={"n": 0}, at=now)
            connection.execute(first.on_conflict_do_nothing())
            value = connection.execute(select(learned.c.value).where(*this).with_for_update()).scalar_one()
            number = int(value["n"]) + 1
            connection.execute(update(learned).where(*this).values(value={"n": number}, at=now))
        return number

    def generation(self) -> int:
        """The number of the newest Director; 0 before the first."""
        value = self.recall("generation", "director")
        return 0 if value is None else int(value["n"])
