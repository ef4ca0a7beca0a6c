"""Reads the studio's own JavaScript: which keys of words.js it uses, and what it shows that comes from no table.

It knows just enough of the language: strings, templates, and html`...` inside both.
"""

import re
from collections.abc import Iterator
from pathlib import Path

WEB = Path(__file__).parents[2] / "serving" / "web"

_KEY = re.compile(r'^  "([\w.]+)":', re.MULTILINE)
_STRING = re.compile(r'"([\w.]+)"')
_TEMPLATE = re.compile(r"`([\w.]+\.\$\{[^`]*)`")
_SHOWN = ("aria-label", "title", "alt", "placeholder", "label", "hint")
_ATTRIBUTE = re.compile(rf'\b(?:{"|".join(_SHOWN)})="([^"\0]*[A-Za-z]{{2}}[^"\0]*)"')
_FORMS = ("one", "other")


def scripts() -> dict[str, str]:
    """The text of every module that is ours, by its path below serving/web."""
    found = (path for path in WEB.rglob("*.js") if "vendor" not in path.parts)
    return {str(path.relative_to(WEB)): path.read_text() for path in sorted(found)}


def keys() -> list[str]:
    """The keys of words.js, as often as they are there."""
    return _KEY.findall((WEB / "words.js").read_text())


def used(known: set[str]) -> set[str]:
    """The keys that the modules name: whole, as a form of a number, or put together from a beginning and a value."""
    found: set[str] = set()
    for path, text in scripts().items():
        if path == "words.js":
            continue
        whole = set(_STRING.findall(text))
        found |= whole | {f"{key}.{form}" for key in whole for form in _FORMS}
        for template in _TEMPLATE.findall(text):
            pattern = re.compile(
                "".join(_hole(part) for part in re.split(r"(\$\{[^}]*\})", template)) + r"(\.one|\.other)?"
            )
            found |= {key for key in known if pattern.fullmatch(key)}
    return found & known


def asked_for() -> set[str]:
    """Keys that are given whole to say() and, with both forms, to sayNumber()."""
    found = set()
    for text in scripts().values():
        found |= set(re.findall(r'\bsay\(\s*"([\w.]+)"', text))
        numbers = re.findall(r'\bsayNumber\(\s*"([\w.]+)"', text)
        found |= {f"{key}.{form}" for key in numbers for form in _FORMS}
    return found


def literals() -> list[str]:
    """Letters between tags, or in attributes that people read, which do not come from words.js."""
    found = []
    for path, text in scripts().items():
        for template in _html_templates(text):
            attributes = _ATTRIBUTE.findall(template)
            between = re.sub(r"<[^<>]*>", "\0", template).split("\0")
            shown = [part.strip() for part in between if re.search(r"[A-Za-z]{2}", part)]
            found += [f"{path}: {words}" for words in (*attributes, *shown)]
    return found


def _hole(part: str) -> str:
    return r"[\w.]+" if part.startswith("${") else re.escape(part)


def _html_templates(text: str) -> Iterator[str]:
    """Every html`...`, the values in it replaced by a character that is in no text."""
    at = 0
    while (start := text.find("html`", at)) >= 0:
        at = start + len("html`")
        template, _ = _read_template(text, at)
        yield template


def _read_template(text: str, at: int) -> tuple[str, int]:
    """The template that begins at `at`, behind its backtick, and where it ends."""
    parts = []
    while text[at] != "`":
        if text.startswith("${", at):
            at = _skip_value(text, at + 2)
            parts.append("\0")
        else:
            parts.append(text[at])
            at += 1
    return "".join(parts), at + 1


def _skip_value(text: str, at: int) -> int:
    """Behind the brace that ends a value; what is in it may hold braces, strings and templates."""
    depth = 1
    while depth:
        character = text[at]
        at += 1
        if character == "`":
            _, at = _read_template(text, at)
        elif character in "\"'":
            at = text.index(character, at) + 1
        depth += {"{": 1, "}": -1}.get(character, 0)
    return at
