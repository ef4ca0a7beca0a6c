"""Label and field selectors, and simple paths into objects."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from testkit.json_object import Json
from tests.cluster.api_server.refusals import bad_request

_SET_TERM = re.compile(r"^(\S+)\s+(in|notin)\s+\(([^)]*)\)$")
_EVERYWHERE = {"metadata.name", "metadata.namespace"}


def label_test(selector: str | None) -> Callable[[Mapping[str, str]], bool]:
    """Whether labels are chosen. Raises a Refusal for what is no selector."""
    tests = [_label_term(term.strip()) for term in re.findall(r"(?:[^,(]|\([^)]*\))+", selector or "")]
    return lambda labels: all(test(labels) for test in tests)


def _label_term(term: str) -> Callable[[Mapping[str, str]], bool]:
    if found := _SET_TERM.match(term):
        key, inside, values = found[1], found[2] == "in", {value.strip() for value in found[3].split(",")}
        return lambda labels: (labels.get(key) in values) == inside
    if "!=" in term:
        key, value = (part.strip() for part in term.split("!=", 1))
        return lambda labels: labels.get(key) != value
    if "=" in term:
        key, value = (part.strip() for part in re.split("==?", term, maxsplit=1))
        return lambda labels: labels.get(key) == value
    if re.fullmatch(r"!?[\w./-]+", term):
        return lambda labels: (term.lstrip("!") in labels) != term.startswith("!")
    raise bad_request(f"unable to parse requirement: {term!r}")


def field_test(selector: str | None, supported: frozenset[str]) -> Callable[[Json], bool]:
    """Whether an object is chosen. Raises a Refusal for fields that the kind does not support, as a real server."""
    terms = []
    for term in filter(None, (selector or "").split(",")):
        found = re.fullmatch(r"([\w.]+)(!=|==?)(.*)", term.strip())
        if not found:
            raise bad_request(f"invalid field selector: {term!r}")
        if found[1] not in supported | _EVERYWHERE:
            raise bad_request(f'field label not supported: "{found[1]}"')
        terms.append((found[1], found[2] != "!=", found[3]))
    return lambda one: all((_text(value_at(one, path)) == value) == equal for path, equal, value in terms)


def value_at(one: Any, path: str) -> Any:
    """The value at a dotted path; None if there is none."""
    for part in path.strip(".").split("."):
        one = one.get(part) if isinstance(one, dict) else None
    return one


def set_at(one: Json, path: str, value: Any) -> None:
    *parents, last = path.strip(".").split(".")
    for part in parents:
        one = one.setdefault(part, {})
    one[last] = value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
