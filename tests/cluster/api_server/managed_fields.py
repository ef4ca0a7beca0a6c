"""Which fields an object has, who set them, and server-side apply.

A field is a path of steps: ("f", name) into a map, ("k", keys as JSON) to an item of a list that is a map, ("v", value
as JSON) to one of a list that is a set. Whatever has no finer structure is one field. How a list merges is said by a
schema: x-kubernetes-list-type and -map-type, as in a CRD.
"""

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any

from testkit.json_object import Json
from tests.cluster.api_server.refusals import Refusal

Path = tuple[tuple[str, str], ...]

_OWN_LISTS: Mapping[str, Json] = {
    "finalizers": {"x-kubernetes-list-type": "set"},
    "ownerReferences": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"]},
    "conditions": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    "containers": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    "initContainers": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    "env": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    "volumes": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
}
"""Lists of metadata and of built-in kinds, by name; every other list of a built-in kind is atomic here."""

_NOT_OWNED = {
    ("apiVersion",),
    ("kind",),
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("metadata", "uid"),
    ("metadata", "resourceVersion"),
    ("metadata", "generation"),
    ("metadata", "creationTimestamp"),
    ("metadata", "deletionTimestamp"),
    ("metadata", "deletionGracePeriodSeconds"),
    ("metadata", "managedFields"),
}


# ------------------------------------------------------------------------------------------------------- structure


def child_schema(schema: Json | None, name: str, *, top: bool = False) -> Json | None:
    """Of a property. None: a built-in kind, whose lists are known by name."""
    if schema is None or (top and name == "metadata"):
        return None
    properties, rest = schema.get("properties") or {}, schema.get("additionalProperties")
    found: Json = properties.get(name, rest if isinstance(rest, dict) else {})
    return found


def list_keys(schema: Json | None, name: str) -> list[str] | None:
    """Names of the keys by which the items of a list merge; empty for a set; None if it is atomic."""
    rule = _OWN_LISTS.get(name, {}) if schema is None else schema
    kind = rule.get("x-kubernetes-list-type", "atomic")
    if kind == "map":
        return list(rule["x-kubernetes-list-map-keys"])
    return [] if kind == "set" else None


def item_step(item: Any, keys: list[str]) -> tuple[str, str]:
    if not keys:
        return "v", json.dumps(item)
    return "k", json.dumps({key: item.get(key) for key in keys}, sort_keys=True, separators=(",", ":"))


def fields_of(one: Json, schema: Json | None) -> dict[Path, Any]:
    """Every field of an object that somebody can own, with its value. Items of lists that merge are fields too."""
    found: dict[Path, Any] = {}
    _walk(one, schema, (), "", found)
    return {path: value for path, value in found.items() if _ownable(path)}


def _walk(value: Any, schema: Json | None, path: Path, name: str, found: dict[Path, Any]) -> None:
    atomic = schema is not None and schema.get("x-kubernetes-map-type") == "atomic"
    if isinstance(value, dict) and value and not atomic:
        for key, inner in value.items():
            _walk(inner, child_schema(schema, key, top=not path), (*path, ("f", key)), key, found)
    elif isinstance(value, list) and (keys := list_keys(schema, name)) is not None:
        items = None if schema is None else schema.get("items") or {}
        for item in value:
            step = (*path, item_step(item, keys))
            found[step] = True if keys else item
            if keys:
                _walk(item, items, step, "", found)
    else:
        found[path] = value


def _ownable(path: Path) -> bool:
    names = tuple(step[1] for step in path)
    return bool(path) and not any(names[: len(one)] == one for one in _NOT_OWNED)


def to_fields_v1(paths: Iterable[Path]) -> Json:
    tree: Json = {}
    for path in sorted(paths):
        node = tree
        for kind, name in path:
            node = node.setdefault(f"{kind}:{name}", {})
        if path[-1][0] == "k":
            node["."] = {}
    return tree


def from_fields_v1(tree: Json, path: Path = ()) -> set[Path]:
    found = {path} if "." in tree or (not tree and path) else set()
    for step, inner in tree.items():
        if step != ".":
            kind, _, name = step.partition(":")
            found |= from_fields_v1(inner, (*path, (kind, name)))
    return found


# ------------------------------------------------------------------------------------------------------- ownership


class Owners:
    """The managedFields of one object."""

    def __init__(self, entries: Iterable[Json]) -> None:
        self._sets: dict[tuple[str, str, str], set[Path]] = {}
        self._about: dict[tuple[str, str, str], Json] = {}
        for entry in entries:
            key = (entry["manager"], entry["operation"], entry.get("subresource", ""))
            self._sets[key] = from_fields_v1(entry["fieldsV1"])
            self._about[key] = {"apiVersion": entry["apiVersion"], "time": entry["time"]}

    def entries(self) -> list[Json]:
        made = []
        for (manager, operation, subresource), paths in self._sets.items():
            if paths:
                about = self._about[manager, operation, subresource]
                entry = {"manager": manager, "operation": operation, **about, "fieldsType": "FieldsV1"}
                entry["fieldsV1"] = to_fields_v1(paths)
                made.append(entry | ({"subresource": subresource} if subresource else {}))
        return made

    def of(self, manager: str, operation: str, subresource: str) -> set[Path]:
        return self._sets.get((manager, operation, subresource), set())

    def others(self, manager: str, operation: str, subresource: str) -> dict[tuple[str, str, str], set[Path]]:
        return {key: paths for key, paths in self._sets.items() if key != (manager, operation, subresource)}

    def set(self, key: tuple[str, str, str], paths: set[Path], api_version: str, now: str) -> None:
        if self._sets.get(key) != paths:
            self._sets[key], self._about[key] = paths, {"apiVersion": api_version, "time": now}

    def wrote(self, manager: str, subresource: str, old: Json, new: Json, schema: Json | None, now: str) -> None:
        """An update of any kind but apply: what it changed is the manager's, what it removed nobody's."""
        before, after = fields_of(old, schema), fields_of(new, schema)
        changed = {path for path, value in after.items() if path not in before or before[path] != value}
        removed = before.keys() - after.keys()
        for paths in self._sets.values():
            paths -= changed | removed
        key = (manager, "Update", subresource)
        if changed:
            self.set(key, self.of(*key) | changed, new["apiVersion"], now)


def apply(
    live: Json, config: Json, *, manager: str, subresource: str, force: bool, schema: Json | None, now: str
) -> tuple[Json, list[Json]]:
    """`live` after the server-side apply of `config`, and its managedFields. Raises a Refusal for conflicts."""
    owners = Owners(live.get("metadata", {}).get("managedFields") or [])
    applied, present = fields_of(config, schema), fields_of(live, schema)
    key = (manager, "Apply", subresource)
    disputed = _disputed(owners.others(*key), applied, present)
    if disputed and not force:
        raise _conflict(disputed)
    for other, path in disputed:
        owners._sets[other].discard(path)
    merged = _merge(live, config, schema, "", top=True)
    held = set().union(*owners.others(*key).values(), set())
    for path in sorted(owners.of(*key) - applied.keys(), key=len):
        if not any(other[: len(path)] == path for other in held | applied.keys()):
            _remove(merged, path, schema)
    owners.set(key, set(applied), config["apiVersion"], now)
    return merged, owners.entries()


def _disputed(
    others: Mapping[tuple[str, str, str], set[Path]], applied: Mapping[Path, Any], present: Mapping[Path, Any]
) -> list[tuple[tuple[str, str, str], Path]]:
    """Fields that others own and the applied configuration would change."""
    return [
        (other, path)
        for other, paths in others.items()
        for path in sorted(paths & applied.keys())
        if path in present and present[path] != applied[path]
    ]


def _conflict(disputed: list[tuple[tuple[str, str, str], Path]]) -> Refusal:
    told = [(_dotted(path), manager) for (manager, _, _), path in disputed]
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{manager}"', "field": field}
        for field, manager in told
    ]
    names = ", ".join(f'conflict with "{manager}": {field}' for field, manager in told)
    noun = "conflict" if len(told) == 1 else "conflicts"
    return Refusal(409, "Conflict", f"Apply failed with {len(told)} {noun}: {names}", causes=causes)


def _dotted(path: Path) -> str:
    return "".join(f".{name}" if kind == "f" else f"[{name}]" for kind, name in path)


def _merge(live: Any, config: Any, schema: Json | None, name: str, *, top: bool = False) -> Any:
    atomic = schema is not None and schema.get("x-kubernetes-map-type") == "atomic"
    if isinstance(config, dict) and isinstance(live, dict) and not atomic:
        result = dict(live)
        for key, value in config.items():
            result[key] = _merge(live.get(key), value, child_schema(schema, key, top=top), key)
        return result
    if isinstance(config, list) and isinstance(live, list) and (keys := list_keys(schema, name)) is not None:
        items = None if schema is None else schema.get("items") or {}
        wanted = {item_step(item, keys): item for item in config}
        kept = [_merge(one, wanted.pop(item_step(one, keys), one), items, "") for one in live]
        return kept + [copy.deepcopy(item) for item in wanted.values()]
    return copy.deepcopy(config)


def _remove(one: Any, path: Path, schema: Json | None) -> None:
    """Take a field out of an object; a map that it leaves empty goes too, as it held nothing else."""
    trail, name = [], ""
    for depth, (kind, step) in enumerate(path):
        trail.append((one, kind, step, schema, name))
        if kind == "f":
            if not isinstance(one, dict) or step not in one:
                return
            one, schema, name = one[step], child_schema(schema, step, top=depth == 0), step
        else:
            keys = list_keys(schema, name) or []
            found = [item for item in one if item_step(item, keys) == (kind, step)] if isinstance(one, list) else []
            if not found:
                return
            one, schema, name = found[0], None if schema is None else schema.get("items") or {}, ""
    for depth, (holder, kind, step, holder_schema, holder_name) in reversed(list(enumerate(trail))):
        if kind == "f":
            del holder[step]
        else:
            keys = list_keys(holder_schema, holder_name) or []
            holder[:] = [item for item in holder if item_step(item, keys) != (kind, step)]
        if holder or depth < 2:  # `spec: {}` stays
            return
