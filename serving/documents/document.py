"""A parsed file before anyone knows that it is a storyboard: plain values and the line of each, bounded in every way.

Readers build nodes; an alias shares its node, and `size` counts it as often as it is used, so that a bomb is seen
before it is expanded.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from cluster.contract.plain_text import is_control_character
from serving.documents.places import Lines, Place
from serving.errors import Problem, StoryboardError

MAX_DEPTH = 8
"""Levels of nesting in a storyboard file; the deepest storyboard has four."""

MAX_VALUES = 20_000
"""Values in a storyboard file after aliases are expanded; a thousand full shots hold about ten thousand."""


Scalar = str | int | float | bool | None

_BREAKS = "\n\r\t"
"""Control characters that text may hold; a text of one line is refused them elsewhere."""

_SURROGATE = re.compile("[\ud800-\udfff]")

_MAX_INT_DIGITS = 20
"""Longer whole numbers become floats: no field accepts them, and Python refuses to convert very long ones."""


@dataclass(frozen=True)
class Node:
    """One value of the file: a scalar, a list of nodes or a mapping of nodes."""

    line: int
    value: "Scalar | list[Node] | dict[str, Node]"
    size: int = 1
    """Values in it, itself included, aliases expanded."""
    repeated: tuple[tuple[str, int], ...] = ()
    """Keys that a mapping holds more than once, each with the line of its repetition."""


@dataclass(frozen=True)
class Document:
    """A file as plain values, the line of each, and what was wrong with it so far."""

    value: object
    lines: Lines
    problems: list[Problem] = field(default_factory=list)


class Budget:
    """Counts the values that a reader meets, so that it stops in the middle of a file that holds too many."""

    def __init__(self) -> None:
        self._num_values = 0

    def spend(self, *, depth: int, line: int, values: int = 1) -> None:
        """More values, at this depth. Raises StoryboardError if values are too many or nested too deep."""
        self._num_values += values
        if self._num_values > MAX_VALUES:
            raise _too_many(line)
        if depth > MAX_DEPTH:
            raise fail(f"values may be nested at most {MAX_DEPTH} levels deep", line=line)


def fail(message: str, *, line: int | None = None, value: str | None = None) -> StoryboardError:
    """The error for a file that cannot be read any further."""
    return StoryboardError([Problem(path="", message=message, line=line, value=value)])


def list_node(line: int, items: Sequence[Node]) -> Node:
    """A list. Raises StoryboardError if it holds more values than a file may."""
    return Node(line, list(items), _bounded_size(items, line))


def mapping_node(line: int, entries: Iterable[tuple[str, int, Node]], *, merged: Iterable[Node] = ()) -> Node:
    """A mapping of (key, line of the key, value); of equal keys the first counts. Keys of `merged` mappings are added
    if it lacks them, those of earlier ones first. Raises StoryboardError."""
    values: dict[str, Node] = {}
    repeated: list[tuple[str, int]] = []
    for key, key_line, node in entries:
        if key in values:
            repeated.append((key, key_line))
        else:
            values[key] = replace(node, line=key_line)
    for source in merged:
        assert isinstance(source.value, dict)
        for key, node in source.value.items():
            values.setdefault(key, node)
    return Node(line, values, _bounded_size(values.values(), line), tuple(repeated))


def number(text: str) -> int | float:
    """The number that `text`, a decimal literal, stands for."""
    digits = text.lstrip("+-")
    return int(text) if digits.isdigit() and len(digits) <= _MAX_INT_DIGITS else float(text)


def to_document(root: Node) -> Document:
    """Plain values and lines of a tree whose size the readers have bounded."""
    nodes = list(_walk((), root))
    problems = [
        Lines({(): line}).problem((*place, key), "this key stands here a second time")
        for place, node in nodes
        for key, line in node.repeated
    ]
    lines = Lines({place: node.line for place, node in nodes})
    for place, node in nodes:
        texts = node.value if isinstance(node.value, dict) else [node.value]
        wrong = [_wrong_character(text) for text in texts if isinstance(text, str)]
        problems += [lines.problem(place, words) for words in wrong if words is not None]
    return Document(_plain(root), lines, problems)


def join_surrogates(text: str) -> str:
    """The text with each surrogate pair, as JSON escapes write characters above U+FFFF, as the character it means."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _wrong_character(text: str) -> str | None:
    """What is wrong with a character of the text: a database, a terminal or a file could not keep it."""
    for letter in text if not text.isprintable() else "":
        if letter not in _BREAKS and is_control_character(letter):
            return f"the control character U+{ord(letter):04X} is not allowed"
        if _SURROGATE.match(letter):
            return f"U+{ord(letter):04X} is half of a surrogate pair and stands for no character"
    return None


def _walk(place: Place, node: Node) -> Iterator[tuple[Place, Node]]:
    yield place, node
    if isinstance(node.value, list):
        for index, item in enumerate(node.value):
            yield from _walk((*place, index), item)
    elif isinstance(node.value, dict):
        for key, item in node.value.items():
            yield from _walk((*place, key), item)


def _plain(node: Node) -> object:
    if isinstance(node.value, list):
        return [_plain(item) for item in node.value]
    if isinstance(node.value, dict):
        return {key: _plain(item) for key, item in node.value.items()}
    return node.value


def _bounded_size(parts: Iterable[Node], line: int) -> int:
    size = 1 + sum(part.size for part in parts)
    if size > MAX_VALUES:
        raise _too_many(line)
    return size


def _too_many(line: int) -> StoryboardError:
    return fail(f"a file may hold at most {MAX_VALUES} values, aliases written out", line=line)
