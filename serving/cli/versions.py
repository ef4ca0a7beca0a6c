"""`longtake versions`, `diff` and `delete`: what became of a film's storyboard, and what need not be kept."""

import json
import time
from typing import Annotated, Any

import typer

from serving.cli.client.farm_client import farm
from serving.cli.options import AsJson, JobName
from serving.cli.output.job_text import clock, film_words, money, status_word
from serving.cli.output.terminal import open_table, print_answer, print_json, print_line, print_table

Against = Annotated[
    str | None, typer.Argument(metavar="[OTHER]", help="The job to compare with; else the one it was made from.")
]

_LONG = 60
"""Characters of a value that are shown."""


def versions(job: JobName, as_json: AsJson = False) -> None:
    """List the versions of a film, the first one first."""
    with farm() as client:
        found = client.get(f"/v1/jobs/{client.find_job(job)}/versions")
    if as_json:
        print_json(found)
        return
    now = time.time()
    table = open_table("version>", "job", "status", "made", "cost>", "film")
    for one in found["data"]:
        film = film_words(one["film"]) if one["film"] else ""
        cost = money(one["cost"]["usd"])
        table.add_row(
            str(one["version"]), one["id"], status_word(one["status"]), clock(one["created_at"], now), cost, film
        )
    print_table(table)


def diff(job: JobName, against: Against = None, as_json: AsJson = False) -> None:
    """Compare the storyboards of two versions, and say which takes are the same."""
    with farm() as client:
        other = None if against is None else client.find_job(against)
        found = client.get(f"/v1/jobs/{client.find_job(job)}/diff", {"against": other})
    if as_json:
        print_json(found)
        return
    for change in found["changes"]:
        print_line(f"{change['path']}: {_short(change['before'])} -> {_short(change['after'])}")
    if not found["changes"]:
        print_line("the storyboards are the same")
    for take in found["takes"]:
        print_line(f"take {take['key']}: {take['change']}")


def delete(job: JobName, as_json: AsJson = False) -> None:
    """Hide a job that is over, for good; its film is removed a day later."""
    with farm() as client:
        found = client.delete(f"/v1/jobs/{client.find_job(job)}")
    print_answer(found, f"{found['id']} is deleted", as_json=as_json)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"
