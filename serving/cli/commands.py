"""The commands put together: `app` holds every one of them, and those of packages that are mounted."""

import importlib.metadata
from collections.abc import Iterable
from typing import Annotated

import typer

from serving.cli.doctor import doctor
from serving.cli.download import download
from serving.cli.jobs import cancel, explain, jobs, pause, priority, resume, retry, show
from serving.cli.keys import keys, usage
from serving.cli.logs import logs
from serving.cli.migrate import migrate
from serving.cli.models import models
from serving.cli.output.terminal import print_line, warn
from serving.cli.plan import plan
from serving.cli.render import render
from serving.cli.schema import schema
from serving.cli.submit import finalize, quote, revise, submit
from serving.cli.tenants import tenants
from serving.cli.up import down, status, up
from serving.cli.versions import delete, diff, versions
from serving.cli.watch import watch
from serving.cli.webhooks import webhooks

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS = {
    "On this machine": (render, plan, schema, models, doctor),
    "The farm": (up, down, status, migrate),
    "Films on the farm": (submit, quote, watch, download, revise, finalize, versions, diff),
    "Jobs": (jobs, show, explain, logs, cancel, pause, resume, retry, priority, delete, usage),
}
for _panel, _commands in _COMMANDS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
for _name, _group in {"keys": keys, "tenants": tenants, "webhooks": webhooks}.items():
    app.add_typer(_group, name=_name, rich_help_panel="Jobs")


def mount_groups(entry_points: Iterable[importlib.metadata.EntryPoint]) -> None:
    """Adds commands of packages that this one must not know, such as `longtake cluster`. A group that cannot be loaded
    must not take the other commands with it."""
    for entry_point in entry_points:
        try:
            app.add_typer(entry_point.load(), name=entry_point.name, rich_help_panel="Kubernetes")
        except Exception as error:
            warn(f"no commands of {entry_point.name}: {error}")


def show_version(wanted: bool) -> None:
    """Prints the version and leaves, if --version asks for it."""
    if wanted:
        print_line(importlib.metadata.version("longtake"))
        raise typer.Exit


@app.callback()
def longtake(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=show_version)
    ] = False,
) -> None:
    """Longtake renders a storyboard into one film, longer than any video model can hold."""


mount_groups(importlib.metadata.entry_points(group="longtake.commands"))
