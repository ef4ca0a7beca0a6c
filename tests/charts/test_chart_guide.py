"""The operator's guide names only commands, files and objects that exist."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest
import typer

from cluster.commands.cli import app as cluster_app
from serving.cli.commands import app as main_app
from tests.charts.chart_rendering import CHART, EXAMPLES, ROOT, render
from tests.charts.test_chart_examples import backing, example

PAGES = (ROOT / "docs" / "operating.md", EXAMPLES / "README.md", CHART / "README.md")


def commands(first: str) -> Iterator[list[str]]:
    """The words of every command of the guide that begins so."""
    for page in PAGES:
        for block in re.findall(r"^```\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(re.sub(r"[<>] ?\S+|&$", "", line))
                if words[:1] == [first]:
                    yield words[1:]


def test_every_longtake_command_of_the_guide_exists_with_its_options() -> None:
    seen = 0
    for words in commands("longtake"):
        seen += 1
        command: Any = typer.main.get_command(main_app)
        if words[:1] == ["cluster"]:
            command, words = typer.main.get_command(cluster_app), words[1:]
        while isinstance(command, click.Group):
            assert words[0] in command.commands, words
            command, words = command.commands[words[0]], words[1:]
        with command.make_context(command.name, list(words), resilient_parsing=False):
            pass  # raises for an option that is not known
    assert seen > 5


def test_every_file_of_the_guide_exists() -> None:
    named = set()
    for page in PAGES:
        text = page.read_text()
        named |= set(re.findall(r"(?<![\w./])((?:helm|examples|docs|docker|tests)/[\w./-]+)", text))
        for link in re.findall(r"\]\(([^)#]+)", text):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("kind", ["secret", "service", "renderpool", "rayservice", "job", "deploy"])
def test_every_object_of_the_guide_is_made(kind: str) -> None:
    manifests = [*render(example("kind")), *backing()]
    there = {one["metadata"]["name"] for one in manifests} | {"longtake-serve-svc", "longtake-redis", "longtake-store"}
    text = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(rf"\b{kind}[/ ](longtake[\w-]*)", text)) | set(
        re.findall(r"create secret generic ([\w-]+)", text) if kind == "secret" else ()
    )
    assert named - {"longtake"} <= there
    assert named
