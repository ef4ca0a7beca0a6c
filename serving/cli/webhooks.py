"""`longtake webhooks`: addresses that are told of jobs, and how the telling went."""

import time
from typing import Annotated

import typer

from serving.cli.client.farm_client import farm
from serving.cli.options import AsJson
from serving.cli.output.job_text import clock
from serving.cli.output.terminal import open_table, print_answer, print_json, print_line, print_table, tell
from serving.errors import UserError

webhooks = typer.Typer(no_args_is_help=True, help="Add, list and remove addresses that are told of your jobs.")

Name = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Its id.")]


@webhooks.command()
def add(url: Annotated[str, typer.Argument(metavar="URL")], as_json: AsJson = False) -> None:
    """Tell an address of every change of a job's status; prints the secret that messages are signed with, this once."""
    with farm() as client:
        found = client.post("/v1/webhooks", {"url": url})
    if as_json:
        print_json(found)
        return
    if found["secret"] is None:
        raise UserError(f"{found['id']} was added, but its secret was lost on the way; remove it and add it again")
    print_line(found["secret"])
    tell(f"{found['id']}: messages are signed with this secret as Standard Webhooks has it; it is not shown again")


@webhooks.command("list")
def list_webhooks(as_json: AsJson = False) -> None:
    """List your addresses."""
    with farm() as client:
        found = client.get("/v1/webhooks")
    if as_json:
        print_json(found)
        return
    if not found["data"]:
        print_line("no webhooks")
        return
    table = open_table("webhook", "url", "added", "state")
    for one in found["data"]:
        state = "in use" if one["enabled"] else "off"
        table.add_row(one["id"], one["url"], clock(one["created_at"], time.time()), state)
    print_table(table)


@webhooks.command()
def remove(webhook: Name, as_json: AsJson = False) -> None:
    """Forget an address and what it was still to be told."""
    with farm() as client:
        found = client.delete(f"/v1/webhooks/{webhook}")
    print_answer(found, f"{found['id']} is removed", as_json=as_json)


@webhooks.command()
def deliveries(webhook: Name, as_json: AsJson = False) -> None:
    """Show the last messages to an address and how each went."""
    with farm() as client:
        found = client.get(f"/v1/webhooks/{webhook}/deliveries")
    if as_json:
        print_json(found)
        return
    if not found["data"]:
        print_line("nothing was sent yet")
        return
    now = time.time()
    table = open_table("message", "job", "of", "went")
    for one in found["data"]:
        if one["delivered_at"] is not None:
            went = f"delivered {clock(one['delivered_at'], now)}"
        else:
            again = "given up" if one["due_at"] is None else f"again {clock(one['due_at'], now)}"
            went = f"failed {one['attempts']} times, {again}: {one['error']}" if one["attempts"] else "on its way"
        table.add_row(one["type"], one["job"], clock(one["created_at"], now), went)
    print_table(table)
