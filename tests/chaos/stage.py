"""The two farms that faults are played on: one in the cloud's manner, one local."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from serving.config.farm import load_config
from serving.store.artifacts import Artifacts
from tests.chaos.ground import CutConnection, SmallDisk, small_disk
from tests.farm_process import Farm, Json, title
from tests.postgres import PrivatePostgres, private_postgres
from tests.s3 import s3_server

GANGS = 2
CHECKPOINT_STEPS = 2
"""Steps of a whole take between two checkpoints."""

SETTLE_S = 90.0
"""Seconds after a film is done within which all that its faults left must be gone."""

SETTINGS = {
    "LONGTAKE_CHECKPOINT_EVERY_STEPS": str(CHECKPOINT_STEPS),
    "LONGTAKE_POOLS__0__GANGS": str(GANGS),
    "LONGTAKE_POOLS__0__MAX_GANGS": str(GANGS),
    "LONGTAKE_POOLS__0__MIN_GANGS": str(GANGS),
}


@dataclass
class Stage:
    """A farm that runs, and what it stands on."""

    name: str
    farm: Farm
    artifacts: Artifacts
    connection: CutConnection | None = None
    disk: SmallDisk | None = None
    postgres: PrivatePostgres | None = None
    baseline: Json = field(default_factory=dict)
    """What its Ray holds when nothing has happened."""
    submitted: dict[str, str] = field(default_factory=dict)
    """Every job ever sent here, by id, and the status that it must end with."""

    @property
    def store_url(self) -> str:
        return load_config(None, self.farm.environment).store_url


@contextlib.contextmanager
def cloud_stage(folder: Path) -> Iterator[Stage]:
    """A farm of two hosts and two decoders on Postgres and a bucket.

    Raises FileNotFoundError where Postgres is not installed.
    """
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(private_postgres())
        endpoint = httpx.URL(stack.enter_context(s3_server()))
        connection = CutConnection(endpoint.host, endpoint.port or 80)
        stack.callback(connection.close)
        url = f"s3://farm/chaos?endpoint=http://127.0.0.1:{connection.port}&region=us-east-1"
        settings = {
            **SETTINGS,
            "LONGTAKE_STORE_URL": postgres.create_database(),
            "LONGTAKE_ARTIFACTS_URL": url,
            "LONGTAKE_DECODERS": "2",
            "LONGTAKE_TIMELINE_HOSTS": "2",
        }
        farm = Farm(folder / "home", extra=settings)
        stage = Stage("cloud", farm, Artifacts.open(url), connection=connection, postgres=postgres)
        yield from _started(stage, stack)


@contextlib.contextmanager
def local_stage(folder: Path) -> Iterator[Stage]:
    """A farm on SQLite and a folder, on a small disk. Raises PermissionError where none can be mounted."""
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk"))
        farm = Farm(disk.folder / "home", extra=SETTINGS)
        stage = Stage("local", farm, Artifacts.open(str(farm.home / "artifacts")), disk=disk)
        yield from _started(stage, stack)


STAGES = {"cloud": cloud_stage, "local": local_stage}


def _started(stage: Stage, stack: contextlib.ExitStack) -> Iterator[Stage]:
    stack.callback(stage.farm.command, "down")
    stage.farm.up()
    end = time.monotonic() + SETTLE_S
    while len(stage.farm.processes("ray::RankActor")) < GANGS or not stage.farm.processes("ray::TimelineHostActor"):
        assert time.monotonic() < end, "the farm does not get its gangs"
        time.sleep(0.1)
    stage.baseline = census(stage.farm)
    yield stage


def census(farm: Farm) -> Json:
    """The actors and placement groups of the farm's Ray."""
    raylet = title(next(process for process in farm.processes("raylet/raylet")))
    address = next(part.partition("=")[2] for part in raylet.split() if part.startswith("--gcs-address"))
    command = [sys.executable, "-m", "tests.chaos.census", address]
    done = subprocess.run(command, env=farm.environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: Json = json.loads(done.stdout.splitlines()[-1])
    return found
