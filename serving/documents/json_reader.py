"""JSON to nodes with their lines, which the standard library's reader does not keep. Strict: no NaN, no comments."""

import json
import re

from serving.documents.document import Budget, Node, Scalar, fail, list_node, mapping_node, number

_TOKEN = re.compile(
    r"[ \t\r\n]*(?:"
    r"(?P<mark>[{}\[\],:])"
    r'|(?P<text>"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*")'
    r"|(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)(?![\w.+-])"
    r"|(?P<word>true|false|null)\b"
    r")"
)

_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}


def read_json(text: str) -> Node:
    """The value in `text`. Raises StoryboardError if it is not JSON within the bounds of settings."""
    if not text.strip():
        raise fail("the file is empty; a storyboard needs at least version and shots")
    reader = _JsonReader(text)
    root = reader.value(depth=1)
    reader.expect_end()
    return root


class _JsonReader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._budget = Budget()

    def value(self, *, depth: int) -> Node:
        self._budget.spend(depth=depth, line=self._line)
        kind, token = self._take()
        if kind == "text":
            return Node(self._line, str(json.loads(token)))
        if kind == "number":
            return Node(self._line, number(token))
        if kind == "word":
            return Node(self._line, _WORDS[token])
        if token == "[":
            return self._list(depth)
        if token == "{":
            return self._mapping(depth)
        raise self._unexpected(token)

    def expect_end(self) -> None:
        """Raises StoryboardError if anything but blanks follows."""
        if self._text[self._at :].strip():
            raise fail("not JSON: a file holds one storyboard, and something follows it", line=self._line)

    def _list(self, depth: int) -> Node:
        line, items = self._line, list[Node]()
        if self._skip("]"):
            return list_node(line, items)
        while True:
            items.append(self.value(depth=depth + 1))
            if self._comma_or("]"):
                return list_node(line, items)

    def _mapping(self, depth: int) -> Node:
        line, entries = self._line, list[tuple[str, int, Node]]()
        if self._skip("}"):
            return mapping_node(line, entries)
        while True:
            kind, token = self._take()
            if kind != "text":
                raise self._unexpected(token)
            key, key_line = str(json.loads(token)), self._line
            _, colon = self._take()
            if colon != ":":
                raise self._unexpected(colon)
            entries.append((key, key_line, self.value(depth=depth + 1)))
            if self._comma_or("}"):
                return mapping_node(line, entries)

    def _comma_or(self, closing: str) -> bool:
        """True if `closing` comes next, False if a comma does."""
        _, token = self._take()
        if token not in (",", closing):
            raise self._unexpected(token)
        return token == closing

    def _skip(self, mark: str) -> bool:
        match = _TOKEN.match(self._text, self._at)
        if match is None or match["mark"] != mark:
            return False
        self._take()
        return True

    def _take(self) -> tuple[str, str]:
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            rest = self._text[self._at :].lstrip(" \t\r\n")
            self._line += self._text.count("\n", self._at, len(self._text) - len(rest))
            raise self._unexpected(rest)
        self._line += self._text.count("\n", self._at, match.end())
        self._at = match.end()
        assert match.lastgroup is not None
        return match.lastgroup, match[match.lastgroup]

    def _unexpected(self, rest: str) -> Exception:
        if not rest:
            return fail("not JSON: the file ends too early; a bracket or quote is not closed", line=self._line)
        return fail("not JSON: this cannot stand here", line=self._line, value=repr(rest[:20]))
