"""`longtake jobs`, `show` and what steers a job: cancel, pause, resume, retry, priority, explain."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.client.farm_client import FarmClient, Json, farm
from serving.cli.options import AsJson, Budget, JobName, read_budget
from serving.cli.output.job_text import (
    STYLES,
    ago,
    calls_words,
    clock,
    cost_words,
    due_words,
    film_words,
    left_words,
    money,
    rough,
    span,
    status_word,
    take_counts,
)
from serving.cli.output.terminal import (
    add_column,
    add_words_column,
    cut_words,
    open_console,
    open_facts,
    open_table,
    print_answer,
    print_json,
    print_line,
    print_table,
    styled,
    tell,
)
from serving.cli.watch import take_words
from serving.settings import MAX_LIST
from serving.store.records import JobStatus

if TYPE_CHECKING:
    from rich.table import Table


_WIDE = 90
"""Columns of a terminal from which on a list of jobs shows bars."""

_VERY_WIDE = 130
"""Columns from which on it shows whole ids."""

_SHORT_ID = 8
"""Letters of an id's end: enough to tell a trillion jobs of one millisecond apart."""

Reason = Annotated[str, typer.Option(help="Why, for the job's log.")]


def jobs(
    status: Annotated[list[JobStatus] | None, typer.Option(help="Only jobs with this status; repeatable.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only jobs with this tag.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="At most this many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with farm() as client:
        found = _list(client, {"status": [item.value for item in status or ()], "tag": tag}, limit)
    if as_json:
        print_json(found)
    elif not found["data"]:
        print_line("no jobs")
    else:
        console = open_console()
        console.print(_job_table(found["data"], time.time(), width=console.width))
        if found["has_more"]:
            tell(f"there are more; --limit {10 * limit} shows more of them")


def show(job: JobName, as_json: AsJson = False) -> None:
    """Show a job and its takes as they are now."""
    with farm() as client:
        found = client.get(f"/v1/jobs/{client.find_job(job)}")
    if as_json:
        print_json(found)
        return
    print_table(_facts(found, time.time()))
    print_table(_take_table(found["takes"]))


def explain(job: JobName, as_json: AsJson = False) -> None:
    """Explain a job's state, and when it should start and finish."""
    with farm() as client:
        found = client.get(f"/v1/jobs/{client.find_job(job)}/explain")
    print_answer(found, found["words"], as_json=as_json)


def cancel(job: JobName, reason: Reason = "", as_json: AsJson = False) -> None:
    """End a job; `longtake retry` can take it up again."""
    _act(job, "cancel", reason, as_json=as_json)


def pause(job: JobName, reason: Reason = "", as_json: AsJson = False) -> None:
    """Give out no more of a job's calls until it is resumed."""
    _act(job, "pause", reason, as_json=as_json)


def resume(job: JobName, budget: Budget = None, reason: Reason = "", as_json: AsJson = False) -> None:
    """Go on with a paused job; a job that its budget paused needs a larger one."""
    terms = {} if budget is None else {"budget_usd": read_budget(budget)}
    _act(job, "resume", reason, as_json=as_json, terms=terms)


def retry(job: JobName, reason: Reason = "", as_json: AsJson = False) -> None:
    """Take up a failed or cancelled job again; what was rendered is kept."""
    _act(job, "retry", reason, as_json=as_json)


def priority(
    job: JobName,
    number: Annotated[int, typer.Argument(metavar="N", min=0, max=100, help="0 to 100; higher goes first.")],
    as_json: AsJson = False,
) -> None:
    """Set a job's priority."""
    with farm() as client:
        found = client.patch(f"/v1/jobs/{client.find_job(job)}", {"priority": number})
    print_answer(found, f"{found['id']} has priority {found['priority']}", as_json=as_json)


def _act(job: str, action: str, reason: str, *, as_json: bool, terms: Json | None = None) -> None:
    with farm() as client:
        path = f"/v1/jobs/{client.find_job(job)}"
        if terms:
            client.patch(path, terms)
        found = client.post(f"{path}/{action}", {"reason": reason})
    print_answer(found, f"{found['id']} is {status_word(found['status'])}", as_json=as_json)


def _list(client: FarmClient, chosen: Json, limit: int) -> Json:
    """As many pages as it takes, as one."""
    found = client.get("/v1/jobs", {**chosen, "limit": min(limit, MAX_LIST)})
    while found["has_more"] and len(found["data"]) < limit:
        wanted = min(limit - len(found["data"]), MAX_LIST)
        page = client.get("/v1/jobs", {**chosen, "limit": wanted, "after": found["last_id"]})
        found = {**page, "data": found["data"] + page["data"], "first_id": found["first_id"]}
    return found


def _job_table(found: list[Json], now: float, *, width: int) -> "Table":
    """One line a job. Where there is little room the id is cut to its end, by which every command finds it too."""
    from rich.progress_bar import ProgressBar

    wide = width >= _WIDE
    table = open_table("job")
    add_words_column(table, "title")
    for name in ("status", *(("", "takes>") if wide else ()), "%>", "time>", "cost>", "age>"):
        add_column(table, name)
    for job in found:
        style = STYLES[job["status"]]
        title = f"{job['title']} (version {job['version']})" if job["version"] > 1 else job["title"]
        status = f"{status_word(job['status'])}, at risk" if job["at_risk"] else status_word(job["status"])
        done = sum(take["status"] == "decoded" for take in job["takes"])
        bar = ProgressBar(total=100, completed=job["progress"], width=8, complete_style=style, finished_style=style)
        table.add_row(
            job["id"] if width >= _VERY_WIDE else job["id"][-_SHORT_ID:],
            cut_words(title),
            styled((status, style)),
            *((bar, f"{done}/{len(job['takes'])}") if wide else ()),
            f"{job['progress']:.0f}",
            left_words(job, now),
            money(job["cost"]["usd"]) if job["cost"]["usd"] else span(job["cost"]["gpu_seconds"]),
            rough(now - job["created_at"]),
        )
    return table


def _facts(job: Json, now: float) -> "Table":
    """What is known of a job as a whole, one fact a line."""
    table = open_facts()
    state = styled((status_word(job["status"]), STYLES[job["status"]]), f": {job['reason']}")
    version = f"{job['version']}" + (f", made from {job['parent']}" if job["parent"] else "")
    facts = {
        "job": f"{job['id']} of {job['tenant']}",
        "title": job["title"],
        "status": state,
        "error": f"{job['error']['code']}: {job['error']['message']}" if job["error"] else "",
        "progress": ", ".join(
            part
            for part in (f"{job['progress']:.1f} %", calls_words(job), take_counts(job["takes"]), left_words(job, now))
            if part
        ),
        "film": f"{film_words(job['film'])}, sha256 {job['film']['sha256']}" if job["film"] else "",
        "cost": cost_words(job),
        "due": due_words(job, now),
        "made": f"{clock(job['created_at'], now)}, {ago(job['created_at'], now)}",
        "version": version if job["version"] > 1 else "",
        "place": f"pool {job['pool']}, model {job['model']}, priority {job['priority']}",
        "tags": ", ".join(f"{key}={value}" for key, value in sorted(job["tags"].items())),
    }
    for name, fact in facts.items():
        if fact:
            table.add_row(name, fact)
    return table


def _take_table(takes: list[Json]) -> "Table":
    table = open_table("take", "shots>", "status", "%>", "", "GPU seconds>")
    for take in takes:
        table.add_row(
            take["key"],
            str(len(take["shots"])),
            styled((take["status"], STYLES[take["status"]])),
            f"{take['progress']:.0f}",
            "" if take["status"] == "decoded" and not take["cached"] else take_words(take),
            f"{take['cost']['gpu_seconds'] + take['cost']['wasted_gpu_seconds']:.1f}",
        )
    return table
