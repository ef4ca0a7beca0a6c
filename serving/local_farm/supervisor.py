"""The process that a farm lives and dies with: starts Ray and the application, watches them, and ends everything.

`longtake up` runs it in the foreground, `longtake up --detach` as `python -m serving.local_farm.supervisor` in a
session of its own, with the configuration on stdin (it may hold passwords, which have no place in a command line).
"""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from serving.config.farm import FarmConfig
from serving.config.gang_shapes import settle_shapes
from serving.errors import Fault, LongtakeError, UserError
from serving.local_farm.home import FarmHome, FarmRecord
from serving.local_farm.leftovers import end_farm, is_living
from serving.local_farm.prometheus import Prometheus, check_prometheus, start_prometheus
from serving.local_farm.ray_cluster import (
    prepare,
    put_work_down,
    set_environment,
    shut_ray_down,
    start_application,
    start_ray,
)
from serving.settings import FARM_START_S, KILLED_S, debug
from serving.telemetry.logs import set_up_logs

_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = logging.getLogger("serving.local_farm.supervisor")

FARM_WATCH_S = 0.5
"""Polling interval of the farm's own processes, in seconds: whether they still live."""


class Ended(BaseException):
    """Somebody asked this process to end. Not an Exception, so nothing takes it for a failure on its way up."""


def run_farm(
    home: FarmHome, config: FarmConfig, *, with_prometheus: bool = False, on_ready: Callable[[FarmRecord], None]
) -> None:
    """Runs a farm until a signal ends it. Raises UserError if it cannot start here, Fault if it fails."""
    with home.lock():
        clear_leftovers(home)
        check_port(config)
        if with_prometheus:
            check_prometheus(config)
        config = settle_shapes(config)
        state, deadline = _begin(home, config), time.monotonic() + FARM_START_S
        try:
            with _ending_on_signals():
                set_environment(home, Path(state.ray_folder))
                with prepare(home, config) as prepared:
                    processes = start_ray(config, Path(state.ray_folder), deadline=deadline)
                    log.info("Ray runs", extra={"action": "ray_up"})
                    _take_signals()  # Ray has put its own in their place
                    application = prepared.result()
                    log.info("the application is built", extra={"action": "built"})
                start_application(application, config, deadline=deadline)
                prometheus = start_prometheus(home, config) if with_prometheus else None
                address = "" if prometheus is None else prometheus.address
                state = FarmRecord(**{**state.__dict__, "state": "ready", "prometheus": address})
                home.write(state)
                log.info("ready at %s", state.address, extra={"action": "ready"})
                on_ready(state)
                _watch(processes, prometheus)
        except Ended:
            log.info("ending", extra={"action": "ending"})
            put_work_down()
            log.info("the work is put down", extra={"action": "put_down"})
        finally:
            shut_ray_down()
            clear_leftovers(home)
            log.info("ended", extra={"action": "ended"})


def clear_leftovers(home: FarmHome) -> None:
    """Ends and removes what is left of this home's last farm. The home's lock must be held. Raises Fault."""
    state = home.read()
    if state is None:
        return
    folder = Path(state.ray_folder)
    remaining = end_farm(folder)
    if remaining:
        pids = ", ".join(str(process.pid) for process in remaining)
        raise Fault(f"processes of the farm that ran on {home.folder} cannot be ended: {pids}")
    home.keep_ray_logs(folder)
    if state.database:
        _tidy_database(Path(state.database))
    _clear_scratch(Path(state.scratch))
    home.ray_token.unlink(missing_ok=True)
    home.forget()


def _tidy_database(file: Path) -> None:
    """Puts what is in SQLite's write-ahead log into the file itself, so that a copy of that one file is complete."""
    if not file.exists():
        return
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file, timeout=KILLED_S)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _clear_scratch(folder: Path) -> None:
    """Removes what processes of the farm left there, and the folder if nothing else is in it."""
    for entry in folder.glob("*-*"):
        if re.fullmatch(r"[a-z]+-[0-9]+", entry.name):
            shutil.rmtree(entry, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def check_port(config: FarmConfig) -> None:
    """Raises UserError if the API or the metrics exporter could not listen."""
    listening = ((config.host, config.port, "--port"), (config.metrics_host, config.exporter_port, "metrics_port"))
    for host, port, option in listening:
        if port == 0:
            continue
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind((host, port))
            except (OSError, OverflowError) as error:
                reason = getattr(error, "strerror", None) or error
                raise UserError(f"{option}: {host}:{port} cannot be listened on: {reason}") from error


def _begin(home: FarmHome, config: FarmConfig) -> FarmRecord:
    """Writes down what is about to be started, before it is."""
    Path(config.scratch).mkdir(parents=True, exist_ok=True)
    state = FarmRecord(
        pid=os.getpid(),
        pid_created_at=psutil.Process().create_time(),
        state="starting",
        address=config.address,
        ray_folder=str(home.make_ray_folder()),
        scratch=config.scratch,
        started_at=time.time(),
        database=config.store_file or "",
    )
    home.write(state)
    return state


def _watch(processes: list[psutil.Process], prometheus: Prometheus | None) -> None:
    """Returns never: raises Ended on a signal, Fault if Ray has died."""
    names = [process.name() for process in processes]
    while True:
        if prometheus is not None and not is_living(prometheus.process):
            log.warning("Prometheus has died; the farm goes on without it", extra={"action": "prometheus_died"})
            prometheus = None
        for process, name in zip(processes, names, strict=True):
            if not is_living(process):
                raise Fault(f"Ray's {name} died; `longtake up` goes on where the farm was")
        time.sleep(FARM_WATCH_S)


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Within the block a signal raises Ended, once."""
    before = {number: signal.getsignal(number) for number in _ENDING_SIGNALS}
    _take_signals()
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)


def _take_signals() -> None:
    """Puts our handlers in place, also of those that Ray has set meanwhile."""
    for number in _ENDING_SIGNALS:
        signal.signal(number, _raise_ended)


def _raise_ended(number: int, frame: object) -> None:
    for ending in _ENDING_SIGNALS:
        signal.signal(ending, signal.SIG_IGN)
    raise Ended


def main() -> None:
    """A detached farm: the configuration comes on stdin, and stdout and stderr are its log."""
    given: dict[str, Any] = json.load(sys.stdin)
    home = FarmHome(Path(given["home"]))
    set_up_logs(level=logging.WARNING)
    log.setLevel(logging.INFO)
    try:
        config = FarmConfig.model_validate(given["config"])
        run_farm(home, config, with_prometheus=given["with_prometheus"], on_ready=lambda state: None)
    except LongtakeError as error:
        print(error, file=sys.stderr)
        if debug():
            traceback.print_exc()
        code = 2 if isinstance(error, UserError) else 1
    except Exception:
        traceback.print_exc()
        code = 1
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread of Ray's that hangs must not keep the process


if __name__ == "__main__":
    main()
