"""pydantic's errors in a user's words: the path as written, the value, what is allowed, the nearest match."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from serving.documents.places import Lines, Place, find_nearest, show
from serving.errors import Problem
from serving.storyboard.schema import TRANSITION_TAGS, Allowed, Storyboard

_ROOT = Allowed("a mapping with at least version and shots")

_KEY_MARK = "[key]"
"""What pydantic appends to the place of an error in a mapping's key."""


def explain(error: ValidationError, lines: Lines) -> list[Problem]:
    """Every error of pydantic's as a problem; a key that is missing because it was misspelt is told once."""
    details = [detail for detail in error.errors(include_url=False) if not _is_told(detail)]
    misspelt = {
        (*place[:-1], nearest)
        for place, nearest in ((_place(d["loc"]), _nearest_key(d)) for d in details if d["type"] == "extra_forbidden")
        if nearest is not None
    }
    return [
        _explain_one(detail, lines)
        for detail in details
        if not (detail["type"] == "missing" and _place(detail["loc"]) in misspelt)
    ]


def _is_told(detail: Any) -> bool:
    """True for a list called too short only because its items are wrong, which is told of each of them, and for text
    with half of a surrogate pair, which the reader of the file tells."""
    return bool(detail["type"] == "too_short" and detail["input"]) or detail["type"] == "string_unicode"


def _explain_one(detail: Any, lines: Lines) -> Problem:
    place = _place(detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _fields_around(place)
        message = f"is not a key that is known here; known are {', '.join(known)}"
        return lines.problem(place, message, nearest=_nearest_key(detail))
    if detail["type"] == "missing":
        return lines.problem(place, f"is missing; it must be {_allowed(place).words}")
    if place and place[-1] == _KEY_MARK:
        place = place[:-1]
        return lines.problem(place, f"a name must be {_allowed(place[:-1]).key}", value=show(place[-1]))
    allowed, value = _allowed(place), detail["input"]
    nearest = find_nearest(value, allowed.choices)
    if value == "dissolve" and nearest is None:
        nearest = allowed.choices[-1] if allowed.choices else None
    return lines.problem(place, f"must be {allowed.words}", value=_show_input(value), nearest=nearest)


def _place(loc: tuple[int | str, ...]) -> Place:
    """The place without the tag that pydantic puts after a transition's key."""
    before = ("", *loc)
    return tuple(
        part for part, last in zip(loc, before, strict=False) if not (last == "transition" and part in TRANSITION_TAGS)
    )


def _show_input(value: object) -> str:
    """The value, and for text of unbearable length how long it is."""
    return f"{show(value)}, {len(value)} characters" if isinstance(value, str) and len(value) > 100 else show(value)


def _nearest_key(detail: Any) -> str | None:
    place = _place(detail["loc"])
    return find_nearest(place[-1], _fields_around(place))


def _fields_around(place: Place) -> list[str]:
    """The keys known in the mapping that holds the place."""
    model: type[BaseModel] = Storyboard
    for field in _fields_along(place[:-1]):
        model = _model_in(field.annotation) or model
    return list(model.model_fields)


def _allowed(place: Place) -> Allowed:
    """What may stand at the place."""
    fields = list(_fields_along(place))
    if not fields:
        return _ROOT
    allowed = next(meta for meta in fields[-1].metadata if isinstance(meta, Allowed))
    own = sum(isinstance(part, str) for part in place) == len(fields) and not isinstance(place[-1], int)
    return allowed if own or not allowed.item else Allowed(allowed.item)


def _fields_along(place: Place) -> Iterator[FieldInfo]:
    """The fields that the place leads through, from the root."""
    model: type[BaseModel] | None = Storyboard
    for part in place:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part) if model is not None else None
        if field is None:
            return
        yield field
        model = _model_in(field.annotation)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation holds: Shot in tuple[Shot, ...], Dissolve in a transition."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)
