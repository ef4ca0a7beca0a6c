"""A form's fields as the JSON that they stand for. OpenAI's client asks for videos with forms, lists in brackets:

    shots[][prompt]=a, shots[][prompt]=b, shots[][seconds]=2, shots[][seconds]=3

Which of them belong together is only told if every item has the same keys; other lists are sent as JSON text.
"""

import re
from collections.abc import Sequence
from typing import Any

from serving.api.errors import refuse
from serving.api.wire.reading import once, read_json
from serving.errors import Problem

_ITEM = re.compile(r"shots\[\d*\]\[(\w{1,30})\]")

_REFERENCE = re.compile(r"input_reference\[(\w{1,30})\]")

_ENTRY = re.compile(r"metadata\[([^\[\]]{1,64})\]")

_JSON = ("shots", "metadata")
"""Fields that are JSON text if they are sent whole."""

_NUMBERS = dict.fromkeys(("seed", "width", "height", "fps", "num_frames", "num_inference_steps", "n"), int) | {
    "seconds": float
}


def fields_of_form(items: Sequence[tuple[str, str | bytes]]) -> dict[str, Any]:
    """The fields of /v1/videos; a file is its bytes. Raises ApiError if one is given twice, or shots cannot be put
    together."""
    fields: list[tuple[str, Any]] = []
    columns: dict[str, list[Any]] = {}
    metadata: list[tuple[str, str]] = []
    reference: list[tuple[str, str]] = []
    for name, value in items:
        if not isinstance(value, str):
            fields.append((name, value))
        elif name in _JSON:
            fields.append((name, read_json(value.encode("utf-8", "surrogatepass"))))
        elif match := _ITEM.fullmatch(name):
            columns.setdefault(match[1], []).append(_plain(match[1], value))
        elif match := _REFERENCE.fullmatch(name):
            reference.append((match[1], value))
        elif match := _ENTRY.fullmatch(name):
            metadata.append((match[1], value))
        else:
            fields.append((name, value if name == "seconds" else _plain(name, value)))
    if columns:
        fields.append(("shots", _rows(columns)))
    if metadata:
        fields.append(("metadata", once(metadata)))
    if reference:
        fields.append(("input_reference", once(reference)))
    return once(fields)


def _rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    if len({len(column) for column in columns.values()}) != 1:
        message = "in a form every shot must have the same keys; send them as JSON text if they differ"
        raise refuse([Problem("shots", message)])
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(name: str, text: str) -> Any:
    """A number where one belongs; what is none is left for the check of the whole."""
    try:
        return _NUMBERS[name](text) if name in _NUMBERS and len(text) < 20 else text
    except ValueError:
        return text
