"""pydantic's errors in a user's words: the path as written, the value, what is allowed, the nearest match."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from serving.documents.places import Lines, Place, find_nearest, show
from serving.errors import Problem
from serving.storyboard.schema import FORM_TAGS, Allowed, Storyboard

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
    """The place without the tag that pydantic puts after the key of a value that has two forms."""
    return tuple(part for k, part in enumerate(loc) if not (part in FORM_TAGS and _has_forms(loc[:k])))


def _has_forms(loc: tuple[int | str, ...]) -> bool:
    return loc[-1:] == ("transition",) or (len(loc) == 2 and loc[0] == "characters")


def _show_input(value: object) -> str:
    """The value, and for text of unbearable length how long it is."""
    return f"{show(value)}, {len(value)} characters" if isinstance(value, str) and len(value) > 100 else show(value)


def _nearest_key(detail: Any) -> str | None:
    place = _place(detail["loc"])
    return find_nearest(place[-1], _fields_around(place))


def _fields_around(place: Place) -> list[str]:
    """The keys known in the mapping that holds the place."""
    model: type[BaseModel] = Storyboard
    for _, field in _fields_along(place[:-1]):
        model = _model_in(field.annotation) or model
    return [field.alias or name for name, field in model.model_fields.items()]


def _allowed(place: Place) -> Allowed:
    """What may stand at the place."""
    fields = list(_fields_along(place))
    if not fields:
        return _ROOT
    depth, field = fields[-1]
    allowed = next(meta for meta in field.metadata if isinstance(meta, Allowed))
    return allowed if depth == len(place) or not allowed.item else Allowed(allowed.item)


def _fields_along(place: Place) -> Iterator[tuple[int, FieldInfo]]:
    """The fields that the place leads through, from the root, each with how many parts lead to it. Indices and the free
    keys of a mapping lead through none."""
    model: type[BaseModel] | None = Storyboard
    free_key = False
    for depth, part in enumerate(place, start=1):
        if isinstance(part, int) or free_key:
            free_key = False
            continue
        field = _field(model, part)
        if field is None:
            return
        yield depth, field
        model, free_key = _model_in(field.annotation), get_origin(field.annotation) is dict


def _field(model: type[BaseModel] | None, key: str) -> FieldInfo | None:
    fields = model.model_fields.items() if model is not None else ()
    return next((field for name, field in fields if key == (field.alias or name)), None)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation holds: Shot in tuple[Shot, ...], Dissolve in a transition."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)
