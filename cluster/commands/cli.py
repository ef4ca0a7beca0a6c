"""`longtake cluster`: what an operator of a cluster does by hand. Mounted into `longtake` by an entry point.

Light at import, since every `longtake` command imports it; what a command needs is imported in it. Exit codes
as everywhere: 0 done, 2 the user's mistake, 1 a fault, or something that preflight found to fail.
"""

import functools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

from cluster.commands.printing import print_json, print_line, tell
from cluster.contract.plain_text import make_plain

if TYPE_CHECKING:
    from cluster.farm_client import FarmClient
    from cluster.kube.client import Kube

app = typer.Typer(no_args_is_help=True, help="Pools, nodes and drains on Kubernetes; for operators.")

FARM_TIMEOUT_S = 10.0
POLL_S = 1.0
"""Polling interval of a drain, in seconds."""

GRACE_S = 30.0
"""Seconds after its deadline in which a drain is still waited for."""

Namespace = Annotated[
    str,
    typer.Option("--namespace", "-n", envvar="LONGTAKE_CONTROLLER_NAMESPACE", help="Of RenderPools and Ray's pods."),
]
Kubeconfig = Annotated[Path | None, typer.Option(help="Instead of the cluster around us, or kubectl's.")]
Context = Annotated[str | None, typer.Option(help="Of the kubeconfig, instead of its current one.")]
FarmUrl = Annotated[str, typer.Option(envvar="LONGTAKE_URL", help="The farm's API.")]
ApiKey = Annotated[
    str | None, typer.Option(envvar="LONGTAKE_API_KEY", help="An administrator's key.", show_envvar=True)
]
Selector = Annotated[
    str, typer.Option("--selector", envvar="LONGTAKE_CONTROLLER_POD_SELECTOR", help="Labels of Ray's pods.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _told(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Errors become a line on stderr and an exit code."""

    @functools.wraps(command)
    def run(*arguments: _P.args, **options: _P.kwargs) -> _R:
        from cluster.errors import ClusterError, FarmRefused, UserMistake
        from cluster.kube.errors import Forbidden, KubeError, NoCluster, NotFound

        try:
            return command(*arguments, **options)
        except (ClusterError, KubeError) as error:
            tell(str(error))
            theirs = isinstance(error, UserMistake | FarmRefused | NoCluster | NotFound | Forbidden)
            raise typer.Exit(2 if theirs else 1) from error

    return run


@app.command()
@_told
def status(
    namespace: Namespace = "default",
    farm_url: FarmUrl = "http://127.0.0.1:8000",
    api_key: ApiKey = None,
    selector: Selector = "ray.io/cluster",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Show pools, their gangs, nodes and drains."""
    from cluster.commands.overview import ClusterState, describe_cluster
    from cluster.crd import RENDER_POOLS
    from cluster.errors import ClusterError
    from cluster.kube.errors import Forbidden, NotFound
    from cluster.kube.resources import NODES, PODS
    from cluster.render_pool import read_render_pool

    kube = _connect(kubeconfig, context)
    missing: list[str] = []
    state = ClusterState()
    with _farm(farm_url, api_key) as farm:
        try:
            state = replace(state, pools=farm.pools(), ray_nodes=farm.nodes())
        except ClusterError as error:
            missing.append(f"nothing of the farm: {error}")
    try:
        state = replace(state, nodes=kube.list_all(NODES).items)
    except Forbidden:
        missing.append("nothing of Kubernetes nodes: not allowed to list them")
    try:
        found = kube.list_all(RENDER_POOLS, namespace=namespace).items
        state = replace(state, render_pools=[read_render_pool(one) for one in found])
    except NotFound:
        missing.append("no RenderPools: their CRD is not installed; `longtake cluster preflight` says more")
    pods = kube.list_all(PODS, namespace=namespace, label_selector=selector).items
    shown = describe_cluster(replace(state, pods=pods), now=time.time())
    if as_json:
        print_json({**shown, "missing": missing})
        return
    _show(shown)
    for line in missing:
        tell(line)


@app.command()
@_told
def drain(
    node: Annotated[
        str, typer.Argument(metavar="NODE", help="A Kubernetes node, or a Ray node's id, name or address.")
    ],
    deadline: Annotated[float, typer.Option(min=1, max=86_400, help="Seconds until the node may be gone.")] = 300.0,
    reason: Annotated[str, typer.Option(help="Why, for events and logs.")] = "asked for by an operator",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return as soon as the farm knows.")] = False,
    namespace: Namespace = "default",
    farm_url: FarmUrl = "http://127.0.0.1:8000",
    api_key: ApiKey = None,
    selector: Selector = "ray.io/cluster",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Empty a node before it goes: gangs finish their calls and start elsewhere, timelines move with a checkpoint.

    Whatever share of a pool it is. Cordon the node as well, or Kubernetes may put new pods on it.
    """
    from pydantic import ValidationError

    from cluster.commands.manual_drain import find_ray_nodes, wait_for_drain
    from cluster.contract.pools_and_nodes import DrainRequest
    from cluster.errors import UserMistake
    from cluster.kube.errors import KubeError
    from cluster.kube.resources import PODS

    try:
        request = DrainRequest(cause="operator", reason=reason, deadline_s=deadline)
    except ValidationError as error:
        raise UserMistake(f"--reason: {error.errors()[0]['msg']}") from error
    with _farm(farm_url, api_key) as farm:
        pods: Sequence[Mapping[str, Any]] = ()
        try:
            pods = _connect(kubeconfig, context).list_all(PODS, namespace=namespace, label_selector=selector).items
        except KubeError as error:
            tell(f"only names of Ray's nodes are known: {error}")
        ray_nodes = find_ray_nodes(node, pods, farm.nodes())
        for one in ray_nodes:
            farm.drain(one.id, request)
            tell(f"{one.name or one.id} is being drained within {deadline:.0f} s")
        if no_wait:
            return
        done = wait_for_drain(
            farm,
            ray_nodes,
            within_s=deadline + GRACE_S,
            poll_s=POLL_S,
            report=tell,
        )
    if not done:
        raise typer.Exit(1)


@app.command()
@_told
def controller() -> None:
    """Run the controller, as its Deployment does; docs/controller.md lists its settings."""
    from cluster.controller.process import main

    raise typer.Exit(main())


@app.command()
def crd() -> None:
    """Print the CustomResourceDefinition of RenderPools.

    To install or upgrade it: longtake cluster crd | kubectl apply --server-side --force-conflicts -f -
    """
    from cluster.crd import crd_yaml

    sys.stdout.write(crd_yaml())


@app.command()
@_told
def preflight(
    namespace: Namespace = "default",
    farm_url: Annotated[
        str | None, typer.Option(envvar="LONGTAKE_URL", help="The farm's API; not checked if left out.")
    ] = None,
    api_key: ApiKey = None,
    weights_gib: Annotated[
        float | None, typer.Option(min=0.01, help="GiB of a model's weights: do they fit the GPUs?")
    ] = None,
    shared_storage_class: Annotated[
        str | None, typer.Option(help="StorageClass for volumes that many nodes mount.")
    ] = None,
    lease_name: Annotated[
        str, typer.Option(envvar="LONGTAKE_CONTROLLER_LEASE_NAME", help="The controller's Lease.")
    ] = "longtake-controller",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Check that this cluster can run Longtake; exit code 1 if it cannot."""
    from cluster.commands.preflight import Requirements, check_cluster

    requirements = Requirements(namespace, lease_name, weights_gib, shared_storage_class)
    kube = _connect(kubeconfig, context)
    if farm_url is None:
        findings = check_cluster(kube, requirements)
    else:
        with _farm(farm_url, api_key) as farm:
            findings = check_cluster(kube, requirements, farm)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print_line(f"{finding.state:<4} {finding.name}: {finding.found}")
            if finding.fix:
                print_line(f"     {finding.fix}")
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _connect(kubeconfig: Path | None, context: str | None) -> "Kube":
    from cluster.kube.client import connect

    return connect(kubeconfig=kubeconfig, context=context)


def _farm(url: str, api_key: str | None) -> "FarmClient":
    from cluster.errors import UserMistake
    from cluster.farm_client import FarmClient

    if not url.startswith(("http://", "https://")):
        raise UserMistake(f"LONGTAKE_URL: must begin with http:// or https:// (got {url!r})")
    return FarmClient(url.rstrip("/"), api_key=api_key, timeout_s=FARM_TIMEOUT_S)


def _show(shown: dict[str, Any]) -> None:
    from rich.console import Console

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    console = Console(highlight=False, markup=False, emoji=False, width=wide)
    columns = {
        "pools": "pool shape scaling min_gangs max_gangs gangs_wanted gangs_ready gangs_starting gangs_draining "
        "backlog_gpu_s ready message",
        "nodes": "node pod state product gpus zone spot pools gangs calls",
        "drains": "node pod ray_state signals asked_until gangs calls",
    }
    for name, keys in columns.items():
        if shown[name]:
            console.print(_table(name, keys.split(), shown[name]))
        else:
            console.print(f"no {name}")


def _table(title: str, keys: list[str], rows: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for key in keys:
        table.add_column(key.replace("_", " ").removeprefix("gangs "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for key in keys))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return str(len(value)) if len(value) > 3 else make_plain(", ".join(str(one) for one in value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else make_plain(str(value))
