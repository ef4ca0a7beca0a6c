"""YAML to nodes: the plain data of YAML 1.2's core schema and merge keys (`<<`). No tags; aliases are counted.

JSON is YAML too. What looks like JSON goes to the JSON reader first: PyYAML does not know all of JSON's escapes.

It works on the parser's events, which come one at a time, so depth and size are refused before anything is built.
PyYAML's own resolver is not used because it is YAML 1.1: `no` would be a truth value and `1:30` a number in base 60.
"""

import contextlib
import re
from collections.abc import Iterator

import yaml

from serving.documents.document import (
    Budget,
    Node,
    Scalar,
    fail,
    join_surrogates,
    list_node,
    mapping_node,
    number,
)
from serving.documents.json_reader import read_json
from serving.errors import StoryboardError

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}

_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")

_MERGE = "<<"
"""The key of what a mapping takes its other keys from (https://yaml.org/type/merge.html)."""

_UNQUOTED_CHARACTER = re.compile(r":\s*\{\w+\}\s*[^\s,}#]")
"""`prompt: {hero} moving`: YAML takes the brace for a mapping."""


def read_yaml(text: str) -> Node:
    """The one document in `text`. Raises StoryboardError if it is not plain YAML within the bounds of settings."""
    if text.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(StoryboardError):
            return read_json(text)
    try:
        return _YamlReader(text).read()
    except yaml.YAMLError as error:
        raise _translate(error, text) from error


def is_text(text: str) -> bool:
    """Whether an unquoted scalar is text, and no number, truth value or null."""
    return text not in _WORDS and _NUMBER.fullmatch(text) is None


class _YamlReader:
    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._anchors: dict[str, Node] = {}
        self._budget = Budget()

    def read(self) -> Node:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise fail("the file is empty; a storyboard needs at least version and shots")
        root = self._node(next(self._events), depth=1)
        next(self._events)  # the document's end
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise fail("a file holds one document; a second one begins here", line=_line(after))
        return root

    def _node(self, event: yaml.Event, *, depth: int) -> Node:
        self._budget.spend(depth=depth, line=_line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        assert isinstance(event, yaml.NodeEvent)
        _refuse_tag(event)
        if isinstance(event, yaml.ScalarEvent):
            node = Node(_line(event), _scalar(event))
        elif isinstance(event, yaml.SequenceStartEvent):
            node = list_node(_line(event), [self._node(item, depth=depth + 1) for item in self._until_end()])
        else:
            node = self._mapping(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _mapping(self, event: yaml.Event, depth: int) -> Node:
        entries: list[tuple[str, int, Node]] = []
        merged: list[Node] | None = None
        for key in self._until_end():
            if not isinstance(key, yaml.ScalarEvent):
                raise fail("a key must be a word", line=_line(key))
            _refuse_tag(key)
            value = self._node(next(self._events), depth=depth + 1)
            if key.value != _MERGE or key.style is not None:
                entries.append((join_surrogates(key.value), _line(key), value))
            elif merged is not None:
                raise fail(f"{_MERGE} stands here a second time; give it a list", line=_line(key))
            else:
                merged = self._merged(value, line=_line(key))
        return mapping_node(_line(event), entries, merged=merged or ())

    def _merged(self, value: Node, *, line: int) -> list[Node]:
        """The mappings that `<<` takes keys from, those that count first first."""
        sources = value.value if isinstance(value.value, list) else [value]
        for source in sources:
            if not isinstance(source.value, dict):
                raise fail(f"{_MERGE} must be a mapping or a list of mappings, to take keys from", line=line)
            self._budget.spend(depth=1, line=line, values=len(source.value))
        return sources

    def _until_end(self) -> Iterator[yaml.Event]:
        """Events that begin the items or keys of the collection just opened; whoever takes one reads the rest of it."""
        for event in self._events:
            if isinstance(event, yaml.CollectionEndEvent):
                return
            yield event

    def _alias(self, event: yaml.AliasEvent) -> Node:
        name = event.anchor or ""
        node = self._anchors.get(name)
        if node is None:
            raise fail(f"the alias *{name[:40]} has no anchor before it", line=_line(event))
        return node


def _scalar(event: yaml.ScalarEvent) -> Scalar:
    text = event.value
    if event.style is not None:  # quoted, or a block of text
        return join_surrogates(str(text))
    if is_text(text):
        return str(text)
    return _WORDS[text] if text in _WORDS else number(text)


def _refuse_tag(event: yaml.NodeEvent) -> None:
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise fail("tags are not allowed here", line=_line(event), value=repr(tag[:40]))


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return int(event.start_mark.line) + 1


def _translate(error: yaml.YAMLError, text: str) -> StoryboardError:
    if isinstance(error, yaml.reader.ReaderError):
        bad_line = text.count("\n", 0, int(error.position)) + 1
        return fail("control characters are not allowed", line=bad_line, value=f"U+{error.character:04X}")
    assert isinstance(error, yaml.MarkedYAMLError)
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else None
    return fail(_plain_words(error, text, line), line=line)


def _plain_words(error: yaml.MarkedYAMLError, text: str, line: int | None) -> str:
    problem = error.problem or error.context or "it cannot be parsed"
    wrong_line = text.splitlines()[line - 1] if line is not None and line <= len(text.splitlines()) else ""
    if "'\\t'" in problem:
        return "not YAML: a tab stands where only spaces may; indent with spaces"
    if _UNQUOTED_CHARACTER.search(wrong_line):
        return "not YAML: text that begins with { needs quotes"
    if problem == "mapping values are not allowed here":
        return 'not YAML: a ": " inside a text; put the text in quotes, or check the indentation'
    return f"not YAML: {problem}; check indentation, quotes and brackets here and on the line before"
