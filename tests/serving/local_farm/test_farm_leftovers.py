"""Whose process is whose, what the lock guards, and what a home remembers. No Ray here."""

import contextlib
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from serving.cli.commands import app
from serving.config.farm import FarmConfig
from serving.errors import Fault, UserError
from serving.local_farm.home import MAX_RAY_FOLDER_CHARS, FarmHome, FarmRecord, write_secret
from serving.local_farm.leftovers import end_farm, find_processes
from serving.local_farm.supervisor import check_port, clear_leftovers

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP


@contextlib.contextmanager
def process(*command: str, **environment: str) -> Iterator[psutil.Process]:
    """A process that has said that it runs."""
    with subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline()
            yield psutil.Process(started.pid)
        finally:
            started.kill()


def python(script: str, **environment: str) -> contextlib.AbstractContextManager[psutil.Process]:
    return process(sys.executable, "-c", script, **environment)


def state_of(folder: Path, **values: object) -> FarmRecord:
    me = psutil.Process()
    known = {
        "pid": me.pid,
        "pid_created_at": me.create_time(),
        "state": "ready",
        "address": "http://127.0.0.1:1",
        "ray_folder": str(folder / "ray"),
        "scratch": str(folder / "scratch"),
        "started_at": time.time(),
    }
    return FarmRecord(**{**known, **values})  # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FarmHome:
    monkeypatch.setenv("LONGTAKE_HOME", str(tmp_path / "home"))
    found = FarmHome(tmp_path / "home")
    found.prepare()
    return found


def test_only_processes_of_the_farm_are_found_and_ended(tmp_path: Path) -> None:
    folder = tmp_path / "ray"
    folder.mkdir()
    log = folder / "worker.log"
    log.write_text("a line\n")
    writer = f"log = open({str(log)!r}, 'a'); {SLEEP}"
    parent = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); {SLEEP}"
    with (
        python(SLEEP, RAY_TMPDIR=str(folder)) as by_environment,
        python(writer) as by_log,
        python(STUBBORN, RAY_TMPDIR=str(folder)) as stubborn,
        python(f"log = open({str(log)!r}, 'a'); {parent}") as with_child,
        process("tail", "-f", str(log)) as reader,
        python(SLEEP, RAY_TMPDIR=f"{folder}-of-another") as other,
    ):
        mine = {by_environment.pid, by_log.pid, stubborn.pid, with_child.pid}
        children = {child.pid for child in with_child.children()}
        assert {found.pid for found in find_processes(folder)} == mine | children
        assert end_farm(folder) == []
        assert find_processes(folder) == []
        assert reader.is_running()
        assert other.is_running()


def test_two_farms_cannot_have_one_home(home: FarmHome) -> None:
    home.write(state_of(home.folder))
    with home.lock():
        with pytest.raises(UserError, match=r"already runs on .* at http://127.0.0.1:1; `longtake down`"), home.lock():
            pass
        with pytest.raises(UserError, match="already runs"):
            CliRunner().invoke(app, ["up", "--detach"], catch_exceptions=False)
    with home.lock():
        pass


def test_a_state_is_alive_only_with_the_very_process_that_wrote_it(tmp_path: Path) -> None:
    assert state_of(tmp_path).is_alive
    assert not state_of(tmp_path, pid_created_at=1.0).is_alive
    assert not state_of(tmp_path, pid=2**22 + 1).is_alive


def test_what_a_dead_farm_left_is_cleared_and_nothing_else(home: FarmHome) -> None:
    state = state_of(home.folder, pid_created_at=1.0)
    session = Path(state.ray_folder) / "r" / "session_1" / "logs"
    session.mkdir(parents=True)
    (session / "raylet.out").write_text("last words")
    scratch = Path(state.scratch)
    (scratch / "decoder-12345").mkdir(parents=True)
    (scratch / "my own").mkdir()
    home.write(state)
    write_secret(home.ray_token, "secret")
    with python(SLEEP, RAY_TMPDIR=state.ray_folder) as orphan:
        clear_leftovers(home)
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert home.read() is None
    assert not Path(state.ray_folder).exists()
    assert not home.ray_token.exists()
    assert (home.ray_logs / "raylet.out").read_text() == "last words"
    assert [path.name for path in scratch.iterdir()] == ["my own"]
    clear_leftovers(home)


def test_a_damaged_state_file_is_told(home: FarmHome) -> None:
    (home.folder / "farm.json").write_text("{")
    with pytest.raises(Fault, match=r"farm\.json is damaged"):
        home.read()


def test_the_folder_of_sockets_is_short_private_and_of_this_home_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 20)))
    one, two = FarmHome(tmp_path / "one").make_ray_folder(), FarmHome(tmp_path / "two").make_ray_folder()
    try:
        assert one != two
        assert one == FarmHome(tmp_path / "one").make_ray_folder()
        assert len(str(one)) <= MAX_RAY_FOLDER_CHARS
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
        two.rmdir()
        two.symlink_to(one)
        with pytest.raises(Fault, match="belongs to somebody else"):
            FarmHome(tmp_path / "two").make_ray_folder()
    finally:
        one.rmdir()
        two.unlink(missing_ok=True)


def test_a_secret_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    write_secret(tmp_path / "key", "secret")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_port_in_use_is_told_before_anything_starts(home: FarmHome) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port: 127.0.0.1:{port} cannot be listened on: Address already in use"):
            check_port(FarmConfig(port=port))
        with pytest.raises(UserError, match="metrics_port: "):
            check_port(FarmConfig(metrics_port=port))
        with pytest.raises(UserError, match="metrics_port: 127"):
            check_port(FarmConfig(host="127.0.0.2", port=port, metrics_port=port))
    with pytest.raises(UserError, match="cannot be listened on"):
        check_port(FarmConfig(host="no.such.host.invalid"))


def test_down_and_status_without_a_farm(home: FarmHome) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["down"]).stdout == f"no farm runs on {home.folder}\n"
    found = runner.invoke(app, ["status", "--json"])
    assert (found.exit_code, json.loads(found.stdout)) == (1, {"running": False, "home": str(home.folder)})
    home.write(state_of(home.folder, pid_created_at=1.0))
    assert "is dead; `longtake up` goes on" in runner.invoke(app, ["status"]).stdout
    assert "was dead already" in runner.invoke(app, ["down"]).stdout
    assert home.read() is None


@pytest.mark.parametrize("arguments", [["--port", "0"], ["--config", "no.yaml"]])
def test_a_mistake_starts_nothing(home: FarmHome, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["up", *arguments])
    assert isinstance(result.exception, UserError) or result.exit_code == 2
    assert home.read() is None
