"""What the fake API server keeps: objects, their versions, and the history that watches are served from.

One version counts for everything, as in etcd. Knows nothing of HTTP, patches or schemas.
"""

import base64
import copy
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from testkit.json_object import Json
from tests.cluster.api_server.refusals import Refusal, bad_request, expired

Key = tuple[str, str, str, str]
"""Group, plural, namespace (empty if there is none) and name."""

FIRST_VERSION = 1000
MAX_HISTORY = 100_000


@dataclass(frozen=True)
class Entry:
    """One write."""

    version: int
    key: Key
    before: Json | None
    after: Json | None
    """None: deleted."""
    last: Json
    """What a watch shows: the object, or as it was when it was deleted."""


class Store:
    """All objects. Whoever uses several methods as one step holds `changed`."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = FIRST_VERSION
        self.floor = FIRST_VERSION
        """Versions below are forgotten."""
        self._objects: dict[Key, Json] = {}
        self._history: list[Entry] = []

    def get(self, key: Key) -> Json | None:
        """A copy."""
        with self.changed:
            return copy.deepcopy(self._objects.get(key))

    def view(self) -> dict[Key, Json]:
        """All objects, no copies: nobody may change them."""
        with self.changed:
            return dict(self._objects)

    def of(self, group: str, plural: str) -> list[Json]:
        """Copies of all objects of a kind."""
        with self.changed:
            return [copy.deepcopy(one) for key, one in sorted(self._objects.items()) if key[:2] == (group, plural)]

    def put(self, key: Key, one: Json) -> Json:
        """Store an object under the next version; returns a copy."""
        with self.changed:
            before = self._objects.get(key)
            self.version += 1
            one = copy.deepcopy(one)
            one["metadata"]["resourceVersion"] = str(self.version)
            self._objects[key] = one
            self._remember(Entry(self.version, key, before, one, one))
            return copy.deepcopy(one)

    def remove(self, key: Key) -> Json:
        """Delete an object; returns it as watches show it."""
        with self.changed:
            before = self._objects.pop(key)
            self.version += 1
            last = copy.deepcopy(before)
            last["metadata"]["resourceVersion"] = str(self.version)
            self._remember(Entry(self.version, key, before, None, last))
            return copy.deepcopy(last)

    def _remember(self, entry: Entry) -> None:
        self._history.append(entry)
        if len(self._history) > MAX_HISTORY:
            self.floor = self._history.pop(0).version
        self.changed.notify_all()

    def forget(self) -> None:
        """Compaction: no watch can begin and no page be continued at a version before the newest."""
        with self.changed:
            self.floor = self.version
            self._history.clear()

    # ------------------------------------------------------------------------------------------------ lists

    def at(self, version: int) -> dict[Key, Json]:
        """All objects as they were. Raises a Refusal if that is forgotten."""
        with self.changed:
            if version < self.floor:
                raise expired(version, self.floor)
            objects = dict(self._objects)
            for entry in reversed(self._history):
                if entry.version <= version:
                    break
                if entry.before is None:
                    objects.pop(entry.key, None)
                else:
                    objects[entry.key] = entry.before
            return objects

    def page(
        self, chosen: Callable[[Key, Json], bool], *, version: int | None, limit: int, token: str | None
    ) -> tuple[list[Json], Json]:
        """Some objects and the metadata of the list. `version`: None for the newest."""
        with self.changed:
            after: list[str] = []
            if token:
                version, after = _read_token(token)
            version = self.version if version is None else version
            found = sorted((key, one) for key, one in self.at(version).items() if chosen(key, one))
            rest = [(key, one) for key, one in found if list(key) > after]
            shown = rest[:limit] if limit else rest
            about: Json = {"resourceVersion": str(version)}
            if len(shown) < len(rest):
                about["continue"] = _write_token(version, shown[-1][0])
                about["remainingItemCount"] = len(rest) - len(shown)
            return [copy.deepcopy(one) for _, one in shown], about

    # ------------------------------------------------------------------------------------------------ watches

    def since(self, version: int) -> list[Entry]:
        """Writes after a version, oldest first. Raises a Refusal if they are forgotten."""
        with self.changed:
            if version < self.floor:
                raise expired(version, self.floor)
            return list(self._newer(version))[::-1]

    def _newer(self, version: int) -> Iterator[Entry]:
        for entry in reversed(self._history):
            if entry.version <= version:
                return
            yield entry


def _write_token(version: int, key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps({"rv": version, "start": key}).encode()).decode()


def _read_token(token: str) -> tuple[int, list[str]]:
    try:
        read = json.loads(base64.urlsafe_b64decode(token))
        return int(read["rv"]), list(read["start"])
    except (ValueError, KeyError) as error:
        raise bad_request("continue key is not valid") from error


def read_version(text: str | None) -> int | None:
    """None for no version. Raises a Refusal."""
    if not text:
        return None
    if not text.isdigit():
        raise Refusal(400, "BadRequest", f'invalid resource version "{text}"')
    return int(text)
