"""Characters in prompts: `{hero}` stands for a description, `{{` and `}}` for the braces themselves."""

import re
from collections.abc import Iterator, Mapping

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


def write_out(prompt: str, characters: Mapping[str, str]) -> str:
    """The prompt with each character's description in place of its name. The prompt must have no faults."""
    return "".join(_written(match, characters) for match in _PIECE.finditer(prompt))


def names_in(prompt: str) -> list[str]:
    """The names in braces, in order, `{}` as an empty name."""
    return [match[1].strip() for match in _pieces(prompt) if match[1] is not None]


def has_stray_brace(prompt: str) -> bool:
    """True if a brace is neither doubled nor one of a pair around a name."""
    return any(match[0] in ("{", "}") for match in _pieces(prompt))


def _pieces(prompt: str) -> Iterator[re.Match[str]]:
    return _PIECE.finditer(prompt)


def _written(match: re.Match[str], characters: Mapping[str, str]) -> str:
    if match[1] is not None:
        return characters[match[1].strip()]
    return match[0][0] if match[0] in ("{{", "}}") else match[0]
