"""A Ray cluster of this machine for one farm alone, and the application in it. Ray is imported only if it is used.

It disturbs no other cluster and is found by none: its own folder, its own token, ports that the system chooses.
"""

import contextlib
import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil

from serving.config.farm import FarmConfig
from serving.errors import Fault, ModelError, UserError
from serving.local_farm.home import RAY_INNER_FOLDER, FarmHome, write_secret
from serving.local_farm.leftovers import end_farm
from serving.settings import CONTROL_RESOURCE, FARM_DRAIN_S, FARM_START_S, RAY_OF_MANY_MACHINES, RAY_SHUTDOWN_S

log = logging.getLogger("serving.local_farm.supervisor")

SPARE = 2
"""Times the cores of all gangs that Ray is told of: the others are for gangs that replace those that still go. Ray only
counts them: how many gangs there are, Serve says."""

START_POLL_S = 0.1
"""Polling interval of a farm that starts, in seconds."""

CPU_BESIDE_GANGS = 2
"""Cores that Ray is told of beyond those."""


def set_environment(home: FarmHome, folder: Path) -> None:
    """What Ray and every process of the farm inherit."""
    os.environ.update(
        RAY_TMPDIR=str(folder),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_SERVE_LOG_TO_STDERR="0",
        OMP_NUM_THREADS="1",
        MKL_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
    )
    os.environ[RAY_OF_MANY_MACHINES] = "0"
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", str(int(FARM_START_S)))  # Ray's default is 30
    os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.5")  # 0.1 takes 3 % of a core for nothing
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"].lower() == "token" and not os.environ.get("RAY_AUTH_TOKEN"):
        write_secret(home.ray_token, secrets.token_hex(32))
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(home.ray_token)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)  # no process of the farm reads from the terminal


@contextlib.contextmanager
def prepare(home: FarmHome, config: FarmConfig) -> Iterator["Future[Any]"]:
    """The application, built while Ray starts: importing what it is made of takes about as long."""
    from ray import serve  # before the thread, so that Ray is imported once

    logging.getLogger(serve.__name__).setLevel(logging.WARNING)
    with ThreadPoolExecutor(max_workers=1) as thread:
        yield thread.submit(_build, home, config)


def _build(home: FarmHome, config: FarmConfig) -> Any:
    """Raises UserError if a pool's model cannot be opened, Fault if the store cannot be reached."""
    from serving.app import build
    from serving.models.registry import open_model

    for index, pool in enumerate(config.pools):
        try:
            open_model(pool.model)
        except ModelError as error:
            raise UserError(f"pools[{index}].model: {error}") from error
    if config.needs_keys:
        _make_admin_key(home, config)
    return build(config.as_json())


def _make_admin_key(home: FarmHome, config: FarmConfig) -> None:
    """Puts an administrator's key into the home, unless one is there: without it nobody could make the first."""
    from serving.store.database import open_database
    from serving.store.keys import ApiKeys

    database = open_database(config.store_url)
    try:
        keys = ApiKeys(database)
        if home.admin_key is None or keys.find(home.admin_key) is None:
            _, secret = keys.create("admin", "longtake up", time.time())
            write_secret(home.admin_key_file, secret)
    finally:
        database.close()


def start_ray(config: FarmConfig, folder: Path, *, deadline: float) -> list[psutil.Process]:
    """A Ray cluster of this machine for this farm alone; returns the processes without which it is dead.

    Ray gives its own processes 30 seconds; on a busy machine it is started again until `deadline`, in monotonic
    seconds. Raises Fault.
    """
    while True:
        begun = time.monotonic()
        try:
            _init_ray(config, folder)
            return [process for process in psutil.Process().children() if process.name() in ("raylet", "gcs_server")]
        except Exception as error:  # Ray raises a bare one if its own 30 seconds to start are over
            late = "timed out" in str(error).lower()
            if not late or time.monotonic() > deadline:
                raise Fault(f"Ray did not start: {error}") from error
            words = "Ray was not ready after %.0f seconds: this machine is busy; starting it again"
            log.warning(words, time.monotonic() - begun, extra={"action": "ray_late"})
            shut_ray_down()
            end_farm(folder)


def _init_ray(config: FarmConfig, folder: Path) -> None:
    import ray

    cores = sum(pool.max_gangs * pool.shape.ranks * pool.rank_resources["CPU"] for pool in config.pools)
    ray.init(
        address="local",
        num_cpus=SPARE * math.ceil(cores) + CPU_BESIDE_GANGS,
        resources={CONTROL_RESOURCE: 1},
        object_store_memory=config.object_store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=str(folder / RAY_INNER_FOLDER),
    )


def start_application(application: Any, config: FarmConfig, *, deadline: float) -> None:
    from ray import serve

    from serving.actors.named import APP

    http = {"host": config.host, "port": config.port, "request_timeout_s": None}  # a limit would cut event streams
    serve.start(proxy_location="HeadOnly", http_options=http)
    target = serve.RunTarget(application, name=APP, route_prefix="/")
    serve.run_many([target], wait_for_applications_running=False)  # it would look once a second
    while not (_runs() and _answers(config)):
        if time.monotonic() > deadline:
            raise Fault(f"the farm was not ready after {FARM_START_S:.0f} seconds")
        time.sleep(START_POLL_S)


def _runs() -> bool:
    """Whether every part of the application has started. Raises Fault with what Serve says of those that cannot."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    from serving.actors.named import APP

    found = serve.status().applications.get(APP)
    if found is not None and found.status == ApplicationStatus.DEPLOY_FAILED:
        failed = "".join(f"\n{name}: {part.message}" for name, part in found.deployments.items() if part.message)
        raise Fault(f"deploying application {APP} failed: {found.message}{failed}")
    return found is not None and found.status == ApplicationStatus.RUNNING


def _answers(config: FarmConfig) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{config.address}/readyz", timeout=5.0, trust_env=False).is_success
    return False


def put_work_down() -> None:
    """Has the Director save what can be saved. Nothing is lost without it but time."""
    import ray
    from ray.exceptions import RayError

    from serving.actors.named import DIRECTOR, NAMESPACE

    if not ray.is_initialized():
        return
    with contextlib.suppress(RayError, ValueError):  # ValueError: there is no Director
        ray.get(ray.get_actor(DIRECTOR, NAMESPACE).stop.remote(), timeout=FARM_DRAIN_S)


def shut_ray_down() -> None:
    """Ends Ray in good order, or gives up after RAY_SHUTDOWN_S: a dead cluster would keep it forever."""
    import atexit

    import ray

    atexit.unregister(ray.shutdown)
    orderly = threading.Thread(target=_shut_down, daemon=True)
    orderly.start()
    orderly.join(RAY_SHUTDOWN_S)


def _shut_down() -> None:
    import ray

    with contextlib.suppress(Exception):  # whatever it fails with, its processes are killed next
        ray.shutdown()
