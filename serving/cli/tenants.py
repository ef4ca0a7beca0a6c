"""`longtake tenants`: each tenant's share of the farm and its limits; for administrators."""

from typing import Annotated, Any

import typer

from serving.cli.client.farm_client import farm
from serving.cli.options import AsJson
from serving.cli.output.terminal import open_table, print_json, print_line, print_table

tenants = typer.Typer(no_args_is_help=True, help="Show and set the shares and limits of tenants; for administrators.")

_LIMITS = {
    "max_concurrent_jobs": "jobs",
    "max_concurrent_calls": "calls",
    "requests_per_minute": "requests a minute",
}


@tenants.command("list")
def list_tenants(as_json: AsJson = False) -> None:
    """List tenants that have settings of their own; all others have a share of 1 and the farm's limits."""
    with farm() as client:
        found = client.get("/v1/tenants")
    if as_json:
        print_json(found)
        return
    if not found["data"]:
        print_line("no tenant has settings of its own")
        return
    table = open_table("tenant", "share>", *(f"{words}>" for words in _LIMITS.values()))
    for one in found["data"]:
        limits = ("-" if one[name] is None else str(one[name]) for name in _LIMITS)
        table.add_row(one["name"], f"{one['weight']:g}", *limits)
    print_table(table)


@tenants.command("set")
def set_tenant(
    name: Annotated[str, typer.Argument(metavar="TENANT")],
    share: Annotated[float | None, typer.Option(help="Share of the farm; 1 if none is set.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Jobs at once.")] = None,
    calls: Annotated[int | None, typer.Option(help="Calls on gangs at once.")] = None,
    requests: Annotated[int | None, typer.Option(help="Requests a minute.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set a tenant's share and limits; what is left out stays as it is."""
    given = {
        "weight": share,
        "max_concurrent_jobs": jobs,
        "max_concurrent_calls": calls,
        "requests_per_minute": requests,
    }
    with farm() as client:
        before: dict[str, Any] = next((one for one in client.get("/v1/tenants")["data"] if one["name"] == name), {})
        settings = {key: before[key] for key in given if key in before}
        settings |= {key: value for key, value in given.items() if value is not None}
        found = client.put(f"/v1/tenants/{name}", settings)
    if as_json:
        print_json(found)
    else:
        limits = [f"{found[key]} {words}" for key, words in _LIMITS.items() if found[key] is not None]
        print_line(f"{name}: a share of {found['weight']:g}, {', '.join(limits) or 'no limits of its own'}")
