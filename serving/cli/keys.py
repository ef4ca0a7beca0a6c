"""`longtake keys` and `longtake usage`: who may use the farm, and what each has spent."""

import time
from typing import Annotated

import typer

from serving.cli.client.farm_client import farm
from serving.cli.options import AsJson
from serving.cli.output.job_text import clock, money
from serving.cli.output.terminal import open_table, print_answer, print_json, print_line, print_table, tell
from serving.errors import UserError

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys; for administrators.")


@keys.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose key; those of `admin` may manage the farm.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a key; its secret is printed this once."""
    with farm() as client:
        key = client.post("/v1/keys", {"tenant": tenant, "name": name})
    if as_json:
        print_json(key)
        return
    if key["secret"] is None:
        raise UserError(f"{key['id']} was made, but its secret was lost on the way; revoke it and make another")
    print_line(key["secret"])
    tell(f"{key['id']} for {key['tenant']}: keep it, it is not shown again; clients take it from LONGTAKE_API_KEY")


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None, as_json: AsJson = False
) -> None:
    """List keys, those that were revoked too."""
    with farm() as client:
        found = client.get("/v1/keys", {"tenant": tenant})
    if as_json:
        print_json(found)
        return
    if not found["data"]:
        print_line("no keys")
        return
    now = time.time()
    table = open_table("key", "tenant", "name", "made", "state")
    for key in found["data"]:
        revoked = key["revoked_at"]
        state = "in use" if revoked is None else f"revoked {clock(revoked, now)}"
        style = None if revoked is None else "bright_black"
        table.add_row(key["id"], key["tenant"], key["name"], clock(key["created_at"], now), state, style=style)
    print_table(table)


@keys.command()
def revoke(key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id.")], as_json: AsJson = False) -> None:
    """End a key at once."""
    with farm() as client:
        found = client.delete(f"/v1/keys/{key}")
    print_answer(found, f"{found['id']} of {found['tenant']} is revoked", as_json=as_json)


def usage(
    job: Annotated[str | None, typer.Option(metavar="JOB", help="The shots of this job, instead of tenants.")] = None,
    days: Annotated[float | None, typer.Option(min=0.0, help="Only the last days.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what was spent, by tenant or by the shots of one job."""
    with farm() as client:
        since = time.time() - days * 86_400 if days is not None else None
        of_job = client.find_job(job) if job is not None else None
        found = client.get("/v1/usage", {"job": of_job, "since": since})
    if as_json:
        print_json(found)
        return
    if not found["data"]:
        print_line("nothing was spent")
        return
    names = ("tenant",) if job is None else ("take", "shot")
    table = open_table(*names, "GPU seconds>", "wasted>", "dollars>")
    for row in found["data"]:
        sums = (f"{row['gpu_seconds']:,.1f}", f"{row['wasted_gpu_seconds']:,.1f}", money(row["usd"]))
        table.add_row(*(row[name] for name in names), *sums)
    print_table(table)
