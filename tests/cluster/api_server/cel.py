"""x-kubernetes-validations: the rules of a schema in CEL, evaluated by cel-python.

A rule that names oldSelf is a transition rule: it holds between two versions of an object, and is not asked about new
ones. Kubernetes' own CEL libraries (quantity, url, ip, format, optional values) and the cost budget are not here: a
rule that uses them is refused when the CRD is registered or fails when asked, never passes by mistake.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import celpy

from testkit.json_object import Json
from tests.cluster.api_server.managed_fields import item_step

Problem = tuple[str, str]

_RESERVED = {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"}
_RESERVED |= {"import", "let", "loop", "package", "namespace", "return", "var", "void", "while"}


@dataclass(frozen=True)
class _Rule:
    program: Any
    said: Any
    """Program of its messageExpression, or None."""
    message: str
    is_transition: bool
    field_path: str


class Rules:
    """All rules of a schema. Raises ValueError for one that cannot be compiled, or cannot work in its place."""

    def __init__(self, schema: Json) -> None:
        self._environment = celpy.Environment()
        self._schema = schema
        self._at: dict[int, list[_Rule]] = {}
        self._compile_all(schema, "", followed=True)

    def problems(self, one: Json, old: Json | None) -> list[Problem]:
        """Rules that do not hold of an object that was `old` before, None if it is new."""
        return list(self._ask(one, old, self._schema, ""))

    def _compile_all(self, schema: Json, path: str, *, followed: bool) -> None:
        """`followed`: whether a server can tell which old value a new one comes from."""
        rules = [self._compile(rule, path, followed) for rule in schema.get("x-kubernetes-validations") or []]
        if rules:
            self._at[id(schema)] = rules
        for name, inner in (schema.get("properties") or {}).items():
            self._compile_all(inner, f"{path}.{name}", followed=followed)
        if isinstance(schema.get("additionalProperties"), dict):
            self._compile_all(schema["additionalProperties"], f"{path}[*]", followed=followed)
        if isinstance(schema.get("items"), dict):
            keyed = followed and schema.get("x-kubernetes-list-type") == "map"
            self._compile_all(schema["items"], f"{path}[*]", followed=keyed)

    def _compile(self, rule: Json, path: str, followed: bool) -> _Rule:
        text, said = rule["rule"], rule.get("messageExpression")
        is_transition = bool(re.search(r"\boldSelf\b", text))
        if is_transition and not followed:
            raise ValueError(f"{path}: oldSelf cannot be used on the uncorrelatable portion of the schema: {text}")
        if rule.get("optionalOldSelf"):
            raise ValueError(f"{path}: this server does not know optionalOldSelf")
        message = str(rule.get("message") or f"failed rule: {text}").strip()
        programs = (self._program(text, path), self._program(said, path) if said else None)
        return _Rule(*programs, message, is_transition, str(rule.get("fieldPath") or ""))

    def _program(self, text: str, path: str) -> Any:
        try:
            return self._environment.program(self._environment.compile(text))
        except celpy.CELParseError as error:
            raise ValueError(f"{path}.x-kubernetes-validations: compilation failed: {text}: {error}") from error

    def _ask(self, one: Any, old: Any, schema: Json, path: str) -> Iterator[Problem]:
        for rule in self._at.get(id(schema), []):
            if one is not None and not (rule.is_transition and old is None):
                yield from _verdict(rule, one, old, schema, path)
        if isinstance(one, dict):
            before = old if isinstance(old, dict) else {}
            for name, value in one.items():
                rest = schema.get("additionalProperties")
                inner = (schema.get("properties") or {}).get(name, rest if isinstance(rest, dict) else {})
                yield from self._ask(value, before.get(name), inner, f"{path}.{name}".strip("."))
        elif isinstance(one, list):
            keys = schema.get("x-kubernetes-list-map-keys") or []
            known = {item_step(item, keys): item for item in old or []} if keys and isinstance(old, list) else {}
            for index, item in enumerate(one):
                earlier = known.get(item_step(item, keys)) if keys else None
                yield from self._ask(item, earlier, schema.get("items") or {}, f"{path}[{index}]")


def _verdict(rule: _Rule, one: Any, old: Any, schema: Json, path: str) -> Iterator[Problem]:
    values = {"self": _to_cel(one, schema)}
    if rule.is_transition:
        values["oldSelf"] = _to_cel(old, schema)
    where = (path + rule.field_path).strip(".")
    try:
        holds = rule.program.evaluate(values)
        if not isinstance(holds, celpy.celtypes.BoolType):
            yield where, f"Invalid value: rule evaluated to {holds!r}, which is no bool: {rule.message}"
        elif not holds:
            said = str(rule.said.evaluate(values)) if rule.said else rule.message
            yield where, f"Invalid value: {said}"
    except celpy.CELEvalError as error:
        yield where, f"Invalid value: rule failed to evaluate: {rule.message}: {str(error)[:300]}"


def _to_cel(value: Any, schema: Json) -> Any:
    """As CEL has it: names that CEL cannot say are escaped, numbers are doubles however they were written."""
    if isinstance(value, dict):
        properties, rest = schema.get("properties") or {}, schema.get("additionalProperties")
        made = celpy.celtypes.MapType()
        for name, inner in value.items():
            said = _escaped(name) if name in properties else name
            inside = properties.get(name, rest if isinstance(rest, dict) else {})
            made[celpy.celtypes.StringType(said)] = _to_cel(inner, inside)
        return made
    if isinstance(value, list):
        items = schema.get("items") or {}
        return celpy.celtypes.ListType([_to_cel(inner, items) for inner in value])
    if schema.get("type") == "number" and isinstance(value, int):
        return celpy.celtypes.DoubleType(value)
    return celpy.json_to_cel(value)


def _escaped(name: str) -> str:
    if name in _RESERVED:
        return f"__{name}__"
    return (
        name.replace("__", "__underscores__").replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")
    )
