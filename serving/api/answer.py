"""What every answer of the API is built on: pydantic models that routes return, and OpenAPI describes."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from starlette.responses import Response

from serving.store.insides import hide_insides


def _rounded(digits: int) -> BeforeValidator:
    return BeforeValidator(lambda value: round(value, digits) if isinstance(value, float) else value)


WholeSeconds = Annotated[float, PlainSerializer(int, return_type=int)]
"""Unix seconds without their fraction."""

Milliseconds = Annotated[float, _rounded(3)]
"""Unix seconds to three digits."""

GpuSeconds = Annotated[float, _rounded(3)]
Usd = Annotated[float, _rounded(6)]
Percent = Annotated[float, _rounded(1)]


def shown(text: str, *, is_admin: bool) -> str:
    """A text of the farm's: whole to an administrator, to a tenant without the farm's insides."""
    return text if is_admin else hide_insides(text)


def optional(description: str | None = None) -> Any:
    """A field that is left out of the answer if it is None; all others are always there."""
    return Field(default=None, description=description, exclude_if=lambda value: value is None)


class Answer(BaseModel):
    """An object that the API answers. It may be made from a record of the store that has its fields."""

    model_config = ConfigDict(from_attributes=True, json_schema_serialization_defaults_required=True)


class Listed(Answer):
    """A list of objects."""

    object: Literal["list"] = "list"
    data: Sequence[Any]


class Page(Listed):
    """A page of a list. The next page begins after `last_id`."""

    first_id: str | int | None
    last_id: str | int | None
    has_more: bool

    @classmethod
    def of(cls, data: Sequence[Any], *, has_more: bool = False, **more: Any) -> Self:
        """The page that holds these."""
        first_id, last_id = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first_id, last_id=last_id, has_more=has_more, **more)


class Deleted(Answer):
    """What was deleted."""

    id: str
    object: str
    deleted: bool = True


def respond(
    answer: Answer, status: int = 200, headers: dict[str, str] | None = None, *, media_type: str = "application/json"
) -> Response:
    """An answer with a status or headers of its own. Others are returned by their routes as they are."""
    content = answer.model_dump_json(by_alias=True)
    return Response(content, status, headers=headers, media_type=media_type)
