"""Reads what clients send: JSON, YAML, options; refuses it with every problem at once. Bounded by the gate's body
limit.

JSON is read by the reader that reads files, so a key that stands twice is refused everywhere, and a number that is too
large is one that no field accepts. A storyboard is the object or the YAML text under `storyboard` in a JSON body, or
the whole body as YAML with the options in the query.
"""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from serving.api.errors import ApiError, explain, refuse
from serving.api.wire.requests import NewJob
from serving.documents.document import Document, Node, list_node, mapping_node, to_document
from serving.documents.json_reader import read_json as read_node
from serving.documents.places import Lines, write_path
from serving.errors import Problem, StoryboardError
from serving.storyboard import Storyboard, check_document, parse_storyboard

Model = TypeVar("Model", bound=BaseModel)

JSON_TYPE = "application/json"
TWICE = "this key stands here a second time"
"""As serving/documents says it of a file."""

YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")


def read_json(body: bytes) -> Any:
    """The value in a body. Raises ApiError 400 if it is not JSON, 422 for a key that stands in it twice."""
    return _plain(_read_node(body))


def check(model: type[Model], value: object) -> Model:
    """The value as a model. Raises ApiError 422 with every problem."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        known = tuple(model.model_fields)
        raise refuse([explain(detail, known) for detail in error.errors(include_url=False)]) from error


def read_storyboard(value: Mapping[str, Any]) -> Storyboard:
    """A storyboard that was put together from a request. Raises StoryboardError."""
    return _check_object(_to_node(value))


def read_yaml_storyboard(content: bytes) -> Storyboard:
    """YAML as a storyboard. Raises StoryboardError with the line of each problem."""
    return parse_storyboard(content)


def options_from_query(query: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Options as they stand in a URL: `tag=key=value` as often as there are tags, numbers as digits. Raises ApiError
    if one is given twice."""
    options = once((name, _number_or_text(text)) for name, text in query if name not in ("tag", "dry_run"))
    tags = once((key, value) for key, _, value in (text.partition("=") for name, text in query if name == "tag"))
    return {**options, "tags": tags} if tags else options


def once(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Values by their names. Raises ApiError if a name is given twice, in the words for a file that does so."""
    found: dict[str, Any] = {}
    twice: list[str] = []
    for name, value in items:
        if name in found:
            twice.append(name)
        found[name] = value
    if twice:
        raise refuse([Problem(write_path((name,)), TWICE) for name in dict.fromkeys(twice)])
    return found


def read_new_job(body: bytes, content_type: str, query: Sequence[tuple[str, str]]) -> tuple[NewJob, Storyboard]:
    """The options and the storyboard of a request. Raises ApiError, StoryboardError."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in YAML_TYPES:
        options = check(NewJob, {**options_from_query(query), "storyboard": ""})
        return options, read_yaml_storyboard(body)
    if kind != JSON_TYPE:
        detail = f"send {JSON_TYPE} or {YAML_TYPES[0]}"
        raise ApiError(415, detail, code="unknown_content_type")
    return _read_json_job(_read_node(body))


class StrictRoute(APIRoute):
    """A route whose JSON body is read as every other is, and not by the standard library."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        return read_json(await self.body())


def _read_json_job(root: Node) -> tuple[NewJob, Storyboard]:
    """The options and the storyboard beside them, each read once. Paths in a storyboard are its own."""
    node = root.value.get("storyboard") if isinstance(root.value, dict) else None
    if node is None or not isinstance(node.value, dict):
        request = check(NewJob, _plain(root))
        return request, read_yaml_storyboard(str(request.storyboard).encode("utf-8", "surrogatepass"))
    assert isinstance(root.value, dict)
    options = _plain(replace(root, value={**root.value, "storyboard": replace(node, value="", repeated=())}))
    return check(NewJob, options), _check_object(node)


def _plain(root: Node) -> Any:
    """The value of a body. Raises ApiError for what is wrong with its keys and characters."""
    document = to_document(root)
    if document.problems:
        raise refuse([_without_line(problem) for problem in document.problems])
    return document.value


def _check_object(node: Node) -> Storyboard:
    """A storyboard that came as an object, without the lines of a text that nobody wrote. Raises StoryboardError."""
    document = to_document(node)
    problems = [_without_line(problem) for problem in document.problems]
    return check_document(Document(document.value, Lines(), problems))


def _to_node(value: object) -> Node:
    if isinstance(value, Mapping):
        return mapping_node(0, ((str(key), 0, _to_node(item)) for key, item in value.items()))
    if isinstance(value, list):
        return list_node(0, [_to_node(item) for item in value])
    assert value is None or isinstance(value, str | int | float)
    return Node(0, value)


def _read_node(body: bytes) -> Node:
    """Raises ApiError 400 for what is not JSON, nested too deep, or of too many values."""
    try:
        return read_node(body.decode("utf-8-sig"))
    except StoryboardError as error:
        (problem,) = error.problems
        line = f", line {problem.line}" if problem.line is not None else ""
        words = problem.message.removeprefix("not JSON: ") if body.strip() else "it is empty"
        raise ApiError(400, f"the body is not JSON{line}: {words}", code="invalid_json") from error
    except UnicodeDecodeError as error:
        raise ApiError(400, "the body is not JSON: it must be text in UTF-8", code="invalid_json") from error


def _number_or_text(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text) if len(text) <= 30 else text
        except ValueError:
            continue
    return text


def _without_line(problem: Problem) -> Problem:
    return Problem(problem.path, problem.message, problem.value, problem.nearest)
