"""`longtake up`, `down` and `status`: one farm of this machine, its state in LONGTAKE_HOME."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving import settings
from serving.cli.options import AsJson
from serving.cli.output.job_text import rough
from serving.cli.output.terminal import print_json, print_line, warn
from serving.errors import Fault, UserError
from serving.settings import FARM_DRAIN_S, FARM_START_S, LOG_TAIL_LINES, RAY_SHUTDOWN_S, home
from serving.telemetry.logs import set_up_logs

if TYPE_CHECKING:
    from serving.config.farm import FarmConfig
    from serving.local_farm.home import FarmHome, FarmRecord

_GRACE_S = 15.0
"""Seconds that a supervisor gets beyond its own limits before it is taken for stuck."""

_POLL_S = 0.05
"""Polling interval of a farm that starts or ends, in seconds."""


_SLOW_START_S = 30.0
"""Seconds of a start after which it is told that it goes on; an idle machine needs fewer."""


def up(
    config: Annotated[Path | None, typer.Option(help="farm.yaml; docs/farm.md describes it.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="Port instead of the configuration's.")] = None,
    host: Annotated[str | None, typer.Option(help="Address instead of the configuration's.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the farm is ready.")] = False,
    with_prometheus: Annotated[
        bool, typer.Option("--with-prometheus", help="Also start a Prometheus that scrapes it, if one is installed.")
    ] = False,
) -> None:
    """Start a farm on this machine; it goes on with the jobs that an earlier one left."""
    told = _read_config(config, port=port, host=host)

    from serving.local_farm.home import OTHERS, FarmHome

    os.umask(OTHERS)  # of the supervisor and of Ray too, which inherit it
    farm = FarmHome(home().absolute())
    if detach:
        _start_detached(farm, told, with_prometheus=with_prometheus)
        return
    from serving.local_farm.supervisor import run_farm

    with farm.lock():
        pass  # refused before anything is printed
    warn(f"starting a farm on {farm.folder}; Ctrl-C ends it")
    set_up_logs(text="longtake: %(message)s", level=logging.WARNING)
    logging.getLogger("serving.local_farm.supervisor").setLevel(logging.INFO)
    run_farm(farm, told, with_prometheus=with_prometheus, on_ready=lambda state: _say_ready(farm, state, told))


def down() -> None:
    """End the farm that `longtake up` started, and whatever it may have left behind."""
    from serving.local_farm.home import FarmHome
    from serving.local_farm.supervisor import clear_leftovers

    farm = FarmHome(home().absolute())
    state = farm.read()
    if state is None:
        print_line(f"no farm runs on {farm.folder}")
        return
    was_alive = state.is_alive
    if was_alive:
        _end_supervisor(state)
    with farm.lock():
        clear_leftovers(farm)
    print_line("the farm has ended" if was_alive else "the farm was dead already; what it left is cleared")


def status(as_json: AsJson = False) -> None:
    """Say whether a farm runs here; exit code 1 if none does."""
    from serving.local_farm.home import FarmHome

    farm = FarmHome(home().absolute())
    state = farm.read()
    alive = state is not None and state.is_alive
    if as_json:
        known = asdict(state) if state is not None else {}
        print_json({"running": alive, "home": str(farm.folder), **known})
    elif state is None:
        print_line(f"no farm runs on {farm.folder}")
    elif not alive:
        print_line(
            f"the farm of {farm.folder} is dead; `longtake up` goes on where it was, `longtake down` clears it away"
        )
    else:
        since = rough(time.time() - state.started_at)
        beside = f", Prometheus at {state.prometheus}" if state.prometheus else ""
        print_line(f"{state.state} at {state.address}, up for {since}, process {state.pid}, home {farm.folder}{beside}")
    if not alive:
        raise typer.Exit(1)


def _read_config(path: Path | None, *, port: int | None, host: str | None) -> "FarmConfig":
    from serving.config.farm import load_config

    given = {"LONGTAKE_PORT": port, "LONGTAKE_HOST": host}
    return load_config(path, {**os.environ, **{name: str(value) for name, value in given.items() if value is not None}})


def _say_ready(farm: "FarmHome", state: "FarmRecord", config: "FarmConfig") -> None:
    print_line(state.address)
    for danger in _dangers(farm, config):
        warn(danger)
    if state.prometheus:
        warn(f"Prometheus at {state.prometheus}")


def _dangers(farm: "FarmHome", config: "FarmConfig") -> Iterator[str]:
    """What this farm leaves open, in a line each."""
    if not config.needs_keys:
        who = "this machine" if config.is_loopback else "the network"
        yield f"no API key is asked for: everyone on {who} may use the farm"
    if not config.is_loopback:
        yield f"{config.host} can be reached from other machines: put a proxy before the API (docs/farm.md)"
    if settings.ray_auth_is_off():
        yield "RAY_AUTH_MODE=disabled: everyone on this machine may run code as you, through Ray's ports"
    if farm.is_open:
        yield f"{farm.folder} belongs to somebody else and others may enter it; jobs and secrets lie in it"


def _start_detached(farm: "FarmHome", config: "FarmConfig", *, with_prometheus: bool) -> None:
    """Starts the supervisor in a session of its own and waits until the farm is ready."""
    with farm.lock():
        if farm.log.exists():
            farm.log.replace(farm.log.with_suffix(".log.1"))
    with farm.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.local_farm.supervisor"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            told = {"home": str(farm.folder), "config": config.as_json(), "with_prometheus": with_prometheus}
            stdin.write(json.dumps(told).encode())
        _say_ready(farm, _wait_until_ready(farm, process), config)
    except BaseException:
        process.terminate()  # also on Ctrl-C: a farm that nobody was told of must not stay
        raise


def _wait_until_ready(farm: "FarmHome", process: "subprocess.Popen[bytes]") -> "FarmRecord":
    begun, told = time.monotonic(), False
    deadline = begun + FARM_START_S + _GRACE_S
    while True:
        code = process.poll()
        if code is not None:
            raise (UserError if code == 2 else Fault)(_last_words(farm, code))
        state = farm.read()
        if state is not None and state.pid == process.pid and state.state == "ready":
            return state
        if not told and time.monotonic() > begun + _SLOW_START_S:
            warn(f"the farm is still starting, this machine is busy; its log is {farm.log}")
            told = True
        if time.monotonic() > deadline:
            raise Fault(f"the farm was not ready after {FARM_START_S + _GRACE_S:.0f} seconds; see {farm.log}")
        time.sleep(_POLL_S)


def _last_words(farm: "FarmHome", code: int) -> str:
    lines = farm.log.read_text(errors="replace").splitlines()
    if code == 2:
        return "\n".join(lines)
    return "\n".join([*lines[-LOG_TAIL_LINES:], f"the farm could not start; its log is {farm.log}"])


def _end_supervisor(state: "FarmRecord") -> None:
    """Asks the supervisor to end, and kills it if it does not."""
    import psutil

    from serving.local_farm.leftovers import end_processes, is_living

    try:
        process = psutil.Process(state.pid)
        process.terminate()
        deadline = time.monotonic() + FARM_DRAIN_S + RAY_SHUTDOWN_S + _GRACE_S
        while is_living(process):
            if time.monotonic() > deadline:
                end_processes([process])
                return
            time.sleep(_POLL_S)
    except psutil.NoSuchProcess:
        return
