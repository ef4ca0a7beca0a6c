"""Seeded faults during real renders on a real farm, and what must be true after each. Shared by the tests and
benchmarks/chaos.py.

A run renders one film that nobody has rendered before and meets two faults on the way, each when a drawn part of the
calls is done. What a fault may cost is written beside it.
"""

import contextlib
import hashlib
import itertools
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from serving.settings import QUALITY_STEPS
from serving.store.artifacts import Artifacts
from serving.store.names import latents_artifact
from tests.chaos.stage import CutConnection, SmallDisk, small_disk
from tests.farm_process import Farm, Json, calls_done, calls_planned, render, title
from tests.postgres import PrivatePostgres, private_postgres
from tests.s3 import s3_server

GANGS = 2
CHECKPOINT_STEPS = 2
"""Steps of a whole take between two checkpoints."""

OUTAGE_S = 10.0
"""Seconds that the artifact store fails."""

FULL_S = 6.0
"""Seconds that the disk is full."""

SETTLE_S = 90.0
"""Seconds after a film is done within which all that its faults left must be gone."""

FAULTS_PER_RUN = 2

SETTINGS = {
    "LONGTAKE_CHECKPOINT_EVERY_STEPS": str(CHECKPOINT_STEPS),
    "LONGTAKE_POOLS__0__GANGS": str(GANGS),
    "LONGTAKE_POOLS__0__MAX_GANGS": str(GANGS),
    "LONGTAKE_POOLS__0__MIN_GANGS": str(GANGS),
}

BOARD = """
version: 1
title: Chaos {seed}
seed: {seed}
quality: final
shots:
  - {{id: day, prompt: a red ball moves right, seconds: {first}}}
  - {{id: night, prompt: a white star falls at night, seconds: {second}}}
"""


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


@dataclass
class Scene:
    """One run: a job that is being rendered, and what has happened to it."""

    stage: Stage
    rng: random.Random
    board: Path
    job_id: str = ""
    key: str = ""
    """Idempotency-Key that it was submitted with."""
    others: list[str] = field(default_factory=list)
    """Other jobs that faults have sent."""
    calls: Counter[str] = field(default_factory=Counter)
    """Calls by how they ended, over all Directors, as far as they could be seen."""
    seen: Counter[str] = field(default_factory=Counter)
    progress: Counter[str] = field(default_factory=Counter)
    """Calls done of each take when it was last looked at."""
    fallen: int = 0
    """By how many calls its takes fell back, as far as it could be seen."""

    @property
    def farm(self) -> Farm:
        return self.stage.farm

    def look(self) -> Json:
        """The job now; adds what the Director counts to `calls`."""
        now = self.farm.calls()
        if now:
            reset = any(now[outcome] < self.seen[outcome] for outcome in self.seen)
            self.calls += now - (Counter() if reset else self.seen)
            self.seen = now
        job = self.farm.job(self.job_id)
        for take in job["takes"]:
            self.fallen += max(0, self.progress[take["key"]] - take["calls_done"])
            self.progress[take["key"]] = take["calls_done"]
        return job

    def wait_for(self, met: Callable[[Json], bool], *, within_s: float = 240) -> Json:
        end = time.monotonic() + within_s
        while not met(job := self.look()):
            if job["status"] == "failed":
                raise Broken(f"the job failed: {job['error']}")
            if time.monotonic() > end:
                raise Broken(f"nothing happened for {within_s:.0f} s: {job['status']}, {calls_done(job)} calls done")
            time.sleep(0.05)
        return job


class Broken(AssertionError):
    """A promise that a run saw broken."""


@dataclass(frozen=True)
class Fault:
    """Something that happens. `act` does it and returns when it is over as far as the one who does it is concerned."""

    name: str
    act: Callable[[Scene], None]
    repeats: Callable[[int], int] = lambda interval: 0
    """Calls that may have to be done again, from the calls of two takes between their checkpoints."""
    stage: str = ""
    """Where alone it can happen."""


# ---------------------------------------------------------------------------------------------- faults


def kill(name: str) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        victims = sorted(scene.farm.processes(name), key=lambda process: process.pid)
        assert victims, f"no process is called {name}"
        scene.rng.choice(victims).kill()

    return act


def stop_gang(scene: Scene) -> None:
    """A gang hangs: its process is there and does nothing, ever."""
    victims = scene.farm.processes("ray::RankActor")
    scene.rng.choice(sorted(victims, key=lambda process: process.pid)).suspend()


def kill_everything(scene: Scene) -> None:
    scene.farm.kill_everything()
    scene.seen.clear()
    scene.farm.up()


def corrupt_checkpoint(scene: Scene) -> None:
    """The newest checkpoint of each take that has an older one is torn, and then it is needed."""
    end = time.monotonic() + 60
    while not _torn_next(scene) and scene.look()["status"] != "completed" and time.monotonic() < end:
        time.sleep(0.05)
    hosts = scene.farm.processes("ray::TimelineHostActor")
    for host in hosts:
        host.suspend()  # so that none writes or removes one meanwhile
    for key in _torn_next(scene):
        content = scene.stage.artifacts.get(key)
        scene.stage.artifacts.put(key, content[: scene.rng.randrange(len(content))] + b"torn")
    for host in hosts:
        host.kill()


def _torn_next(scene: Scene) -> list[str]:
    """The newest checkpoint of each take that has several."""
    keys = sorted(info.key for info in scene.stage.artifacts.list("takes") if info.key.endswith(".ckpt"))
    takes = [list(group) for _, group in itertools.groupby(keys, lambda key: key.rpartition("/")[0])]
    return [group[-1] for group in takes if len(group) > 1]


def pause_and_resume(scene: Scene) -> None:
    for _ in range(2):
        if scene.look()["status"] not in ("queued", "in_progress"):
            return
        with contextlib.suppress(AssertionError):  # it may have been completed in this moment
            scene.farm.ask("POST", f"/v1/jobs/{scene.job_id}/pause", json={"reason": "chaos"})
            time.sleep(scene.rng.uniform(0, 1.0))
            scene.farm.ask("POST", f"/v1/jobs/{scene.job_id}/resume", json={})
        time.sleep(scene.rng.uniform(0, 1.0))


def cancel_another(scene: Scene) -> None:
    """The same film is submitted again under another seed, and cancelled at some moment."""
    board = scene.board.with_name("other.yaml")
    board.write_text(scene.board.read_text().replace("seed: ", "seed: 9"))
    other = submit(scene, board, key=str(uuid.uuid4()))
    scene.others.append(other)
    scene.stage.submitted[other] = "cancelled"
    time.sleep(scene.rng.uniform(0, 3.0))
    scene.farm.ask("POST", f"/v1/jobs/{other}/cancel", json={"reason": "chaos"})


def submit_three_times(scene: Scene) -> None:
    """A client that hears no answer sends its request again, and again."""
    answers = {submit(scene, scene.board, key=scene.key) for _ in range(2)}
    if answers != {scene.job_id}:
        raise Broken(f"the same request made other jobs: {answers}")


def restart_postgres(scene: Scene) -> None:
    assert scene.stage.postgres is not None
    scene.stage.postgres.stop()
    time.sleep(scene.rng.uniform(0.5, 4.0))
    scene.stage.postgres.start()


def cut_artifacts(scene: Scene) -> None:
    assert scene.stage.connection is not None
    scene.stage.connection.cut()
    time.sleep(OUTAGE_S)
    scene.stage.connection.mend()


def fill_disk(scene: Scene) -> None:
    assert scene.stage.disk is not None
    scene.stage.disk.fill()
    time.sleep(FULL_S)
    scene.stage.disk.clear()


def _since_checkpoint(interval: int) -> int:
    """What came after the newest checkpoint of each take: up to an interval, and what was done while it was written,
    which on a bucket beside a busy machine lasts as long as one or two more. The host goes on from what it finds, so
    this only tells going on from beginning anew."""
    return 3 * interval


FAULTS = (
    Fault("gang killed", kill("ray::RankActor")),
    Fault("gang's leader killed", kill("ServeReplica:longtake:Renderer")),
    Fault("gang stopped", stop_gang),
    Fault("host killed", kill("ray::TimelineHostActor"), _since_checkpoint),
    Fault("decoder killed", kill("ServeReplica:longtake:Decoder")),
    Fault("Director killed", kill("ray::DirectorActor")),
    Fault("Api killed", kill("ServeReplica:longtake:Api")),
    Fault("everything killed", kill_everything, _since_checkpoint),
    Fault("newest checkpoint torn", corrupt_checkpoint, lambda interval: 2 * _since_checkpoint(interval)),
    Fault("submitted three times", submit_three_times),
    Fault("paused and resumed", pause_and_resume, lambda interval: 2 * 2 * GANGS),
    Fault("another cancelled", cancel_another),
    Fault("Postgres restarted", restart_postgres, stage="cloud"),
    Fault("artifacts cut off", cut_artifacts, stage="cloud"),
    Fault("disk full", fill_disk, stage="local"),
)


def draw_faults(runs: Sequence[int], *, seed: int) -> dict[int, tuple[Fault, ...]]:
    """Faults for each run, two at a time from one urn that is filled anew when nothing in it fits: all come about
    equally often. Those that only one farm can have go first, so that few runs meet them too."""
    rng = random.Random(seed)
    urn: list[Fault] = []
    drawn = {}
    for run in runs:
        faults: list[Fault] = []
        while len(faults) < FAULTS_PER_RUN:
            fault = next((one for one in urn if one.stage in ("", stage_of(run)) and one not in faults), None)
            if fault is None:
                urn += sorted(rng.sample(FAULTS, len(FAULTS)), key=lambda one: not one.stage)
                continue
            urn.remove(fault)
            faults.append(fault)
        rng.shuffle(faults)
        drawn[run] = tuple(faults)
    return drawn


def stage_of(run: int) -> str:
    return ("cloud", "local")[run % 2]


# ---------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True)
class Outcome:
    """How a run went."""

    run: int
    stage: str
    faults: tuple[str, ...]
    moments: tuple[int, ...]
    """Percent of the calls that were done when each fault came."""
    seconds: float
    planned: int
    """Calls of the film."""
    repeated: int
    """Calls that were done more than once, as far as was seen."""
    allowed: int
    failed: int
    """Calls that ended otherwise than done: with a gang that died, a host that was lost."""
    wasted_s: float
    """GPU-seconds that the job was charged for nothing."""
    broken: tuple[str, ...]
    """Promises that were not kept."""


def play(stage: Stage, run: int, faults: Sequence[Fault], *, seed: int) -> Outcome:
    """One run. What it finds broken is in its outcome; it raises nothing for that."""
    rng = random.Random(f"{seed}/{run}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        board = Path(folder) / "film.yaml"
        film_seed = seed * 10_000 + run
        board.write_text(BOARD.format(seed=film_seed, first=rng.randint(4, 8), second=rng.randint(4, 8)))
        expected: list[str] = []
        scene = Scene(stage, rng, board)
        moments: list[int] = []
        broken: list[str] = []
        job: Json = {}
        try:
            scene.seen = stage.farm.calls()
            scene.key = str(uuid.uuid4())
            scene.job_id = submit(scene, board, key=scene.key)
            stage.submitted[scene.job_id] = "completed"
            for fault in faults:
                moments.append(_wait_for_a_moment(scene, rng, after=max(moments, default=0)))
                fault.act(scene)
            # The undisturbed film is made meanwhile, in a process of its own.
            beside = threading.Thread(target=lambda: expected.append(render(board)))
            beside.start()
            job = scene.wait_for(lambda job: job["status"] == "completed")
            beside.join()
            broken += check_film(scene, job, expected)
            broken += check_jobs(stage)
            broken += check_leftovers(scene)
        except AssertionError as error:
            broken.append(str(error) or repr(error))
        interval = _interval(job) if job else 0
        # The Director counts the calls of all jobs; where there was another one only falling back can be counted.
        repeated = scene.fallen if scene.others else max(0, scene.calls["done"] - (calls_planned(job) if job else 0))
        allowed = sum(fault.repeats(interval) for fault in faults)
        if repeated > allowed:
            broken.append(f"{repeated} calls were done again, {allowed} are allowed")
        return Outcome(
            run=run,
            stage=stage.name,
            faults=tuple(fault.name for fault in faults),
            moments=tuple(moments),
            seconds=time.monotonic() - started,
            planned=calls_planned(job) if job else 0,
            repeated=repeated,
            allowed=allowed,
            failed=sum(number for outcome, number in scene.calls.items() if outcome != "done"),
            wasted_s=job["cost"]["wasted_gpu_seconds"] if job else 0.0,
            broken=tuple(broken),
        )


def submit(scene: Scene, board: Path, *, key: str) -> str:
    """The id of the job that a storyboard becomes."""
    body = {"storyboard": board.read_text()}
    return str(scene.farm.ask("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key})["id"])


def _wait_for_a_moment(scene: Scene, rng: random.Random, *, after: int) -> int:
    """Let the job come to a drawn part of its calls; returns the percent that are done then."""
    wanted = rng.uniform(max(3, after), min(95, after + 50)) / 100
    job = scene.wait_for(
        lambda job: job["status"] == "completed" or calls_done(job) >= wanted * max(1, calls_planned(job))
    )
    return round(100 * calls_done(job) / max(1, calls_planned(job)))


def _interval(job: Json) -> int:
    """Calls of all takes between two checkpoints."""
    return int(calls_planned(job) * CHECKPOINT_STEPS / QUALITY_STEPS["final"])


# ---------------------------------------------------------------------------------------------- what must be true


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


def census(farm: Farm) -> Json:
    """The actors and placement groups of the farm's Ray."""
    raylet = title(next(process for process in farm.processes("raylet/raylet")))
    address = next(part.partition("=")[2] for part in raylet.split() if part.startswith("--gcs-address"))
    command = [sys.executable, "-m", "tests.chaos.census", address]
    done = subprocess.run(command, env=farm.environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: Json = json.loads(done.stdout.splitlines()[-1])
    return found


# ---------------------------------------------------------------------------------------------- stages


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
