"""Every kind of fault that farms meet, and which of them a run meets."""

import contextlib
import itertools
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from testkit.chaos.fault_run import FaultRun, GuaranteeBroken, submit
from testkit.chaos.testbeds import SETTLE_S

OUTAGE_S = 10.0
"""Seconds that the artifact store fails."""

FULL_S = 6.0
"""Seconds that the disk is full."""

FAULTS_PER_RUN = 2


@dataclass(frozen=True)
class Fault:
    """Something that happens. `act` does it and returns when it is over as far as the one who does it is concerned."""

    name: str
    act: Callable[[FaultRun], None]
    testbed: str = ""
    """The only testbed on which it can happen; empty: on both."""


def kill(name: str) -> Callable[[FaultRun], None]:
    def act(run: FaultRun) -> None:
        run.rng.choice(_living(run, name)).kill()

    return act


def stop_gang(run: FaultRun) -> None:
    """A gang hangs: its process is there and does nothing, ever."""
    run.rng.choice(_living(run, "ray::RankActor")).suspend()


def kill_host(run: FaultRun) -> None:
    victim = run.rng.choice(_hosts(run))
    run.lose([victim])
    victim.kill()


def kill_everything(run: FaultRun) -> None:
    run.lose(_hosts(run))
    run.farm.kill_everything()
    run.seen.clear()
    run.farm.up()


def corrupt_checkpoint(run: FaultRun) -> None:
    """The newest checkpoint of each take that has an older one is torn, and then it is needed."""
    end = time.monotonic() + 60
    while not _torn_next(run) and run.look()["status"] != "completed" and time.monotonic() < end:
        time.sleep(0.05)
    hosts = _hosts(run)
    for host in hosts:
        host.suspend()  # so that none writes or removes one meanwhile
    for key in _torn_next(run):
        content = run.testbed.artifacts.get(key)
        run.testbed.artifacts.put(key, content[: run.rng.randrange(len(content))] + b"torn")
    run.lose(hosts)
    for host in hosts:
        host.kill()


def _hosts(run: FaultRun) -> list[psutil.Process]:
    return _living(run, "ray::TimelineHostActor")


def _living(run: FaultRun, name: str) -> list[psutil.Process]:
    """The processes of this name. A farm that was just started again may not have them yet."""
    end = time.monotonic() + SETTLE_S
    while not (found := run.farm.processes(name)):
        assert time.monotonic() < end, f"no process is called {name}"
        time.sleep(0.05)
    return sorted(found, key=lambda process: process.pid)


def _torn_next(run: FaultRun) -> list[str]:
    """The newest checkpoint of each take that has several."""
    keys = sorted(info.key for info in run.testbed.artifacts.list("takes") if info.key.endswith(".ckpt"))
    takes = [list(group) for _, group in itertools.groupby(keys, lambda key: key.rpartition("/")[0])]
    return [group[-1] for group in takes if len(group) > 1]


def pause_and_resume(run: FaultRun) -> None:
    for _ in range(2):
        if run.look()["status"] not in ("queued", "in_progress"):
            return
        with contextlib.suppress(AssertionError):  # it may have been completed in this moment
            run.farm.ask("POST", f"/v1/jobs/{run.job_id}/pause", json={"reason": "chaos"})
            time.sleep(run.rng.uniform(0, 1.0))
            run.farm.ask("POST", f"/v1/jobs/{run.job_id}/resume", json={})
        time.sleep(run.rng.uniform(0, 1.0))


def cancel_another(run: FaultRun) -> None:
    """The same film is submitted again under another seed, and cancelled at some moment."""
    board = run.board.with_name("other.yaml")
    board.write_text(run.board.read_text().replace("seed: ", "seed: 9"))
    other = submit(run, board, key=str(uuid.uuid4()))
    run.others.append(other)
    run.testbed.submitted[other] = "cancelled"
    time.sleep(run.rng.uniform(0, 3.0))
    run.farm.ask("POST", f"/v1/jobs/{other}/cancel", json={"reason": "chaos"})


def submit_three_times(run: FaultRun) -> None:
    """A client that hears no answer sends its request again, and again."""
    answers = {submit(run, run.board, key=run.key) for _ in range(2)}
    if answers != {run.job_id}:
        raise GuaranteeBroken(f"the same request made other jobs: {answers}")


def restart_postgres(run: FaultRun) -> None:
    assert run.testbed.postgres is not None
    run.testbed.postgres.stop()
    time.sleep(run.rng.uniform(0.5, 4.0))
    run.testbed.postgres.start()


def cut_artifacts(run: FaultRun) -> None:
    assert run.testbed.connection is not None
    run.outage = True
    run.testbed.connection.cut()
    time.sleep(OUTAGE_S)
    run.testbed.connection.mend()


def fill_disk(run: FaultRun) -> None:
    assert run.testbed.disk is not None
    run.outage = True
    run.testbed.disk.fill()
    time.sleep(FULL_S)
    run.testbed.disk.clear()


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
    Fault("Postgres restarted", restart_postgres, testbed="cloud"),
    Fault("artifacts cut off", cut_artifacts, testbed="cloud"),
    Fault("disk full", fill_disk, testbed="local"),
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
            fault = next((one for one in urn if one.testbed in ("", which_testbed(run)) and one not in faults), None)
            if fault is None:
                urn += sorted(rng.sample(FAULTS, len(FAULTS)), key=lambda one: not one.testbed)
                continue
            urn.remove(fault)
            faults.append(fault)
        rng.shuffle(faults)
        drawn[run] = tuple(faults)
    return drawn


def which_testbed(run: int) -> str:
    return ("cloud", "local")[run % 2]
