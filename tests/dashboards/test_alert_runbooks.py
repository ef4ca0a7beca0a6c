"""Every alert has a runbook that says the same five things, with commands and metrics that exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dashboards.alerts import ALERTS
from dashboards.declared import declared_series
from dashboards.recordings import RECORDINGS
from serving.cli.commands import app

RUNBOOKS = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
HEADINGS = ["## What it means", "## What people notice", "## How to look", "## What to do", "## When to stop worrying"]
NAMES = [alert.name for alert in ALERTS]


def read(name: str) -> str:
    return (RUNBOOKS / f"{name}.md").read_text()


def test_there_is_a_runbook_for_each_alert_and_no_other() -> None:
    assert sorted(path.stem for path in RUNBOOKS.glob("*.md") if path.stem != "README") == sorted(NAMES)


def test_the_list_of_runbooks_names_each() -> None:
    listed = re.findall(r"\[(\w+)\]\(\1\.md\)", read("README"))
    assert sorted(listed) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_says_the_same_five_things(name: str) -> None:
    text = read(name)
    assert text.startswith(f"# {name}\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == HEADINGS
    assert "```" in text, "it has no command or query to look with"


def commands() -> list[str]:
    """Every `longtake ...` in code of the runbooks."""
    found = set()
    for name in NAMES:
        for block in re.findall(r"```\n(.*?)```", read(name), re.DOTALL):
            found |= {line for line in block.splitlines() if line.startswith("longtake ")}
        found |= set(re.findall(r"`(longtake [^`]+)`", read(name)))
    return sorted(found)


@pytest.mark.parametrize("line", commands())
def test_a_command_of_a_runbook_exists_with_its_options(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"{line}: there is no {words[0]}"
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= options


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_asks_only_for_series_that_exist(name: str) -> None:
    known = {*declared_series(), *(recording.name for recording in RECORDINGS)}
    asked = set(re.findall(r"(?:\w+:)?longtake_\w+(?::\w+)?", read(name)))
    assert {series for series in asked if series not in known} == set()
