"""The processes of one farm, whoever their parent is now, and how they are ended.

A process belongs to a farm if the farm's Ray folder is its RAY_TMPDIR, or if it has a file there open for writing
(Ray's workers overwrite their environment with their title, but write their log there). Children of such processes
belong too. Who merely reads a log does not.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import psutil

from serving.settings import KILLED_S

TERMINATE_S = 2.0
"""Seconds between asking a process to end and killing it."""


def find_processes(ray_folder: Path) -> list[psutil.Process]:
    """All living processes of the farm with this Ray folder, apart from this one and those that it descends from."""
    me = psutil.Process()
    spared = {process.pid for process in (me, *me.parents())}
    everyone = [process for process in psutil.process_iter(["ppid"]) if process.pid not in spared]
    found = {process.pid: process for process in everyone if _belongs(process, ray_folder)}
    grown = True
    while grown:  # psutil's children(recursive=True) of each would read every process each time
        children = [one for one in everyone if one.info["ppid"] in found and one.pid not in found]
        found.update((child.pid, child) for child in children)
        grown = bool(children)
    return [process for process in found.values() if is_living(process)]


def end_processes(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Asks them to end, kills those that do not, and returns those that could not even be killed."""
    left = list(processes)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(left, timeout=TERMINATE_S)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, left = psutil.wait_procs([process for process in left if is_living(process)], timeout=KILLED_S)
    return [process for process in left if is_living(process)]


def end_farm(ray_folder: Path) -> list[psutil.Process]:
    """Ends every process of the farm, also those that dying ones still started; returns those that remain."""
    left: list[psutil.Process] = []
    for _ in range(3):
        found = find_processes(ray_folder)
        if not found:
            return []
        left = end_processes(found)
    return left


def is_living(process: psutil.Process) -> bool:
    """False for one that has ended, even if its parent has not noticed."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _belongs(process: psutil.Process, ray_folder: Path) -> bool:
    try:
        if process.uids().real != os.getuid():
            return False
        if process.environ().get("RAY_TMPDIR") == str(ray_folder):
            return True
        inside = str(ray_folder) + os.sep
        return any(file.path.startswith(inside) and _writes(file) for file in process.open_files())
    except (psutil.Error, OSError):
        return False


def _writes(file: object) -> bool:
    """Whether an open file was opened for writing, if the system tells."""
    return getattr(file, "mode", "r") != "r"
