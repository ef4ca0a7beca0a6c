"""Ctrl-C on a terminal, whatever the processes of a render are doing at that moment, is one line."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from serving.models.testing import write_tiny_checkpoint

LONGTAKE = Path(sys.executable).parent / "longtake"
LIMIT_S = 120.0
BOARD = "version: 1\nmodel: ./tiny\nvideo: {width: 32, height: 48}\nshots: [{prompt: a red ball, seconds: 60}]\n"


def children_import(shown: str, process: psutil.Process) -> bool:
    """The server that imports the model libraries for all others has just been started."""
    return any("forkserver" in " ".join(child.cmdline()) for child in process.children())


def the_film_is_begun(shown: str, process: psutil.Process) -> bool:
    """Two gangs have calls, and the file that becomes the film is there."""
    return re.search(r"calls [1-9]", shown) is not None and Path(process.cwd(), ".film.mp4.partial").exists()


@pytest.mark.parametrize("reached", [children_import, the_film_is_begun])
def test_ctrl_c_is_one_line_and_leaves_nothing(tmp_path: Path, reached: Callable[[str, psutil.Process], bool]) -> None:
    write_tiny_checkpoint(tmp_path / "tiny", "2.1")
    (tmp_path / "board.yaml").write_text(BOARD)
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    process = subprocess.Popen(
        [str(LONGTAKE), "render", "board.yaml", "-o", "film.mp4", "--gangs", "2"],
        cwd=tmp_path,
        env={**os.environ, "LONGTAKE_HOME": str(tmp_path / "home"), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: _take_terminal(theirs),
    )
    os.close(theirs)
    shown, until = "", time.monotonic() + LIMIT_S
    try:
        while not reached(shown, psutil.Process(process.pid)):
            assert process.poll() is None, shown
            assert time.monotonic() < until, shown
            shown += _read(ours)
        children = psutil.Process(process.pid).children(recursive=True)
        os.write(ours, b"\x03")
        while process.poll() is None:
            assert time.monotonic() < until, shown
            shown += _read(ours)
        shown += _read(ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert process.returncode == 130, shown
    assert shown.count("interrupted") == shown.count("longtake: interrupted; no film was written") == 1, shown
    assert "Traceback" not in shown
    assert "KeyboardInterrupt" not in shown
    _, left = psutil.wait_procs(children, timeout=LIMIT_S)
    assert left == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["board.yaml", "tiny"]


def _take_terminal(theirs: int) -> None:
    os.close(os.open(os.ttyname(theirs), os.O_RDWR))  # it becomes the terminal of its session
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell has its background jobs ignore


def _read(terminal: int) -> str:
    time.sleep(0.01)
    try:
        return os.read(terminal, 65_536).decode(errors="replace")
    except OSError:  # nothing to read yet, or nobody writes any more
        return ""
