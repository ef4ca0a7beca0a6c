"""Log lines of every process: one event, one action, ids as fields, JSON where no person reads along."""

import ast
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.contract.log_lines import JsonLines, choose_formatter, extra_of

ROOT = Path(__file__).parents[3]
METHODS = {"debug", "info", "warning", "error", "exception", "critical"}


def log_calls() -> Iterator[tuple[str, ast.Call, ast.AST]]:
    """Every call of a module's `log`, where it stands, and the function (or module) around it."""
    for package in ("cluster", "serving", "sharding"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            around: dict[ast.AST, ast.AST] = {}
            for scope in ast.walk(tree):
                if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
                    around |= dict.fromkeys(ast.walk(scope), scope)
            for node in ast.walk(tree):
                match node:
                    case ast.Call(func=ast.Attribute(value=ast.Name("log" | "logging"), attr=method)) if (
                        method in METHODS
                    ):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", node, around.get(node, tree)


def targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    found = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in found if isinstance(target, ast.Name)]


def names_an_action(value: ast.expr, scope: ast.AST) -> bool:
    match value:
        case ast.Dict():
            return any(isinstance(key, ast.Constant) and key.value == "action" for key in value.keys)
        case ast.BinOp(left=left, op=ast.BitOr()):
            return names_an_action(left, scope)
        case ast.Call(func=ast.Attribute(attr="_log_fields"), args=[ast.Constant(), *_]):  # cluster/kube/informer.py
            return True
        case ast.Name(name):
            given = [
                node.value
                for node in ast.walk(scope)
                if isinstance(node, ast.AnnAssign | ast.Assign) and name in targets(node)
            ]
            return bool(given) and all(one is not None and names_an_action(one, scope) for one in given)
    return False


def test_every_log_call_names_one_action_and_no_field_that_logging_uses_itself() -> None:
    taken = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
    calls = list(log_calls())
    assert len(calls) > 50
    for place, call, scope in calls:
        extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
        assert extra is not None, place
        assert names_an_action(extra, scope), place
        if isinstance(extra, ast.Dict):
            names = {key.value for key in extra.keys if isinstance(key, ast.Constant)}
            assert not names & taken, place


def test_log_is_the_only_name_of_a_logger() -> None:
    for package in ("cluster", "serving", "sharding"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for line in path.read_text().splitlines():
                assert "logging.getLogger(__name__)" not in line or line == "log = logging.getLogger(__name__)", path


def record(message: str, *values: object, **extra: object) -> logging.LogRecord:
    maker = logging.Logger("serving.test")
    return maker.makeRecord("serving.test", logging.WARNING, __file__, 1, message, values, None, extra=extra)


@given(message=st.text(), extra=st.dictionaries(st.sampled_from(["job", "take", "gang"]), st.text() | st.integers()))
def test_a_line_is_one_json_object_with_its_fields(message: str, extra: dict[str, Any]) -> None:
    line = JsonLines().format(record("%s", message, action="test", **extra))
    assert "\n" not in line
    read = json.loads(line)
    assert read | extra == read
    assert (read["action"], read["level"], read["logger"], read["message"]) == (
        "test", "warning", "serving.test", message,
    )  # fmt: skip


def test_a_traceback_stays_in_its_line() -> None:
    failed = record("it failed", action="fail")
    try:
        raise ValueError("why")
    except ValueError as error:
        failed.exc_info = (ValueError, error, error.__traceback__)
    line = JsonLines().format(failed)
    assert "\n" not in line
    assert "ValueError: why" in json.loads(line)["traceback"]


@pytest.mark.parametrize(
    ("form", "is_terminal", "is_json"),
    [("", True, False), ("", False, True), ("json", True, True), ("text", False, False), ("xml", False, True)],
)
def test_people_read_words_and_programs_json(form: str, is_terminal: bool, is_json: bool) -> None:
    assert isinstance(choose_formatter(form, is_terminal=is_terminal), JsonLines) == is_json


def test_only_what_was_given_is_extra() -> None:
    assert extra_of(record("a line", action="test", job="job_1")) == {"action": "test", "job": "job_1"}
