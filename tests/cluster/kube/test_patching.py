"""The fake API server's patches, against the libraries and examples that others trust."""

import json
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testkit.json_object import Json
from tests.cluster.api_server.managed_fields import Owners, fields_of, from_fields_v1, to_fields_v1
from tests.cluster.api_server.patching import json_patch, merge_patch, strategic_patch
from tests.cluster.api_server.refusals import Refusal
from tests.cluster.api_server.schema import Schema
from tests.cluster.api_server.selectors import label_test

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab/~", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text("ab/~", max_size=2), VALUES, max_size=4)


@given(before=OBJECTS, after=OBJECTS)
def test_a_json_patch_of_a_library_leads_from_one_object_to_the_other(before: Json, after: Json) -> None:
    operations = jsonpatch.make_patch(before, after).patch
    kept = json.dumps(before)
    assert json_patch(before, operations) == after
    assert json.dumps(before) == kept


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a", "value": 2},
        {"op": "replace", "path": "/b", "value": 1},
        {"op": "remove", "path": "/b"},
        {"op": "add", "path": "/l/3", "value": 1},
        {"op": "replace", "path": "/l/2", "value": 1},
        {"op": "remove", "path": "/l/-1"},
        {"op": "add", "path": "/b/c", "value": 1},
        {"op": "nonsense", "path": "/a"},
        {"path": "/a"},
        {"op": "add", "path": "a", "value": 1},
    ],
)
def test_a_json_patch_that_does_not_fit_is_refused_whole(operation: Json) -> None:
    before = {"a": 1, "l": [1, 2]}
    with pytest.raises(Refusal) as refused:
        json_patch(before, [{"op": "replace", "path": "/a", "value": 1}, operation])
    assert refused.value.code == 422
    assert before == {"a": 1, "l": [1, 2]}


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # the examples of RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_does_as_its_standard_says(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        (
            {"taints": [{"key": "a", "v": 1}]},
            {"taints": [{"key": "b"}]},
            {"taints": [{"key": "a", "v": 1}, {"key": "b"}]},
        ),
        ({"taints": [{"key": "a", "v": 1}]}, {"taints": [{"key": "a", "v": 2}]}, {"taints": [{"key": "a", "v": 2}]}),
        (
            {"taints": [{"key": "a"}, {"key": "b"}]},
            {"taints": [{"key": "a", "$patch": "delete"}]},
            {"taints": [{"key": "b"}]},
        ),
        ({"taints": [{"key": "a"}]}, {"taints": [{"$patch": "replace"}, {"key": "c"}]}, {"taints": [{"key": "c"}]}),
        ({"m": {"a": 1, "b": 2}}, {"m": {"$patch": "replace", "c": 3}}, {"m": {"c": 3}}),
        ({"finalizers": ["a"]}, {"finalizers": ["a", "b"]}, {"finalizers": ["a", "b"]}),
        ({"args": [1, 2]}, {"args": [3]}, {"args": [3]}),
        ({"a": 1}, {"a": None}, {}),
    ],
)
def test_a_strategic_merge_knows_some_lists_by_their_keys(target: Json, patch: Json, result: Json) -> None:
    assert strategic_patch(target, patch) == result


def test_a_strategic_merge_needs_the_keys() -> None:
    with pytest.raises(Refusal, match="merge key"):
        strategic_patch({}, {"taints": [{"value": 1}]})


def test_an_unclear_selector_is_refused() -> None:
    with pytest.raises(Refusal, match="parse requirement"):
        label_test("a b c")


FREE = Schema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})


@given(OBJECTS)
def test_who_owns_what_survives_being_written_down(one: Json) -> None:
    paths = set(fields_of(one, None))
    tree = to_fields_v1(paths)
    assert from_fields_v1(json.loads(json.dumps(tree))) == {path for path in paths if path} or not paths


@given(before=OBJECTS, after=OBJECTS)
def test_of_what_was_written_last_the_last_writer_owns_what_changed(before: Json, after: Json) -> None:
    owners = Owners([])
    owners.wrote("first", "", {}, {**before, "apiVersion": "v1"}, FREE.raw, "then")
    owners.wrote("second", "", before, {**after, "apiVersion": "v1"}, FREE.raw, "now")
    old, new = fields_of(before, FREE.raw), fields_of(after, FREE.raw)
    changed = {path for path in new if path not in old or old[path] != new[path]}
    assert owners.of("second", "Update", "") == changed
    assert owners.of("first", "Update", "") == old.keys() & new.keys() - changed
