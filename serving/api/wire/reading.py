"""Reads what clients send: JSON, YAML, options; refuses it with every problem at once. Bounded by the gate's body
limit.

A storyboard is the object or the YAML text under `storyboard` in a JSON body, or the whole body as YAML with the
options in the query.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from serving.api.errors import ApiError, explain, refuse
from serving.api.wire.requests import NewJob
from serving.errors import Problem, StoryboardError
from serving.storyboard import Storyboard, parse_storyboard

Model = TypeVar("Model", bound=BaseModel)

JSON_TYPE = "application/json"
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")


def read_json(body: bytes) -> Any:
    """The value in a body. Raises ApiError 400 where it is not JSON: no NaN, no endless nesting."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "the body is not JSON", code="invalid_json") from error


def check(model: type[Model], value: object) -> Model:
    """The value as a model. Raises ApiError 422 with every problem."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        known = tuple(model.model_fields)
        raise refuse([explain(detail, known) for detail in error.errors(include_url=False)]) from error


def read_storyboard(value: Mapping[str, Any] | str) -> Storyboard:
    """An object, or YAML text, as a storyboard. Raises StoryboardError."""
    if isinstance(value, str):
        return read_yaml_storyboard(value.encode("utf-8", "surrogatepass"))
    try:
        read = parse_storyboard(json.dumps(value).encode(), form="json")
        return Storyboard.model_validate(read.model_dump(mode="json"))  # without the lines of a text that nobody wrote
    except StoryboardError as error:
        raise StoryboardError([_without_line(problem) for problem in error.problems]) from error


def read_yaml_storyboard(content: bytes) -> Storyboard:
    """YAML as a storyboard. Raises StoryboardError with the line of each problem."""
    return parse_storyboard(content)


def options_from_query(query: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Options as they stand in a URL: `tag=key=value` as often as there are tags, numbers as digits."""
    options: dict[str, Any] = {}
    tags: dict[str, str] = {}
    for name, text in query:
        if name == "tag":
            key, _, value = text.partition("=")
            tags[key] = value
        elif name != "dry_run":
            options[name] = _number_or_text(text)
    return {**options, "tags": tags} if tags else options


def read_new_job(body: bytes, content_type: str, query: Sequence[tuple[str, str]]) -> tuple[NewJob, Storyboard]:
    """The options and the storyboard of a request. Raises ApiError, StoryboardError."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in YAML_TYPES:
        options = check(NewJob, {**options_from_query(query), "storyboard": ""})
        return options, read_yaml_storyboard(body)
    if kind != JSON_TYPE:
        detail = f"send {JSON_TYPE} or {YAML_TYPES[0]}"
        raise ApiError(415, detail, code="unknown_content_type")
    request = check(NewJob, read_json(body))
    return request, read_storyboard(request.storyboard)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _number_or_text(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text) if len(text) <= 30 else text
        except ValueError:
            continue
    return text


def _without_line(problem: Problem) -> Problem:
    return Problem(problem.path, problem.message, problem.value, problem.nearest)
