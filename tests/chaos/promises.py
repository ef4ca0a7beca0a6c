"""What must be true after a run: bytes, jobs, and nothing left behind."""

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence

import httpx
import psutil

from serving.store.artifact_keys import latents_artifact
from tests.chaos.scene import Scene
from tests.chaos.stage import GANGS, SETTLE_S, Stage, census
from tests.farm_process import Json, title


def check_film(scene: Scene, job: Json, expected: Sequence[str]) -> Iterator[str]:
    """The film is the one that an undisturbed render makes, and what is downloaded is that film."""
    if not expected:
        yield "the film could not be rendered undisturbed"
        return
    if job["film"]["sha256"] != expected[0]:
        yield f"the film is {job['film']['sha256'][:12]}, undisturbed it is {expected[0][:12]}"
    content = httpx.get(f"{scene.farm.address}/v1/jobs/{job['id']}/film", timeout=60, trust_env=False).content
    if hashlib.sha256(content).hexdigest() != job["film"]["sha256"]:
        yield "what is downloaded is not the film"


def check_jobs(stage: Stage) -> Iterator[str]:
    """No accepted job is lost or doubled."""
    found: dict[str, str] = {}
    after: str | None = None
    while True:
        page = stage.farm.ask("GET", "/v1/jobs", params={"limit": 100} | ({"after": after} if after else {}))
        found |= {job["id"]: job["status"] for job in page["data"]}
        if not page.get("has_more"):
            break
        after = page["last_id"]
    for job_id in found.keys() - stage.submitted.keys():
        yield f"nobody submitted job {job_id}"
    for job_id, status in stage.submitted.items():
        if found.get(job_id) != status:
            yield f"job {job_id} should be {status}, is {found.get(job_id, 'lost')}"


def check_leftovers(scene: Scene) -> list[str]:
    """No orphan process or actor, no leaked placement group, no temporary file: all of it gone within SETTLE_S."""
    end = time.monotonic() + SETTLE_S
    while True:
        left = [*_processes_left(scene.stage), *_files_left(scene)]
        if not left:
            now = census(scene.stage.farm)
            left = [f"Ray holds {now}, {scene.stage.baseline} is right"] if now != scene.stage.baseline else []
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.25)


def _processes_left(stage: Stage) -> Iterator[str]:
    ranks = stage.farm.processes("ray::RankActor")
    if len(ranks) != GANGS:
        yield f"{len(ranks)} gangs"
    for process in stage.farm.processes():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_STOPPED:
                yield f"process {process.pid} is still stopped: {title(process)}"


def _files_left(scene: Scene) -> Iterator[str]:
    artifacts, farm = scene.stage.artifacts, scene.farm
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
