"""What happens to farms: every kind of fault, and which of them a run meets."""

import contextlib
import itertools
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from tests.chaos.scene import Broken, Scene, submit
from tests.chaos.stage import SETTLE_S

OUTAGE_S = 10.0
"""Seconds that the artifact store fails."""

FULL_S = 6.0
"""Seconds that the disk is full."""

FAULTS_PER_RUN = 2


@dataclass(frozen=True)
class Fault:
    """Something that happens. `act` does it and returns when it is over as far as the one who does it is concerned."""

    name: str
    act: Callable[[Scene], None]
    stage: str = ""
    """Where alone it can happen."""


def kill(name: str) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        scene.rng.choice(_living(scene, name)).kill()

    return act


def stop_gang(scene: Scene) -> None:
    """A gang hangs: its process is there and does nothing, ever."""
    scene.rng.choice(_living(scene, "ray::RankActor")).suspend()


def kill_host(scene: Scene) -> None:
    victim = scene.rng.choice(_hosts(scene))
    scene.lose([victim])
    victim.kill()


def kill_everything(scene: Scene) -> None:
    scene.lose(_hosts(scene))
    scene.farm.kill_everything()
    scene.seen.clear()
    scene.farm.up()


def corrupt_checkpoint(scene: Scene) -> None:
    """The newest checkpoint of each take that has an older one is torn, and then it is needed."""
    end = time.monotonic() + 60
    while not _torn_next(scene) and scene.look()["status"] != "completed" and time.monotonic() < end:
        time.sleep(0.05)
    hosts = _hosts(scene)
    for host in hosts:
        host.suspend()  # so that none writes or removes one meanwhile
    for key in _torn_next(scene):
        content = scene.stage.artifacts.get(key)
        scene.stage.artifacts.put(key, content[: scene.rng.randrange(len(content))] + b"torn")
    scene.lose(hosts)
    for host in hosts:
        host.kill()


def _hosts(scene: Scene) -> list[psutil.Process]:
    return _living(scene, "ray::TimelineHostActor")


def _living(scene: Scene, name: str) -> list[psutil.Process]:
    """The processes of this name. A farm that was just started again may not have them yet."""
    end = time.monotonic() + SETTLE_S
    while not (found := scene.farm.processes(name)):
        assert time.monotonic() < end, f"no process is called {name}"
        time.sleep(0.05)
    return sorted(found, key=lambda process: process.pid)


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
    scene.outage = True
    scene.stage.connection.cut()
    time.sleep(OUTAGE_S)
    scene.stage.connection.mend()


def fill_disk(scene: Scene) -> None:
    assert scene.stage.disk is not None
    scene.outage = True
    scene.stage.disk.fill()
    time.sleep(FULL_S)
    scene.stage.disk.clear()


FAULTS = (
    Fault("gang killed", kill("ray::RankActor")),
    Fault("gang's leader killed", kill("ServeReplica:longtake:Renderer")),
    Fault("gang stopped", stop_gang),
    Fault("host killed", kill_host),
    Fault("decoder killed", kill("ServeReplica:longtake:Decoder")),
    Fault("Director killed", kill("ray::DirectorActor")),
    Fault("Api killed", kill("ServeReplica:longtake:Api")),
    Fault("everything killed", kill_everything),
    Fault("newest checkpoint torn", corrupt_checkpoint),
    Fault("submitted three times", submit_three_times),
    Fault("paused and resumed", pause_and_resume),
    Fault("another cancelled", cancel_another),
    Fault("Postgres restarted", restart_postgres, stage="cloud"),
    Fault("artifacts cut off", cut_artifacts, stage="cloud"),
    Fault("disk full", fill_disk, stage="local"),
)


def draw_faults(runs: Sequence[int], *, seed: int, per_run: int = FAULTS_PER_RUN) -> dict[int, tuple[Fault, ...]]:
    """Faults for each run, `per_run` at a time from one urn that is filled anew when nothing in it fits: all come about
    equally often. Those that only one farm can have go first, so that few runs meet them too."""
    rng = random.Random(seed)
    urn: list[Fault] = []
    drawn = {}
    for run in runs:
        faults: list[Fault] = []
        while len(faults) < per_run:
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
