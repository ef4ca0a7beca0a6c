"""`longtake watch`: a job as it goes on. A live picture on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from serving.cli.client.event_stream import follow
from serving.cli.client.farm_client import FarmClient, Json, farm
from serving.cli.options import AsJson, JobName
from serving.cli.output.job_text import (
    STYLES,
    calls_words,
    clock,
    cost_words,
    due_words,
    film_words,
    left_words,
    progress_line,
    span,
    status_word,
    take_counts,
)
from serving.cli.output.terminal import cut_words, open_console, print_json, styled, tell, warn
from serving.settings import PLAIN_PROGRESS_S
from serving.store.records import ENDED

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

OnJob = Callable[[Json], None]

_LINES_BESIDE_TAKES = 6
"""Lines of the picture that show no take."""


def watch(job: JobName, as_json: AsJson = False) -> None:
    """Watch a job until it is over; exit code 1 if it then is not completed."""
    with farm() as client:
        job_id = client.find_job(job)
        if as_json:
            for kind, value in follow(client, job_id):
                if kind == "job":
                    print_json(value, indent=None)
                    status = value["status"]
        else:
            last = watch_until_over(client, job_id)
            status = last["status"]
            tell(last_words(last, time.time()))
    if status != "completed":
        raise typer.Exit(1)


def watch_until_over(client: FarmClient, job_id: str, *, or_paused: bool = False) -> Json:
    """Shows the job on stderr until nothing more happens to it by itself; returns it as it is then."""
    try:
        with _shown() as show:
            for kind, value in follow(client, job_id):
                if kind == "job":
                    show(value)
                    if value["status"] in ENDED or (or_paused and value["status"] == "paused"):
                        return value
    except KeyboardInterrupt:
        warn(f"the job goes on; `longtake watch {job_id[-6:]}` shows it again")
        raise
    raise AssertionError("a job is followed until it is over")


def last_words(job: Json, now: float) -> str:
    """What became of a job."""
    head = f"{job['id']} is {status_word(job['status'])}"
    match job["status"]:
        case "completed":
            return f"{head}: {film_words(job['film'])}; {left_words(job, now)}, {cost_words(job)}"
        case "failed":
            return f"{head}: {job['error']['message']}\n`longtake retry {job['id']}` takes it up again"
        case "paused":
            return f"{head}: {job['reason']}\n`longtake resume {job['id']}` goes on"
        case _:
            return f"{head}: {job['reason']}"


@contextmanager
def _shown() -> Iterator[OnJob]:
    """What to call with a job whenever it has changed."""
    if not sys.stderr.isatty():
        yield PlainJobLines(write=tell)
        return
    from rich.live import Live

    console = open_console(stderr=True)
    latest: list[Json] = []

    def draw() -> "RenderableType":
        return picture(latest[-1], time.time(), height=console.height) if latest else ""

    with Live(console=console, get_renderable=draw, refresh_per_second=4, transient=True) as live:

        def show(job: Json) -> None:
            latest[:] = [job]
            live.refresh()

        yield show


class PlainJobLines:
    """Writes a line when the status changes, at most every PLAIN_PROGRESS_S seconds else, and one at the end."""

    def __init__(self, *, write: Callable[[str], object], now: Callable[[], float] = time.time) -> None:
        self._write = write
        self._now = now
        self._last_s = float("-inf")
        self._last_status = ""
        self._last_line = ""

    def __call__(self, job: Json) -> None:
        now = self._now()
        if job["status"] == self._last_status and now - self._last_s < PLAIN_PROGRESS_S:
            return
        line = progress_line(job, now)
        if line != self._last_line and job["status"] not in ENDED:
            self._write(line)
        self._last_s, self._last_status, self._last_line = now, job["status"], line


def picture(job: Json, now: float, *, height: int) -> "Group":
    """The job in at most `height` lines: its state, its takes, when it ends and what it costs."""
    from rich.console import Group

    head = styled(
        (job["title"], "bold"),
        f"  version {job['version']}  " if job["version"] > 1 else "  ",
        (status_word(job["status"]), STYLES[job["status"]]),
        (f"  {job['id']}", "bright_black"),
    )
    reason = cut_words(job["reason"], "bright_black")
    return Group(head, reason, _take_bars(job["takes"], max(1, height - _LINES_BESIDE_TAKES)), _sums(job, now))


def _sums(job: Json, now: float) -> "RenderableType":
    due = due_words(job, now)
    end = f"{left_words(job, now)}, at {clock(job['eta'], now)}" if left_words(job, now) and job["eta"] else ""
    parts = [f"{job['progress']:.1f} %", calls_words(job), end, cost_words(job)]
    told = " · ".join(part for part in parts if part)
    return styled(told, (f" · {due}", "red" if job["at_risk"] else "")) if due else styled(told)


def _take_bars(takes: list[Json], most: int) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    shown = choose_takes(takes, most)
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column(ratio=1)
    for _ in range(3):
        table.add_column(no_wrap=True)
    for take in shown:
        style = STYLES[take["status"]]
        bar = ProgressBar(total=100, completed=take["progress"], complete_style=style, finished_style=style)
        table.add_row(
            take["key"],
            bar,
            f"{take['progress']:3.0f} %",
            styled(("cached" if take["cached"] else take["status"], style)),
            styled((take_words(take), "bright_black")),
        )
    hidden = [take for take in takes if take not in shown]
    if hidden:
        table.add_row(f"and {len(hidden)} more", take_counts(hidden), style="bright_black")
    return table


def choose_takes(takes: list[Json], most: int) -> list[Json]:
    """At most `most` takes, in their order: those at work first, then those that wait, then the finished ones."""
    if len(takes) <= most:
        return takes
    urgency = {"rendering": 0, "rendered": 0, "waiting": 1, "decoded": 2}
    ranked = sorted(range(len(takes)), key=lambda index: (urgency[takes[index]["status"]], index))
    return [takes[index] for index in sorted(ranked[: max(1, most - 1)])]


def take_words(take: Json) -> str:
    """How far a take is, in its own units."""
    if take["cached"]:
        return "rendered before"
    if take["status"] == "rendering":
        words = f"calls {take['calls_done']}/{take['calls']}, latents {take['latents_finished']}/{take['latents']}"
    elif take["status"] == "rendered":
        words = f"frames {take['frames_decoded']}/{take['frames']}"
    else:
        words = f"{take['calls']} calls" if take["status"] == "waiting" else span(take["cost"]["gpu_seconds"])
    return f"{words}, {take['retries']} retried" if take["retries"] else words
