"""JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch.

Of strategic merge: lists that merge by key (the table below), `$patch: delete` and `$patch: replace`, and lists of
finalizers that merge as sets. Not `$retainKeys`, `$setElementOrder` (ignored) and `$deleteFromPrimitiveList`.
"""

import copy
from typing import Any

from tests.cluster.api_server.refusals import Refusal, bad_request

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
    "ownerReferences": "uid",
    "taints": "key",
    "addresses": "type",
    "conditions": "type",
}
"""patchMergeKey of the lists of built-in kinds that tests meet, by the list's name."""

_SET_LISTS = {"finalizers"}


def merge_patch(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_patch(target: Any, patch: Any, name: str = "") -> Any:
    if isinstance(patch, dict):
        return _strategic_map(target, patch)
    if isinstance(patch, list) and name in _SET_LISTS:
        known = target if isinstance(target, list) else []
        return known + [one for one in patch if one not in known]
    if isinstance(patch, list) and name in MERGE_KEYS:
        return _strategic_list(target if isinstance(target, list) else [], patch, MERGE_KEYS[name])
    return copy.deepcopy(patch)


def _strategic_map(target: Any, patch: dict[str, Any]) -> Any:
    if patch.get("$patch") == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            result.pop(key, None)
        else:
            result[key] = strategic_patch(result.get(key), value, key)
    return result


def _strategic_list(known: list[Any], patch: list[Any], merge_key: str) -> list[Any]:
    if any(one.get("$patch") == "replace" for one in patch):
        return [copy.deepcopy(one) for one in patch if "$patch" not in one]
    result = list(known)
    for one in patch:
        if merge_key not in one:
            raise bad_request(f"map: {one} does not contain declared merge key: {merge_key}")
        places = [index for index, old in enumerate(result) if old.get(merge_key) == one[merge_key]]
        if one.get("$patch") == "delete":
            result = [old for index, old in enumerate(result) if index not in places]
        elif places:
            result[places[0]] = strategic_patch(result[places[0]], one)
        else:
            result.append(strategic_patch({}, one))
    return result


def json_patch(target: Any, operations: list[Any]) -> Any:
    result = copy.deepcopy(target)
    for operation in operations:
        try:
            result = _operate(result, operation)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            message = f"the server rejected our request due to an error in our request: {operation}: {error!r}"
            raise Refusal(422, "Invalid", message) from error
    return result


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    kind, path = operation["op"], _pointer(operation["path"])
    if kind in ("move", "copy"):
        value = copy.deepcopy(_at(document, _pointer(operation["from"])))
        if kind == "move":
            document = _put("remove", document, _pointer(operation["from"]), None)
        return _put("add", document, path, value)
    if kind == "test":
        if _at(document, path) != operation["value"]:
            raise ValueError(f"testing value {operation['path']} failed")
        return document
    if kind not in ("add", "remove", "replace"):
        raise ValueError(f"unexpected kind: {kind}")
    return _put(kind, document, path, None if kind == "remove" else copy.deepcopy(operation["value"]))


def _put(kind: str, document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    holder, last = _at(document, path[:-1]), path[-1]
    if isinstance(holder, list):
        index = len(holder) if last == "-" and kind == "add" else int(last)
        if not 0 <= index <= len(holder) - (kind != "add"):
            raise IndexError(f"index {last} is out of bounds")
        if kind == "add":
            holder.insert(index, value)
        elif kind == "remove":
            del holder[index]
        else:
            holder[index] = value
    elif kind == "remove":
        del holder[last]
    else:
        if kind == "replace":
            holder[last]  # must be there
        holder[last] = value
    return document


def _at(document: Any, path: list[str]) -> Any:
    for part in path:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"no JSON pointer: {text}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]
