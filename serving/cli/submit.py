"""`longtake submit`, `quote`, `revise` and `finalize`: storyboards on their way to the farm.

A storyboard is read and checked here first, so its mistakes are told as `longtake plan` tells them and nothing is sent.
What only the farm can know (its pools, its models) it tells about the same file and lines.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.cli.client.farm_client import FarmClient, Json, Refused, farm, name_place, name_places
from serving.cli.download import download_film
from serving.cli.film_plan import name_of, read_storyboard
from serving.cli.options import (
    AsJson,
    Budget,
    DryRun,
    Due,
    JobName,
    Pool,
    Priority,
    Steps,
    StoryboardPath,
    Tag,
    Tenant,
    Wait,
    Yes,
    given,
    read_budget,
    read_due,
    read_tags,
)
from serving.cli.output.film_file import STDOUT, check_film
from serving.cli.output.job_text import clock, money, span
from serving.cli.output.terminal import open_table, print_json, print_line, print_table, tell, warn
from serving.cli.pictures import read_pictures, send_pictures
from serving.cli.watch import last_words, watch_until_over
from serving.errors import Problem, UserError

if TYPE_CHECKING:
    from serving.storyboard import Storyboard

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Wait, then write the film here; it ends with .mp4.")]


def submit(
    storyboard: StoryboardPath,
    priority: Priority = None,
    due: Due = None,
    budget: Budget = None,
    tag: Tag = None,
    pool: Pool = None,
    steps: Steps = None,
    tenant: Tenant = None,
    wait: Wait = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Send a storyboard to the farm; prints the new job's id."""
    board, pictures = _read(storyboard)
    if out is not None:
        check_film(out, reads=[storyboard, *pictures.values()], as_json=as_json)
    options = given(
        priority=priority,
        due_at=read_due(due, time.time()),
        budget_usd=read_budget(budget),
        tags=read_tags(tag),
        pool=pool,
        steps=steps,
        tenant=tenant,
    )
    with farm() as client:
        send_pictures(client, pictures)
        job = _post(client, "/v1/jobs", board, options, file=storyboard)
        _go_on(client, job, wait=wait, out=out, as_json=as_json)


def quote(
    storyboard: StoryboardPath,
    due: Due = None,
    pool: Pool = None,
    steps: Steps = None,
    as_json: AsJson = False,
) -> None:
    """Say what a storyboard would cost on the farm, and when it would be done; nothing is stored."""
    board, _ = _read(storyboard)
    options = given(due_at=read_due(due, time.time()), pool=pool, steps=steps)
    with farm() as client:
        found = _post(client, "/v1/quote", board, options, file=storyboard)
    if as_json:
        print_json(found)
    else:
        show_quote(found, time.time())


def revise(
    job: JobName,
    storyboard: StoryboardPath,
    priority: Priority = None,
    due: Due = None,
    budget: Budget = None,
    steps: Steps = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    wait: Wait = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Send an edited storyboard as the next version of a film; only takes that changed are rendered."""
    board, pictures = _read(storyboard)
    if out is not None:
        check_film(out, reads=[storyboard, *pictures.values()], as_json=as_json)
    options = given(priority=priority, due_at=read_due(due, time.time()), budget_usd=read_budget(budget), steps=steps)
    with farm() as client:
        path = f"/v1/jobs/{client.find_job(job)}/revise"
        price = _post(client, path, board, options, file=storyboard, dry_run=True)
        if _agreed(price, dry_run=dry_run, yes=yes, as_json=as_json):
            send_pictures(client, pictures)
            made = _post(client, path, board, options, file=storyboard, told=True)
            _go_on(client, made, wait=wait, out=out, as_json=as_json)


def finalize(
    job: JobName,
    priority: Priority = None,
    due: Due = None,
    budget: Budget = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    wait: Wait = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Render an accepted draft at final quality, with the same seeds, as the next version."""
    if out is not None:
        check_film(out, as_json=as_json)
    options = given(priority=priority, due_at=read_due(due, time.time()), budget_usd=read_budget(budget))
    with farm() as client:
        path = f"/v1/jobs/{client.find_job(job)}/finalize"
        price = client.post(path, options, {"dry_run": True})
        if _agreed(price, dry_run=dry_run, yes=yes, as_json=as_json):
            _go_on(client, client.post(path, options), wait=wait, out=out, as_json=as_json)


def show_quote(found: Json, now: float) -> None:
    """A price, take by take if there are several."""
    if len(found["takes"]) > 1:
        table = open_table("take", "shots>", "calls>", "GPU seconds>", "dollars>", "")
        for take in found["takes"]:
            row = ("", "", "", "there already") if take["cached"] else _take_price(take)
            table.add_row(take["key"], str(len(take["shots"])), *row, style="bright_black" if take["cached"] else None)
        print_table(table)
    print_line(f"{found['seconds']:.1f} seconds of film, {quote_words(found, now)}")


def quote_words(found: Json, now: float) -> str:
    """A price in one line: work, money, when."""
    takes = found["takes"]
    fresh = [take for take in takes if not take["cached"]]
    what = f"{len(takes)} take" + "s" * (len(takes) > 1)
    if len(fresh) < len(takes):
        what = f"{len(fresh)} of {what}"
    words = f"{what} to render: {found['calls']} calls, {span(found['gpu_seconds'])} of GPU, {money(found['usd'])}"
    if found["finishes_at"] is not None:
        words += f"; done in about {span(max(0.0, found['finishes_at'] - now))}, at {clock(found['finishes_at'], now)}"
    if found["due_feasible"] is False:
        words += ", which is too late"
    return words


def _take_price(take: Json) -> tuple[str, str, str, str]:
    return str(take["calls"]), f"{take['gpu_seconds']:.1f}", money(take["usd"]), ""


def _read(path: Path) -> "tuple[Storyboard, dict[str, Path]]":
    """The storyboard in a file, and its pictures by sha256. A folder that it names as its model is meant from here, as
    `render` means it."""
    board, pictures = read_pictures(read_storyboard(path, model=None, seed=None), path, local=False)
    if board.model.startswith("."):
        board = board.model_copy(update={"model": str(Path(board.model).absolute())})
    return board, pictures


def _post(
    client: FarmClient,
    path: str,
    board: "Storyboard",
    options: Json,
    *,
    file: Path,
    dry_run: bool = False,
    told: bool = False,
) -> Json:
    """Send a storyboard; warns of what the film will not show of it, unless that was `told` before."""
    body: dict[str, Any] = {"storyboard": board.model_dump(mode="json"), **options}
    try:
        answer = client.post(path, body, {"dry_run": True} if dry_run else None)
    except Refused as refused:
        raise name_places(refused, file=name_of(file), lines=board.lines) from refused
    for warning in () if told else answer.get("warnings") or ():
        problem = Problem(warning["path"], warning["message"])
        warn(f"warning: {name_place(problem, file=name_of(file), lines=board.lines)}")
    return answer


def _agreed(price: Json, *, dry_run: bool, yes: bool, as_json: bool) -> bool:
    """Shows what a new version would cost; True if it is to be rendered."""
    if dry_run:
        if as_json:
            print_json(price)
        else:
            show_quote(price, time.time())
        return False
    if yes:
        return True
    if as_json or not sys.stdin.isatty():
        raise UserError("--yes is needed if nobody can be asked; --dry-run says what it would cost")
    tell(quote_words(price, time.time()))
    return typer.confirm("Render it?", default=True, err=True)


def _go_on(client: FarmClient, job: Json, *, wait: bool, out: Path | None, as_json: bool) -> None:
    """Says what was accepted, and, if asked, waits until it is over and downloads the film."""
    if not wait and out is None:
        if as_json:
            print_json(job)
        else:
            print_line(job["id"])
            tell(_accepted(job))
        return
    tell(_accepted(job))
    last = watch_until_over(client, job["id"], or_paused=True)
    tell(last_words(last, time.time()))
    if out is not None and last["status"] == "completed":
        download_film(client, last, out)
    if as_json:
        print_json(last)
    elif out is None or last["status"] != "completed":
        print_line(job["id"])
    elif out != STDOUT:
        print_line(str(out))
    if last["status"] != "completed":
        raise typer.Exit(1)


def _accepted(job: Json) -> str:
    takes = len(job["takes"])
    version = f" as version {job['version']}" if job["version"] > 1 else ""
    return (
        f"{job['title']} accepted{version} by pool {job['pool']}: {takes} take{'s' * (takes > 1)},"
        f" {sum(take['calls'] for take in job['takes'])} calls; `longtake watch {job['id'][-6:]}` shows how it goes"
    )
