"""A configuration from a YAML file and environment variables, or every problem in the two at once.

It knows no keys: they come from the pydantic model that it is given. A variable is named after its key, in capitals,
with two underscores before each inner key: LONGTAKE_LIMITS__ACTIVE_JOBS is limits.active_jobs, LONGTAKE_POOLS__0__MODEL
is pools[0].model. A list can be added to at its end. Passwords in URLs are never printed.
"""

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from serving.documents.document import to_document
from serving.documents.places import Lines, Place, find_nearest, show, write_path
from serving.documents.yaml_reader import read_yaml
from serving.errors import Problem, StoryboardError, UserError, hide_secrets
from serving.settings import MAX_FILE_BYTES

PREFIX = "LONGTAKE_"

Model = TypeVar("Model", bound=BaseModel)


def read_config(
    model: type[Model],
    *,
    path: Path | None,
    environ: Mapping[str, str],
    defaults: Mapping[str, Any],
    other_variables: Sequence[str],
) -> Model:
    """The defaults, the file over them, the variables over both. Raises UserError."""
    source = _Source(model)
    values = {**defaults, **(source.read_file(path) if path is not None else {})}
    source.read_environment(environ, values, other_variables)
    try:
        config = model.model_validate(values)
    except ValidationError as error:
        source.problems += [
            source.explain(detail) for detail in error.errors(include_url=False) if not _is_echo(detail)
        ]
    if source.problems:
        in_order = sorted(source.problems, key=lambda problem: problem.line or 0)
        raise UserError("\n".join(source.tell(problem) for problem in in_order))
    return config


@dataclass
class _Source:
    """What was read so far, and where each value came from."""

    model: type[BaseModel]
    file: str = ""
    lines: Lines = field(default_factory=Lines)
    variables: dict[Place, str] = field(default_factory=dict)
    """The variable that each value came from."""
    problems: list[Problem] = field(default_factory=list)

    def read_file(self, path: Path) -> dict[str, Any]:
        """The mapping in the file."""
        self.file = str(path)
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{path}: the file must be text in UTF-8") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        if len(content) > MAX_FILE_BYTES:
            raise UserError(f"{path}: a configuration may be at most {MAX_FILE_BYTES // 1024} KiB; this one is larger")
        return self._parse(text)

    def _parse(self, text: str) -> dict[str, Any]:
        if not re.search(r"^\s*[^#\s]", text, flags=re.MULTILINE):
            return {}
        try:
            document = to_document(read_yaml(text))
        except StoryboardError as error:
            raise UserError("\n".join(f"{self.file}: {problem}" for problem in error.problems)) from error
        self.lines = document.lines
        self.problems += document.problems
        if document.value is None:
            return {}
        if not isinstance(document.value, dict):
            raise UserError(f"{self.file}: must be a mapping of {', '.join(self.model.model_fields)}")
        return document.value

    def read_environment(self, environ: Mapping[str, str], values: dict[str, Any], others: Sequence[str]) -> None:
        """Puts the variables' values into `values`; empty ones count as not set."""
        for name in sorted(name for name in environ if name.startswith(PREFIX) and name not in others):
            place = self._place_of(name, values)
            if place is None:
                known = [*others, *variable_names(self.model)]
                message = "is not a variable that Longtake knows; docs/farm.md lists them"
                self.problems.append(Problem(path=name, message=message, nearest=find_nearest(name, known)))
            elif environ[name]:
                self.variables[place] = name
                _put(values, place, _value(environ[name], _field(self.model, place)))

    def _place_of(self, name: str, values: dict[str, Any]) -> Place | None:
        """The place of a scalar setting; None if there is none of that name."""
        parts = name.removeprefix(PREFIX).lower().split("__")
        place: Place = tuple(int(part) if re.fullmatch(r"\d{1,3}", part) else part for part in parts)
        found = _field(self.model, place)
        if found is None or _inner(found.annotation) is not None:
            return None
        return place if _reachable(values, place) else None

    def explain(self, detail: Any) -> Problem:
        """One of pydantic's errors in a user's words."""
        place: Place = detail["loc"]
        if detail["type"] == "extra_forbidden":
            known = list(_fields_around(self.model, place))
            message = f"is not a key that is known here; known are {', '.join(known)}"
            return self._problem(place, message, nearest=find_nearest(place[-1], known))
        if detail["type"] == "value_error":
            value = _shown(detail["input"]) if isinstance(detail["input"], str) else None
            return self._problem(place, str(detail["ctx"]["error"]), value=value)
        found = _field(self.model, place)
        words = _allowed(found) if found is not None else "a mapping"
        if isinstance(place[-1], int):
            words = "a mapping"
        choices = _choices(found.annotation) if found is not None else []
        nearest = find_nearest(detail["input"], choices)
        return self._problem(place, f"must be {words}", value=_shown(detail["input"]), nearest=nearest)

    def _problem(self, place: Place, message: str, *, value: str | None = None, nearest: str | None = None) -> Problem:
        variable = self.variables.get(place)
        if variable is not None:
            return Problem(path=variable, message=message, value=value, nearest=nearest)
        line = self.lines.of(place) if self.file else None
        return Problem(path=write_path(place), message=message, value=value, nearest=nearest, line=line)

    def tell(self, problem: Problem) -> str:
        """The problem after the name of the file, unless a variable is to blame."""
        return f"{self.file}: {problem}" if self.file and not problem.path.startswith(PREFIX) else str(problem)


def _is_echo(detail: Any) -> bool:
    """True for a list called too short only because its items are wrong, which is told of each of them."""
    return bool(detail["type"] == "too_short" and detail["input"])


def variable_names(model: type[BaseModel], before: str = PREFIX) -> Iterator[str]:
    """The variable of every scalar setting; in lists, that of the first item."""
    for name, info in model.model_fields.items():
        inner = _inner(info.annotation)
        if inner is None:
            yield before + name.upper()
        else:
            index = "0__" if _is_list(info.annotation) else ""
            yield from variable_names(inner, f"{before}{name.upper()}__{index}")


def _field(model: type[BaseModel], place: Place) -> FieldInfo | None:
    """The field at the place, None if the model has none there."""
    inner: type[BaseModel] | None = model
    found: FieldInfo | None = None
    for part in place:
        if isinstance(part, int):
            if found is None or not _is_list(found.annotation):
                return None
            continue
        found = inner.model_fields.get(part) if inner is not None else None
        if found is None:
            return None
        inner = _inner(found.annotation)
    return found


def _fields_around(model: type[BaseModel], place: Place) -> Iterator[str]:
    found = _field(model, place[:-1])
    yield from ((_inner(found.annotation) if found is not None else None) or model).model_fields


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation holds: PoolConfig in tuple[PoolConfig, ...]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner(part)) is not None), None)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is tuple or any(_is_list(part) for part in get_args(annotation))


def _reachable(values: Any, place: Place) -> bool:
    """False if an index leaves a gap in a list, or a list stands where none should."""
    for part in place:
        if isinstance(part, int):
            if not isinstance(values, list) or part > len(values):
                return False
            values = values[part] if part < len(values) else {}
        elif isinstance(values, dict):
            values = values.get(part, {})
        else:
            return False
    return True


def _put(values: Any, place: Place, value: object) -> None:
    """Sets the value at the place, making mappings and the next item of a list on the way."""
    for part, following in pairwise(place):
        if isinstance(part, int):
            if part == len(values):
                values.append({})
        elif part not in values:
            values[part] = [] if isinstance(following, int) else {}
        values = values[part]
    values[place[-1]] = value


def _value(text: str, info: FieldInfo | None) -> object:
    """What a variable's text means: itself if text is wanted, else what YAML takes it for."""
    if info is not None and str in _leaves(info.annotation):
        return text
    try:
        value = read_yaml(text).value
    except StoryboardError:
        return text
    return value if isinstance(value, bool | int | float) or value is None else text


def _leaves(annotation: Any) -> list[Any]:
    """The plain types in an annotation; those of words to choose from are text."""
    if get_origin(annotation) is Literal:
        return [str]
    parts = get_args(annotation)
    return [leaf for part in parts for leaf in _leaves(part)] if parts else [annotation]


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _allowed(info: FieldInfo) -> str:
    """What a field accepts, from its own constraints: completes "must be ..."."""
    optional = " or nothing" if type(None) in _leaves(info.annotation) else ""
    choices, types_ = _choices(info.annotation), _leaves(info.annotation)
    if _inner(info.annotation) is not None:
        return ("a list of at least one mapping" if _is_list(info.annotation) else "a mapping") + optional
    if choices:
        return " or ".join(choices) + optional
    if bool in types_:
        return "true or false" + optional
    if int in types_ or float in types_:
        return f"{'a whole number' if int in types_ else 'a number'}{_range(info)}{optional}"
    return (info.description or "text") + optional


def _range(info: FieldInfo) -> str:
    bounds = {type(item).__name__: item for item in _constraints(info)}
    low = f" from {bounds['Ge'].ge}" if "Ge" in bounds else f" above {bounds['Gt'].gt}" if "Gt" in bounds else ""
    high = (
        f"{' to' if 'Ge' in bounds else ', at most'} {bounds['Le'].le:,.15g}".replace(",", "") if "Le" in bounds else ""
    )
    return low + high


def _constraints(info: FieldInfo) -> Iterator[Any]:
    """The bounds of a number: on the field, or inside an optional one's annotation."""
    yield from info.metadata
    if get_origin(info.annotation) in (Union, types.UnionType):
        for part in get_args(info.annotation):
            for item in getattr(part, "__metadata__", ()):
                yield from item.metadata if isinstance(item, FieldInfo) else (item,)


def _shown(value: object) -> str:
    """The value as it may be printed: a setting's text may be a URL with a password."""
    return show(hide_secrets(value)) if isinstance(value, str) else show(value)
