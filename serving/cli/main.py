"""The entry point: puts the commands together and turns every error into an exit code and a line on stderr.

0 done, 2 the user's mistake, 1 a fault, 130 Ctrl-C. A user never sees a traceback unless LONGTAKE_DEBUG asks for it.
"""

import importlib.metadata
import sys
import tempfile
import traceback
from collections.abc import Iterable
from typing import Annotated, NoReturn

import typer

from serving.cli.doctor import doctor
from serving.cli.download import download
from serving.cli.jobs import cancel, explain, jobs, pause, priority, resume, retry, show
from serving.cli.keys import keys, usage
from serving.cli.logs import logs
from serving.cli.migrate import migrate
from serving.cli.models import models
from serving.cli.output.terminal import print_line, set_up_streams, tell, warn
from serving.cli.plan import plan
from serving.cli.render import render
from serving.cli.schema import schema
from serving.cli.submit import finalize, quote, revise, submit
from serving.cli.tenants import tenants
from serving.cli.up import down, status, up
from serving.cli.versions import delete, diff, versions
from serving.cli.watch import watch
from serving.cli.webhooks import webhooks
from serving.errors import Fault, UserError
from serving.render.scratch import is_disk_full
from serving.settings import debug

USER_MISTAKE = 2
FAULT = 1
INTERRUPTED = 130

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


mount_groups(importlib.metadata.entry_points(group="longtake.commands"))


def main() -> NoReturn:
    """Runs the command line and leaves with its exit code."""
    set_up_streams()
    try:
        app()
        sys.exit(0)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            unwritten = "; no film was written" if sys.argv[1:2] == ["render"] else ""
            warn(f"interrupted{unwritten}")
        raise
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except UserError as error:
        _tell(error, str(error))
        sys.exit(USER_MISTAKE)
    except Fault as error:
        _tell(error, str(error))
        sys.exit(FAULT)
    except OSError as error:
        full = is_disk_full(error)
        _tell(error, f"no room on {error.filename or 'stdout'}: {error.strerror}" if full else _unexpected(error))
        sys.exit(FAULT)
    except Exception as error:
        _tell(error, _unexpected(error))
        sys.exit(FAULT)


def show_version(wanted: bool) -> None:
    """Prints the version and leaves, where --version asks for it."""
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


def _tell(error: Exception, message: str) -> None:
    warn(message)
    if debug():
        tell("".join(traceback.format_exception(error)))


def _unexpected(error: Exception) -> str:
    return f"internal error: {type(error).__name__}: {error}{_keep_traceback()}"


def _keep_traceback() -> str:
    """Writes the traceback being handled to a file and says where, or says nothing where it cannot."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="longtake-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
    except OSError:
        return ""
    return f"\nplease report it with the traceback in {file.name}"


if __name__ == "__main__":
    main()
