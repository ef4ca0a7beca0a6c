"""Schemas and CEL rules of custom resources, as the fake API server applies them."""

from typing import Any

import pytest

from testkit.json_object import Json
from tests.cluster.api_server.schema import Schema


def schema(properties: Json, *rules: Json, **more: Any) -> Schema:
    spec = {"type": "object", "properties": properties, "x-kubernetes-validations": list(rules), **more}
    return Schema({"type": "object", "properties": {"spec": spec}})


def problems(checked: Schema, spec: Json, old: Json | None = None) -> list[str]:
    one = checked.admit({"spec": spec})
    before = None if old is None else checked.admit({"spec": old})
    return [f"{path}: {text}" for path, text in checked.problems(one, before)]


INTEGER, STRING, NUMBER = {"type": "integer"}, {"type": "string"}, {"type": "number"}


def test_a_rule_that_fails_says_its_message_where_it_was_told_to() -> None:
    rule = {"rule": "self.a < self.b", "message": "a must be less than b", "fieldPath": ".a"}
    checked = schema({"a": INTEGER, "b": INTEGER}, rule)
    assert problems(checked, {"a": 1, "b": 2}) == []
    assert problems(checked, {"a": 2, "b": 2}) == ["spec.a: Invalid value: a must be less than b"]


def test_a_message_can_be_an_expression() -> None:
    rule = {"rule": "self.a < 5", "messageExpression": "'a is ' + string(self.a)"}
    assert problems(schema({"a": INTEGER}, rule), {"a": 7}) == ["spec: Invalid value: a is 7"]


def test_a_rule_that_cannot_be_evaluated_fails() -> None:
    (told,) = problems(schema({"a": INTEGER}, {"rule": "self.a < 5", "message": "m"}), {})
    assert "failed to evaluate" in told
    (told,) = problems(schema({"a": STRING}, {"rule": "isURL(self.a)", "message": "m"}), {"a": "http://x"})
    assert "failed to evaluate" in told


def test_a_rule_must_say_yes_or_no() -> None:
    (told,) = problems(schema({"a": INTEGER}, {"rule": "self.a", "message": "m"}), {"a": 1})
    assert "no bool" in told


def test_numbers_are_doubles_however_they_are_written() -> None:
    checked = schema({"a": NUMBER}, {"rule": "self.a < 1.5", "message": "m"})
    assert problems(checked, {"a": 1}) == []
    assert problems(checked, {"a": 2}) == ["spec: Invalid value: m"]


def test_names_that_cel_cannot_say_are_escaped() -> None:
    rule = {"rule": "self.x__dash__y == 1 && self.__namespace__ == 'n'", "message": "m"}
    assert problems(schema({"x-y": INTEGER, "namespace": STRING}, rule), {"x-y": 1, "namespace": "n"}) == []


def test_a_transition_rule_follows_items_of_lists_by_their_keys() -> None:
    same = {
        "type": "integer",
        "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "count never changes"}],
    }
    item = {"type": "object", "required": ["name"], "properties": {"name": STRING, "count": same}}
    keyed = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    checked = schema({"parts": {"type": "array", "items": item, **keyed}})
    old = {"parts": [{"name": "p", "count": 1}, {"name": "q", "count": 2}]}
    moved = {"parts": [{"name": "q", "count": 2}, {"name": "new", "count": 9}, {"name": "p", "count": 1}]}
    assert problems(checked, moved, old) == []
    changed = {"parts": [{"name": "q", "count": 3}]}
    assert problems(checked, changed, old) == ["spec.parts[0].count: Invalid value: count never changes"]


def test_a_transition_rule_where_nothing_can_be_followed_is_refused() -> None:
    same = {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}
    with pytest.raises(ValueError, match="uncorrelatable"):
        schema({"names": {"type": "array", "items": same}})


def test_a_rule_about_an_optional_field_is_asked_only_where_it_is_set() -> None:
    small = {"type": "integer", "x-kubernetes-validations": [{"rule": "self < 5", "message": "too much"}]}
    checked = schema({"a": small})
    assert problems(checked, {}) == []
    assert problems(checked, {"a": 5}) == ["spec.a: Invalid value: too much"]


def test_defaults_are_set_in_objects_that_are_there() -> None:
    inner = {"type": "object", "properties": {"b": {"type": "integer", "default": 3}}}
    plain = schema({"a": inner})
    assert plain.admit({"spec": {}}) == {"spec": {}}
    assert plain.admit({"spec": {"a": {}}}) == {"spec": {"a": {"b": 3}}}
    assert schema({"a": {**inner, "default": {}}}).admit({"spec": {}}) == {"spec": {"a": {"b": 3}}}


def test_a_number_may_be_a_word_where_it_is_said() -> None:
    either = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    checked = schema({"a": either})
    assert problems(checked, {"a": 1}) == problems(checked, {"a": "25%"}) == []
    assert problems(checked, {"a": [1]})


@pytest.mark.parametrize("when", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123+01:00"])
def test_times_are_times(when: str) -> None:
    checked = schema({"at": {"type": "string", "format": "date-time"}})
    assert problems(checked, {"at": when}) == []
    assert len(problems(checked, {"at": when.replace("-01-", "-13-")})) == 1
    assert len(problems(checked, {"at": "yesterday"})) == 1


def test_maps_hold_what_they_are_said_to_hold() -> None:
    checked = schema({"labels": {"type": "object", "additionalProperties": STRING}})
    assert problems(checked, {"labels": {"a": "b"}}) == []
    assert len(problems(checked, {"labels": {"a": 1}})) == 1


def test_what_is_not_known_is_named() -> None:
    item = {"type": "object", "properties": {"b": INTEGER}}
    checked = schema({"a": {"type": "array", "items": item}})
    assert checked.unknown({"spec": {"a": [{"b": 1, "c": 2}], "d": 3}}) == ["spec.a[0].c", "spec.d"]
