"""Arguments and options that more than one command takes, and how their values are read."""

import math
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.errors import UserError
from serving.settings import MAX_SEED, MAX_STEPS

StoryboardPath = Annotated[Path, typer.Argument(metavar="STORYBOARD", help="A storyboard, YAML or JSON.")]

Model = Annotated[str | None, typer.Option(help="pocket, a folder or a hub id, instead of the storyboard's model.")]

Seed = Annotated[int | None, typer.Option(min=0, max=MAX_SEED, help="Seed instead of the storyboard's.")]

Steps = Annotated[
    int | None, typer.Option(min=1, max=MAX_STEPS, help="Denoising steps instead of those of the storyboard's quality.")
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

JobName = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or the last letters of it.")]

Priority = Annotated[int | None, typer.Option(min=0, max=100, help="0 to 100, higher goes first; default 50.")]

Due = Annotated[str | None, typer.Option(help='When it is due: "in 2h", "in 1d 6h" or 2027-01-31T18:00.')]

Budget = Annotated[float | None, typer.Option(metavar="USD", help="Dollars after which the job is paused.")]

Tag = Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="A word to find it by; repeatable.")]

Pool = Annotated[str | None, typer.Option(help="Pool that renders it; default: the first that serves the model.")]

Tenant = Annotated[str | None, typer.Option(help="For administrators: the tenant it is done for.")]

Wait = Annotated[bool, typer.Option("--wait", "-w", help="Stay until it is over; exit code 1 if it is not completed.")]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it is rendered.")]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be rendered and what it would cost.")]

_UNIT_S = {"d": 86_400, "h": 3600, "m": 60, "min": 60, "s": 1}

_DUE_FORMS = '"in 2h", "in 1d 6h", or a date and time like 2027-01-31T18:00 (local unless it names a zone)'


def read_due(text: str | None, now: float) -> float | None:
    """Unix seconds of a due time. Raises UserError for what is none, or is past."""
    if text is None:
        return None
    at = now + _read_span(text[3:], text) if text.lower().startswith("in ") else _read_moment(text)
    if at <= now:
        raise UserError(f"--due: must be in the future (got {text!r})")
    return at


def read_tags(tags: list[str] | None) -> dict[str, str]:
    """Tags by key. Raises UserError for one that is not KEY=VALUE, or a key that comes twice."""
    found: dict[str, str] = {}
    for tag in tags or ():
        key, equals, value = tag.partition("=")
        if not equals or not key:
            raise UserError(f"--tag: must be KEY=VALUE (got {tag!r})")
        if key in found:
            raise UserError(f"--tag: {key!r} is given twice")
        found[key] = value
    return found


def read_budget(usd: float | None) -> float | None:
    """The budget. Raises UserError if it is no amount."""
    if usd is not None and not (math.isfinite(usd) and usd > 0):
        raise UserError(f"--budget: must be a number of dollars above 0 (got {usd:g})")
    return usd


def given(**options: Any) -> dict[str, Any]:
    """The options that were given: the farm has its own defaults for the others."""
    return {name: value for name, value in options.items() if value is not None and value != {}}


def _read_span(words: str, text: str) -> float:
    parts = re.findall(r"(\d{1,6}(?:\.\d{1,3})?)\s*(d|h|min|m|s)(?![a-z])", words.strip().lower())
    rest = re.sub(r"(\d{1,6}(?:\.\d{1,3})?)\s*(d|h|min|m|s)(?![a-z])", "", words.strip().lower())
    if not parts or rest.strip():
        raise UserError(f"--due: must be {_DUE_FORMS} (got {text!r})")
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)


def _read_moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UserError(f"--due: must be {_DUE_FORMS} (got {text[:60]!r})") from None
