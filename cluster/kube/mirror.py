"""A copy of all objects of one kind, kept up by lists and watch events, and when to ask the server again.

Pure: knows no connection, thread or clock. informer.py carries it out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from cluster.contract.backoff import Backoff
from cluster.kube.client import Json, Listing
from cluster.kube.errors import Gone, KubeError, Unavailable, error_of_event

ChangeKind = Literal["added", "modified", "deleted"]
Key = tuple[str, str]
"""Namespace, empty for cluster-wide kinds, and name."""

BACKOFF = Backoff(first_s=0.5, cap_s=15.0)
"""Bounds of random waits. Less than the 30 s of client-go: notices of spot nodes come 30 to 120 s before the end."""

HEALTHY_S = 5.0
"""Seconds that a watch must last, or bring an event, to count as one that worked."""


@dataclass(frozen=True)
class Change:
    """One thing that happened to one object."""

    kind: ChangeKind
    object: Json
    """As it is now; if it was deleted, as it was last."""


@dataclass(frozen=True)
class Next:
    """What to do after a list or a watch has ended."""

    relist: bool
    """Whether to list again; else the watch goes on from the last version."""
    pause_s: float
    failures: int
    """Failures in a row until now."""


class Mirror:
    """The copy. Its changes never tell of the same version of an object twice."""

    def __init__(self) -> None:
        self.version: str | None = None
        """Version of the whole from which a watch goes on; None before the first list."""
        self._objects: dict[Key, Json] = {}

    @property
    def objects(self) -> Mapping[Key, Json]:
        return self._objects

    def relist(self, listing: Listing) -> list[Change]:
        """Take over a whole list; returns how it differs from what was known."""
        before, self._objects = self._objects, {key_of(one): one for one in listing.items}
        self.version = listing.version
        gone = [Change("deleted", old) for key, old in before.items() if key not in self._objects]
        return gone + [change for key, new in self._objects.items() for change in _difference(before.get(key), new)]

    def take(self, event: Mapping[str, Any], *, what: str) -> list[Change]:
        """Take over an event of a watch; returns what it says that was not known. Raises Gone and other KubeErrors for
        events that tell of an error."""
        kind, about = event.get("type"), event.get("object")
        if kind == "ERROR" or not isinstance(about, dict):
            raise error_of_event(about if isinstance(about, dict) else {}, what=what)
        version = about.get("metadata", {}).get("resourceVersion")
        if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK") or not version:
            raise Unavailable(f"{what}: an event of type {kind!r} and version {version!r}")
        self.version = version
        if kind == "BOOKMARK":
            return []
        key = key_of(about)
        before = self._objects.get(key)
        if kind == "DELETED":
            self._objects.pop(key, None)
            return [Change("deleted", about)] if before is not None else []
        self._objects[key] = about
        return _difference(before, about)


def _difference(before: Json | None, now: Json) -> list[Change]:
    if before is None:
        return [Change("added", now)]
    if before["metadata"].get("uid") != now["metadata"].get("uid"):  # deleted and created again, unseen
        return [Change("deleted", before), Change("added", now)]
    same = before["metadata"].get("resourceVersion") == now["metadata"].get("resourceVersion")
    return [] if same else [Change("modified", now)]


def key_of(about: Json) -> Key:
    return str(about["metadata"].get("namespace") or ""), str(about["metadata"]["name"])


def decide_next(end: KubeError | None, *, worked: bool, failures: int, random: Random) -> Next:
    """After a watch or list ended with `end`, None if as agreed. `worked`: it lasted HEALTHY_S, or brought something.

    A watch that ends as agreed, or worked until its connection broke, goes on at once. A version that is gone is listed
    anew at once. Anything that fails repeatedly waits longer and longer, at random, so that many controllers do
    not come back at the same moment after an outage; never less than the server asked for.
    """
    asked_s = end.retry_after_s if isinstance(end, Unavailable) else None
    relist = end is not None and not isinstance(end, Unavailable)
    if worked:
        failures = 0
    calm = end is None or isinstance(end, Gone) or worked
    if calm and failures == 0 and asked_s is None:
        return Next(relist, 0.0, 0 if worked else 1)
    return Next(relist, max(backoff_s(failures, random), asked_s or 0.0), failures + 1)


def backoff_s(failures: int, random: Random) -> float:
    """Seconds to wait after `failures` earlier ones in a row: exponential, with full jitter."""
    return random.uniform(0.0, BACKOFF.wait_s(failures + 1))
