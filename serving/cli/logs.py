"""`longtake logs`: what the farm's log says of a job, and goes on saying."""

import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer

from serving.cli.client.farm_client import FarmClient, Json, farm
from serving.cli.options import AsJson, JobName
from serving.cli.output.terminal import print_json, print_line
from serving.settings import MAX_LOG_LIST
from serving.store.records import ENDED

LOG_POLL_S = 1.0
"""Seconds between two times that `longtake logs --follow` asks for new lines."""


class Level(StrEnum):
    """Levels of log lines, as the option takes them."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def logs(
    job: JobName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
    level: Annotated[Level, typer.Option(help="Only lines of this level and above.")] = Level.INFO,
    as_json: AsJson = False,
) -> None:
    """Print what was logged of a job: what the farm did for it, and what went wrong."""
    with farm() as client:
        for line in read_lines(client, client.find_job(job), level=level.value, follow=follow):
            if as_json:
                print_json(line, indent=None)
            else:
                print_line(line_words(line))


def read_lines(client: FarmClient, job_id: str, *, level: str, follow: bool) -> Iterator[Json]:
    """The lines that there are, oldest first; then those that come, until the job is over. Raises Refused, Fault."""
    after, was_live = 0, False
    while True:
        is_over = not follow or client.get(f"/v1/jobs/{job_id}")["status"] in ENDED
        if is_over and was_live:
            time.sleep(LOG_POLL_S)  # its last lines come a little after its status
        was_live = not is_over
        has_more = True
        while has_more:
            page = client.get(f"/v1/jobs/{job_id}/logs", {"after": after, "level": level, "limit": MAX_LOG_LIST})
            yield from page["data"]
            after, has_more = page["last_id"] or after, page["has_more"]
        if is_over:
            return
        time.sleep(LOG_POLL_S)


def line_words(line: Json) -> str:
    """A line for people: when, how bad, what, and of which take and gang."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line["at"]))
    level = "" if line["level"] == "info" else f"{line['level']}: "
    ids = ", ".join(f"{name} {line['fields'][name]}" for name in ("take", "gang", "host") if name in line["fields"])
    times = f" ({line['fields']['times']} times)" if "times" in line["fields"] else ""
    return f"{at}  {level}{line['message']}{times}" + (f"  [{ids}]" if ids else "")
