"""Places in a storyboard: a path as a user writes it, the line it stands on, and a problem that names both."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from serving.errors import Problem

Place = tuple[str | int, ...]
"""Keys and indices from the root: ("shots", 2, "seconds")."""

_MAX_SHOWN_CHARS = 60
"""Characters of a value or key that a message repeats."""


@dataclass(frozen=True)
class Lines:
    """The line in the file, from 1, of each place. Two storyboards are equal wherever their text stood."""

    by_place: Mapping[Place, int] = field(default_factory=dict, compare=False, repr=False)

    def of(self, place: Place) -> int | None:
        """Line of the place or of the nearest one around it; None if there was no file."""
        for length in range(len(place), -1, -1):
            line = self.by_place.get(place[:length])
            if line is not None:
                return line
        return None

    def problem(self, place: Place, message: str, *, value: str | None = None, nearest: str | None = None) -> Problem:
        """A problem at the place, with its line. `value` is shown as it is: pass it through `show`."""
        return Problem(path=write_path(place), message=message, value=value, nearest=nearest, line=self.of(place))


def write_path(place: Place) -> str:
    """The place as a user writes it: `shots[2].seconds`."""
    path = ""
    for part in place:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part.isascii() and len(part) <= _MAX_SHOWN_CHARS:
            path += f".{part}" if path else part
        else:
            path += f"[{show(part)}]"
    return path


def show(value: object) -> str:
    """The value in a few characters, safe to print on a terminal."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, str) and len(value) > _MAX_SHOWN_CHARS:
        return f"{value[:_MAX_SHOWN_CHARS]!r}..."
    return repr(value)


def find_nearest(word: object, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be."""
    if not isinstance(word, str):
        return None
    by_lower = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word[:_MAX_SHOWN_CHARS].lower(), by_lower, n=1)
    return by_lower[matches[0]] if matches else None
