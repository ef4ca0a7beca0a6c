"""What follows from a deletion: finalizers, owners and dependents, namespaces, and the objects of a CRD.

The garbage collector of a real cluster does this a little later; here it is done before the answer is sent.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

from testkit.json_object import Json
from tests.cluster.api_server.kinds import CRD_GROUP, Kinds
from tests.cluster.api_server.store import Key, Store

FOREGROUND = "foregroundDeletion"


@dataclass(frozen=True)
class Deletions:
    """Its caller holds the store's lock."""

    store: Store
    kinds: Kinds
    time: Callable[[], str]

    def delete(self, key: Key, policy: str) -> Json | None:
        """Delete an object; returns what is left of it, None if nothing."""
        one = self.store.get(key)
        assert one is not None
        contents = self._contents(key, one)
        if policy == "Orphan":
            self._orphan(one["metadata"]["uid"])
        if policy == "Foreground":
            contents += self._dependents(one["metadata"]["uid"])
        if one["metadata"].get("finalizers") or contents:
            self._mark(key, one, FOREGROUND if policy == "Foreground" and contents else None)
            for other in contents:
                if self.store.get(other) is not None:
                    self.delete(other, policy if policy == "Foreground" else "Background")
        else:
            self._remove(key, one)
        self._collect()
        return self.store.get(key)

    def after_write(self, key: Key, one: Json) -> Json:
        """A write may have taken the last finalizer away, or named an owner that is not there. Returns the object."""
        meta = one["metadata"]
        if meta.get("deletionTimestamp") and not meta.get("finalizers") and not self._contents(key, one):
            self._remove(key, one)
        self._collect()
        return self.store.get(key) or one

    def _mark(self, key: Key, one: Json, finalizer: str | None) -> None:
        meta = one["metadata"]
        if meta.get("deletionTimestamp"):
            return
        meta |= {"deletionTimestamp": self.time(), "deletionGracePeriodSeconds": 0}
        if finalizer:
            meta["finalizers"] = [*(meta.get("finalizers") or []), finalizer]
        if "generation" in meta:
            meta["generation"] += 1
        if key[:2] == ("", "namespaces"):
            one["status"] = {**(one.get("status") or {}), "phase": "Terminating"}
        self.store.put(key, one)

    def _remove(self, key: Key, one: Json) -> None:
        self.store.remove(key)
        if key[0] == CRD_GROUP:
            self.kinds.unregister(one)

    def _contents(self, key: Key, one: Json) -> list[Key]:
        """What lives in a namespace, or as a CRD declares it."""
        if key[:2] == ("", "namespaces"):
            return [other for other in self.store.view() if other[2] == key[3]]
        if key[0] == CRD_GROUP:
            mine = (one["spec"]["group"], one["spec"]["names"]["plural"])
            return [other for other in self.store.view() if other[:2] == mine]
        return []

    def _dependents(self, uid: str) -> list[Key]:
        return [key for key, one in self.store.view().items() if uid in _owners(one)]

    def _orphan(self, uid: str) -> None:
        for key in self._dependents(uid):
            one = self.store.get(key)
            assert one is not None
            kept = [owner for owner in one["metadata"]["ownerReferences"] if owner["uid"] != uid]
            one["metadata"]["ownerReferences"] = kept
            self.store.put(key, one)

    def _collect(self) -> None:
        """Until nothing is left to collect: dependents without owners, and what waited for others to go."""
        while self._collect_once():
            pass

    def _collect_once(self) -> bool:
        objects = self.store.view()
        uids = {one["metadata"]["uid"] for one in objects.values()}
        for key, one in objects.items():
            meta, owners = one["metadata"], _owners(one)
            if owners and not uids & owners and not meta.get("deletionTimestamp"):
                if meta.get("finalizers"):
                    self._mark(key, copy.deepcopy(one), None)
                else:
                    self._remove(key, one)
                return True
            if not meta.get("deletionTimestamp") or self._contents(key, one):
                continue
            finalizers = meta.get("finalizers") or []
            if (finalizers == [FOREGROUND] and not self._dependents(meta["uid"])) or not finalizers:
                self._remove(key, one)
                return True
        return False


def _owners(one: Json) -> set[str]:
    return {owner["uid"] for owner in one["metadata"].get("ownerReferences") or []}
