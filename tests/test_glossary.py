"""Every noun that a module, a class, a field of the API or a metric uses is in the glossary, or is an ordinary word.

tests/ordinary_words.txt lists the ordinary ones: words that mean to an engineer what they always mean. A new word lands
in the glossary unless it is one of those.
"""

import ast
import re
from pathlib import Path

from serving.api.app import openapi_document

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("serving", "cluster", "sharding")


def words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name) if len(word) > 1}


def used() -> dict[str, str]:
    """Each word in the names of modules, public classes, fields and metrics, with one name that uses it."""
    names = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            names |= set(path.relative_to(ROOT).with_suffix("").parts)
            names |= {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}
    for schema in openapi_document()["components"]["schemas"].values():
        names |= set(schema.get("properties", {}))
    names |= set(re.findall(r"^\| `longtake_(\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
    return {word: name for name in sorted(names) if not name.startswith("_") for word in words(name)}


def test_every_noun_is_in_the_glossary_or_ordinary() -> None:
    headwords = re.findall(r"^\| ([^|]+?) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    glossary = {word for headword in headwords for word in words(headword)}
    ordinary = set((ROOT / "tests" / "ordinary_words.txt").read_text().split())
    needed = {word: name for word, name in used().items() if not {word, word.removesuffix("s"), f"{word}s"} & glossary}
    assert {word: name for word, name in needed.items() if word not in ordinary} == {}
    assert ordinary - needed.keys() == set(), "not used any more, or in the glossary"
