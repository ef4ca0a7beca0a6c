"""The schema of a custom resource at work: it prunes nulls and unknown fields, sets defaults, and validates the rest.

As apiextensions-apiserver does it, but without ratcheting: an invalid value is refused even if it did not change.
Rules in CEL are cel.py's.
"""

import copy
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, cast

import jsonschema

from testkit.json_object import Json
from tests.cluster.api_server.cel import Rules

Problem = tuple[str, str]

_META: Json = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_NOT_STRUCTURAL = ("$ref", "definitions", "dependencies", "deprecated", "discriminator", "id", "patternProperties")
_formats = jsonschema.FormatChecker(formats=())


@_formats.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", value):
        return False
    datetime.fromisoformat(re.sub(r"\.\d+", "", value.upper()).replace("Z", "+00:00"))
    return True


@_formats.checks("int32")
def _is_int32(value: object) -> bool:
    return not isinstance(value, int) or -(2**31) <= value < 2**31


@_formats.checks("int64")
def _is_int64(value: object) -> bool:
    return not isinstance(value, int) or -(2**63) <= value < 2**63


class Schema:
    """The openAPIV3Schema of one version of a CRD. Raises ValueError if it is not structural or a rule is broken."""

    def __init__(self, raw: Json) -> None:
        self.raw = copy.deepcopy(raw)
        problems = list(_unstructural(self.raw, "openAPIV3Schema"))
        if problems:
            raise ValueError("; ".join(problems))
        whole = {**self.raw, "properties": {**(self.raw.get("properties") or {})}}
        whole["properties"] |= {"metadata": _META, "apiVersion": {"type": "string"}, "kind": {"type": "string"}}
        self._whole = whole
        self._validator = jsonschema.Draft4Validator(_to_json_schema(whole), format_checker=_formats)
        self._rules = Rules(whole)

    def admit(self, one: Json) -> Json:
        """The object as it would be stored: pruned, with defaults."""
        one = _without_nulls(copy.deepcopy(one), self._whole)
        admitted: Json = _with_defaults(_pruned(one, self._whole), self._whole)
        return admitted

    def pruned(self, one: Json) -> Json:
        """The object without what the schema does not know."""
        pruned: Json = _pruned(one, self._whole)
        return pruned

    def unknown(self, one: Json) -> list[str]:
        """Paths of what the schema does not know."""
        return list(_unknown(one, self._whole, ""))

    def problems(self, one: Json, old: Json | None) -> list[Problem]:
        """What is wrong with an admitted object, in the order of a real server: rules only if the schema holds."""
        found = [_problem(error) for error in self._validator.iter_errors(one)]
        found += [(path, "Duplicate value") for path in _duplicates(one, self._whole, "")]
        return sorted(found) or self._rules.problems(one, old)


def _problem(error: jsonschema.ValidationError) -> Problem:
    path, expected = "", cast(Iterable[str], error.validator_value)
    for part in error.absolute_path:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    if error.validator == "required":
        missing = next(one for one in expected if one not in cast(Json, error.instance))
        return f"{path}.{missing}".strip("."), "Required value"
    if error.validator == "enum":
        allowed = ", ".join(f'"{one}"' for one in expected)
        return path.strip("."), f'Unsupported value: "{error.instance}": supported values: {allowed}'
    return path.strip("."), f"Invalid value: {error.message[:300]}"


def _to_json_schema(schema: Json) -> Json:
    """As JSON Schema draft 4, whose meaning OpenAPI 3.0 shares."""
    made: Json = {}
    for key, value in schema.items():
        if key in ("properties",):
            made[key] = {name: _to_json_schema(inner) for name, inner in value.items()}
        elif key in ("items", "not") or (key == "additionalProperties" and isinstance(value, dict)):
            made[key] = _to_json_schema(value)
        elif key in ("allOf", "anyOf", "oneOf"):
            made[key] = [_to_json_schema(inner) for inner in value]
        elif not key.startswith("x-") and key not in ("nullable", "default", "description", "example", "title"):
            made[key] = value
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made = {"allOf": [made, {"type": ["integer", "string"]}]}
    if schema.get("nullable"):
        made = {"anyOf": [{"type": "null"}, made]}
    return made


def _without_nulls(one: Any, schema: Json) -> Any:
    if isinstance(one, dict):
        kept = {}
        for name, value in one.items():
            inner = _property(schema, name)
            if value is not None or inner is None or inner.get("nullable"):
                kept[name] = _without_nulls(value, inner or {})
        return kept
    if isinstance(one, list):
        return [_without_nulls(value, schema.get("items") or {}) for value in one]
    return one


def _pruned(one: Any, schema: Json) -> Any:
    if isinstance(one, dict):
        keep = schema.get("x-kubernetes-preserve-unknown-fields", False)
        known = {name: _property(schema, name) for name in one}
        embedded = ("apiVersion", "kind", "metadata") if schema.get("x-kubernetes-embedded-resource") else ()
        return {
            name: value if (inner := known[name]) is None else _pruned(value, inner)
            for name, value in one.items()
            if known[name] is not None or keep or name in embedded
        }
    if isinstance(one, list):
        return [_pruned(value, schema.get("items") or {}) for value in one]
    return one


def _unknown(one: Any, schema: Json, path: str) -> Iterator[str]:
    if isinstance(one, dict):
        kept = _pruned(one, schema)
        for name, value in one.items():
            where = f"{path}.{name}".strip(".")
            if name not in kept:
                yield where
            elif (inner := _property(schema, name)) is not None:
                yield from _unknown(value, inner, where)
    elif isinstance(one, list):
        for index, value in enumerate(one):
            yield from _unknown(value, schema.get("items") or {}, f"{path}[{index}]")


def _with_defaults(one: Any, schema: Json) -> Any:
    if isinstance(one, dict):
        for name, inner in (schema.get("properties") or {}).items():
            if "default" in inner and one.get(name) is None and (name not in one or not inner.get("nullable")):
                one[name] = copy.deepcopy(inner["default"])
        return {name: _with_defaults(value, _property(schema, name) or {}) for name, value in one.items()}
    if isinstance(one, list):
        return [_with_defaults(value, schema.get("items") or {}) for value in one]
    return one


def _property(schema: Json, name: str) -> Json | None:
    properties, rest = schema.get("properties") or {}, schema.get("additionalProperties")
    if name in properties:
        known: Json = properties[name]
        return known
    if isinstance(rest, dict):
        return rest
    return {"x-kubernetes-preserve-unknown-fields": True} if rest is True else None


def _duplicates(one: Any, schema: Json, path: str) -> Iterator[str]:
    """Paths of items that occur twice in lists that are maps or sets."""
    if isinstance(one, dict):
        for name, value in one.items():
            yield from _duplicates(value, _property(schema, name) or {}, f"{path}.{name}".strip("."))
    elif isinstance(one, list):
        kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
        seen: list[Any] = []
        for index, item in enumerate(one):
            mark = [item.get(key) for key in keys] if kind == "map" and isinstance(item, dict) else item
            if kind in ("map", "set") and mark in seen:
                yield f"{path}[{index}]"
            seen.append(mark)
            yield from _duplicates(item, schema.get("items") or {}, f"{path}[{index}]")


def _unstructural(schema: Json, path: str, *, logical: bool = False) -> Iterator[str]:
    """What a real server would say against a schema; the rules that authors of CRDs break most."""
    for name in _NOT_STRUCTURAL:
        if name in schema:
            yield f"{path}.{name}: Forbidden"
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not logical and "type" not in schema and not free:
        yield f"{path}.type: Required value: must not be empty for specified object fields"
    for name in ("type", "default", "nullable", "description", "additionalProperties") if logical else ():
        if name in schema:
            yield f"{path}.{name}: Forbidden: must not be set inside a logical operator"
    if schema.get("uniqueItems"):
        yield f"{path}.uniqueItems: Forbidden: cannot be true since the runtime complexity becomes quadratic"
    if isinstance(schema.get("type"), list):
        yield f"{path}.type: Invalid value: must be one type"
    if "properties" in schema and "additionalProperties" in schema:
        yield f"{path}.additionalProperties: Forbidden: mutual exclusive with properties"
    if schema.get("additionalProperties") is False:
        yield f"{path}.additionalProperties: Forbidden: cannot be set to false"
    if schema.get("type") == "array" and "items" not in schema and not logical:
        yield f"{path}.items: Required value: must be specified"
    if schema.get("x-kubernetes-list-type") == "map":
        yield from _unkeyed(schema, path)
    for name, inner in (schema.get("properties") or {}).items():
        yield from _unstructural(inner, f"{path}.properties[{name}]", logical=logical)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _unstructural(schema[name], f"{path}.{name}", logical=logical)
    for name in ("allOf", "anyOf", "oneOf"):
        for index, inner in enumerate(schema.get(name) or []):
            if schema.get("x-kubernetes-int-or-string") and inner in ({"type": "integer"}, {"type": "string"}):
                continue  # the one place where a type may stand there
            yield from _unstructural(inner, f"{path}.{name}[{index}]", logical=True)


def _unkeyed(schema: Json, path: str) -> Iterator[str]:
    items = schema.get("items") or {}
    for key in schema.get("x-kubernetes-list-map-keys") or [""]:
        inner = (items.get("properties") or {}).get(key)
        if inner is None:
            yield f"{path}.x-kubernetes-list-map-keys: Invalid value: {key!r}: must be a property of items"
        elif key not in (items.get("required") or []) and "default" not in inner:
            yield f"{path}.items.properties[{key}].default: Required value: a key is required or has a default"
