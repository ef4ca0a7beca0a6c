"""A farm's home is closed to others, and what a farm leaves there is complete."""

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.config.farm import FarmConfig, load_config
from serving.errors import Fault
from serving.local_farm import ray_cluster
from serving.local_farm.home import FarmHome, FarmRecord
from serving.local_farm.supervisor import clear_leftovers


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_home_is_its_owners_alone(tmp_path: Path) -> None:
    home = FarmHome(tmp_path / "deep" / "home")
    home.prepare()
    assert mode_of(home.folder) == mode_of(home.log.parent) == 0o700
    assert not home.is_open


def test_a_home_that_was_open_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    FarmHome(tmp_path).prepare()
    assert mode_of(tmp_path) == 0o700


def test_what_a_dead_farm_had_in_its_log_is_in_the_database_after_down(tmp_path: Path) -> None:
    home, file = FarmHome(tmp_path / "home"), tmp_path / "home" / "farm.db"
    home.prepare()
    writer = sqlite3.connect(file)
    writer.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (7)")
    reader = sqlite3.connect(file)  # keeps the log as a killed process would
    reader.execute("SELECT * FROM t").fetchall()
    assert file.with_name("farm.db-wal").stat().st_size > 0
    home.write(
        FarmRecord(
            pid=2**22 + 1,
            pid_created_at=0.0,
            state="ready",
            address="http://127.0.0.1:1",
            ray_folder=str(tmp_path / "ray"),
            scratch=str(tmp_path / "scratch"),
            started_at=time.time(),
            database=str(file),
        )
    )
    with home.lock():
        clear_leftovers(home)
    assert file.with_name("farm.db-wal").stat().st_size == 0
    copy = tmp_path / "copy.db"
    copy.write_bytes(file.read_bytes())
    assert sqlite3.connect(copy).execute("SELECT x FROM t").fetchall() == [(7,)]


@pytest.fixture
def late_ray(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ray that is too late twice, then there; holds how often it was started."""
    starts: list[int] = []

    def init(config: FarmConfig, folder: Path) -> None:
        starts.append(1)
        if len(starts) < 3:
            raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.setattr(ray_cluster, "_init_ray", init)
    monkeypatch.setattr(ray_cluster, "shut_ray_down", lambda: None)
    return starts


def test_ray_is_started_again_on_a_busy_machine_and_that_is_told(
    tmp_path: Path, late_ray: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    config: Any = load_config(None, {"LONGTAKE_HOME": str(tmp_path)})
    ray_cluster.start_ray(config, tmp_path / "ray", deadline=time.monotonic() + 60)
    assert len(late_ray) == 3
    assert caplog.text.count("this machine is busy") == 2


def test_ray_that_never_starts_is_given_up_at_the_deadline(tmp_path: Path, late_ray: list[int]) -> None:
    config: Any = load_config(None, {"LONGTAKE_HOME": str(tmp_path)})
    with pytest.raises(Fault, match="Ray did not start: The current node timed out"):
        ray_cluster.start_ray(config, tmp_path / "ray", deadline=time.monotonic() - 1)
    assert len(late_ray) == 1
