"""What must be true after a run: the bytes of the film, the jobs, and that nothing is left behind."""

import contextlib
import hashlib
import time
from collections.abc import Iterator

import httpx
import psutil

from serving.store.artifact_keys import latents_artifact
from testkit.chaos.fault_run import FaultRun
from testkit.chaos.testbeds import GANGS, SETTLE_S, Testbed, ray_inventory
from testkit.farm_process import title
from testkit.json_object import Json


def check_film(run: FaultRun, job: Json, expected: str | None) -> Iterator[str]:
    """The film is the one that an undisturbed render makes, and what is downloaded is that film."""
    if expected is None:
        yield "the film could not be rendered undisturbed"
        return
    if job["film"]["sha256"] != expected:
        yield f"the film is {job['film']['sha256'][:12]}, undisturbed it is {expected[:12]}"
    content = httpx.get(f"{run.farm.address}/v1/jobs/{job['id']}/film", timeout=60, trust_env=False).content
    if hashlib.sha256(content).hexdigest() != job["film"]["sha256"]:
        yield "what is downloaded is not the film"


def check_jobs(testbed: Testbed) -> Iterator[str]:
    """No accepted job is lost or doubled."""
    found: dict[str, str] = {}
    after: str | None = None
    while True:
        page = testbed.farm.ask("GET", "/v1/jobs", params={"limit": 100} | ({"after": after} if after else {}))
        found |= {job["id"]: job["status"] for job in page["data"]}
        if not page.get("has_more"):
            break
        after = page["last_id"]
    for job_id in found.keys() - testbed.submitted.keys():
        yield f"nobody submitted job {job_id}"
    for job_id, status in testbed.submitted.items():
        if found.get(job_id) != status:
            yield f"job {job_id} should be {status}, is {found.get(job_id, 'lost')}"


def check_leftovers(run: FaultRun) -> list[str]:
    """No orphan process or actor, no leaked placement group, no temporary file: all of it gone within SETTLE_S."""
    end = time.monotonic() + SETTLE_S
    while True:
        left = [*_processes_left(run.testbed), *_files_left(run)]
        if not left:
            now = ray_inventory(run.testbed.farm)
            left = [f"Ray holds {now}, {run.testbed.baseline} is right"] if now != run.testbed.baseline else []
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.25)


def _processes_left(testbed: Testbed) -> Iterator[str]:
    ranks = testbed.farm.processes("ray::RankActor")
    if len(ranks) != GANGS:
        yield f"{len(ranks)} gangs"
    for process in testbed.farm.processes():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_STOPPED:
                yield f"process {process.pid} is still stopped: {title(process)}"


def _files_left(run: FaultRun) -> Iterator[str]:
    artifacts, farm = run.testbed.artifacts, run.farm
    keys = {info.key for info in artifacts.list("takes")}
    for key in keys:  # those of a take that was cancelled stay for its time
        if key.endswith(".ckpt") and latents_artifact(key.split("/")[1]) in keys:
            yield f"checkpoint {key} of a take that is done"
    for partial in artifacts.partials():
        yield f"unfinished write {partial.key}"
    for folder in (farm.home / "scratch").glob("*"):
        if not psutil.pid_exists(int(folder.name.rpartition("-")[2])):
            yield f"scratch of a process that is gone, {folder.name}"
        yield from (f"temporary file {path}" for path in folder.rglob("*"))
    for path in farm.home.glob("*.*.*"):
        yield f"temporary file {path}"
