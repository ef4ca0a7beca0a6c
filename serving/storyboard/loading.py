"""From a file or bytes to a storyboard, or to every problem in it at once. Bounded memory and time for any input."""

import sys
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from serving.documents.document import Document, fail, to_document
from serving.documents.json_reader import read_json
from serving.documents.places import Lines
from serving.documents.yaml_reader import read_yaml
from serving.errors import Problem, StoryboardError
from serving.settings import MAX_FILE_BYTES, MAX_PROBLEMS
from serving.storyboard.problems import explain
from serving.storyboard.rules import check_rules
from serving.storyboard.schema import Storyboard

Form = Literal["yaml", "json"]

STDIN = Path("-")


def load_storyboard(path: Path) -> Storyboard:
    """The storyboard in a file or pipe, or on stdin if its name is `-`: JSON if its name ends so, else YAML or JSON.

    Raises StoryboardError.
    """
    return parse_storyboard(_read(path), form="json" if path.suffix.lower() == ".json" else "yaml")


def parse_storyboard(content: bytes, *, form: Form = "yaml") -> Storyboard:
    """The storyboard in `content`, UTF-8. Raises StoryboardError with every problem, in the order of the file."""
    text = _decode(content)
    return check_document(to_document(read_json(text) if form == "json" else read_yaml(text)))


def check_document(document: Document) -> Storyboard:
    """The storyboard that a document holds. Raises StoryboardError with every problem, in the order of its lines."""
    problems = document.problems + check_rules(document.value, document.lines)
    storyboard: Storyboard | None = None
    try:
        storyboard = Storyboard.model_validate(document.value)
    except ValidationError as error:
        problems += explain(error, document.lines)
    if storyboard is None or problems:
        raise StoryboardError(_in_order(problems))
    return _with_lines(storyboard, document.lines)


def _read(path: Path) -> bytes:
    try:
        if path == STDIN:
            return sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        if path.is_dir():
            raise fail("is a folder, not a file")
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise fail("there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise fail(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _decode(content: bytes) -> str:
    if len(content) > MAX_FILE_BYTES:
        raise fail(f"a storyboard may be at most {MAX_FILE_BYTES // 1024} KiB; this one is larger")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise fail("the file must be text in UTF-8", line=line, value=f"byte 0x{content[error.start]:02X}") from error


def _in_order(problems: list[Problem]) -> list[Problem]:
    ordered = sorted(problems, key=lambda problem: problem.line or 0)
    if len(ordered) <= MAX_PROBLEMS:
        return ordered
    return [*ordered[:MAX_PROBLEMS], Problem(path="", message="and more problems like these")]


def _with_lines(storyboard: Storyboard, lines: Lines) -> Storyboard:
    storyboard._lines = lines  # the only writer: a private attribute keeps lines out of the keys, hash and schema
    return storyboard
