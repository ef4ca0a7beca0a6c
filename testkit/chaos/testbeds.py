"""The two farms that meet faults: one on Postgres and a bucket, one on SQLite and a small disk."""

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
from serving.settings import RAY_OF_MANY_MACHINES
from serving.store.artifacts import Artifacts
from testkit.chaos.breakable import CutConnection, SmallDisk, small_disk
from testkit.farm_process import Farm, title
from testkit.json_object import Json
from testkit.postgres import PrivatePostgres, private_postgres
from testkit.s3 import s3_server

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
class Testbed:
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
def cloud_testbed(folder: Path) -> Iterator[Testbed]:
    """A farm of two hosts and two decoders on Postgres and a bucket.

    Raises FileNotFoundError if Postgres is not installed.
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
        testbed = Testbed("cloud", farm, Artifacts.open(url), connection=connection, postgres=postgres)
        yield from _started(testbed, stack)


@contextlib.contextmanager
def local_testbed(folder: Path) -> Iterator[Testbed]:
    """A farm on SQLite and a folder, on a small disk. Raises PermissionError if none can be mounted."""
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk"))
        farm = Farm(disk.folder / "home", extra=SETTINGS)
        testbed = Testbed("local", farm, Artifacts.open(str(farm.home / "artifacts")), disk=disk)
        yield from _started(testbed, stack)


TESTBEDS = {"cloud": cloud_testbed, "local": local_testbed}


def _started(testbed: Testbed, stack: contextlib.ExitStack) -> Iterator[Testbed]:
    stack.callback(testbed.farm.command, "down")
    testbed.farm.up()
    end = time.monotonic() + SETTLE_S
    while len(testbed.farm.processes("ray::RankActor")) < GANGS or not testbed.farm.processes("ray::TimelineHostActor"):
        assert time.monotonic() < end, "the farm does not get its gangs"
        time.sleep(0.1)
    testbed.baseline = ray_inventory(testbed.farm)
    yield testbed


def ray_inventory(farm: Farm) -> Json:
    """The actors and placement groups of the farm's Ray."""
    raylet = title(next(process for process in farm.processes("raylet/raylet")))
    address = next(part.partition("=")[2] for part in raylet.split() if part.startswith("--gcs-address"))
    command = [sys.executable, "-m", "testkit.chaos.ray_inventory", address]
    environment = farm.environment | {RAY_OF_MANY_MACHINES: "0"}  # else it looks for the farm at another address
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: Json = json.loads(done.stdout.splitlines()[-1])
    return found
