"""Gangs of several ranks on a real farm: pools of different shapes at once, and gangs that lose a rank."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from testkit.farm_process import Farm, calls_done, calls_planned, render

pytestmark = pytest.mark.slow

POOLS = {"plain": "1", "split": "ulysses=2", "both": "cfg=2 x ring=2"}
LIMIT_S = 120.0
STORYBOARD = """
version: 1
title: For a gang
seed: {seed}
quality: draft
shots:
  - {{id: day, prompt: "a red ball moves right, day", seconds: {seconds}}}
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    pools = {}
    for index, (name, shape) in enumerate(POOLS.items()):
        pools |= {f"LONGTAKE_POOLS__{index}__NAME": name, f"LONGTAKE_POOLS__{index}__GANG_SHAPE": shape}
    farm = Farm(tmp_path_factory.mktemp("gangs") / "home", extra=pools)
    farm.up()
    end = time.monotonic() + LIMIT_S
    while not all(ranks_of(farm, pool) for pool in POOLS):
        assert time.monotonic() < end, "the pools do not get their gangs"
        time.sleep(0.1)
    yield farm
    farm.down()


def storyboard(folder: Path, *, seed: int, seconds: int = 2) -> Path:
    path = folder / f"{seed}.yaml"
    path.write_text(STORYBOARD.format(seed=seed, seconds=seconds))
    return path


def submit(farm: Farm, board: Path, pool: str) -> str:
    return str(farm.ask("POST", "/v1/jobs", json={"storyboard": board.read_text(), "pool": pool})["id"])


def ranks_of(farm: Farm, pool: str) -> list[int]:
    """Process ids of the ranks of a pool's gang, rank 0 first; none while it is not formed."""
    pools = {one["name"]: one for one in farm.ask("GET", "/v1/pools")["data"]}
    gangs = (pools[pool]["live"] or {}).get("gangs", [])
    return list(gangs[-1]["pids"]) if gangs else []


def sha256(farm: Farm, job_id: str) -> str:
    job = farm.wait_for(job_id, lambda job: job["status"] == "completed")
    return str(job["film"]["sha256"])


def test_pools_of_different_shapes_at_once_give_the_films_that_render_gives(farm: Farm, tmp_path: Path) -> None:
    board = storyboard(tmp_path, seed=1)
    jobs = {pool: submit(farm, board, pool) for pool in POOLS}
    films = {pool: sha256(farm, job_id) for pool, job_id in jobs.items()}
    assert films == {pool: render(board, gang=shape) for pool, shape in POOLS.items()}
    job = farm.job(jobs["both"])
    assert job["cost"]["gpu_seconds"] > 0
    assert len(ranks_of(farm, "both")) == 4


@pytest.mark.parametrize(("fault", "index"), [("killed", 0), ("killed", 1), ("stopped", 1)])
def test_a_rank_that_is_lost_costs_its_call_and_leaves_the_other_ranks_as_they_are(
    farm: Farm, tmp_path: Path, fault: str, index: int
) -> None:
    board = storyboard(tmp_path, seed=20 + index + 2 * (fault == "killed"), seconds=8)
    before = {pool: ranks_of(farm, pool) for pool in POOLS}
    job_id = submit(farm, board, "split")
    farm.wait_for(job_id, lambda job: calls_done(job) > 0.1 * max(1, calls_planned(job)))
    victim = psutil.Process(before["split"][index])
    if fault == "killed":
        victim.kill()
    else:
        victim.suspend()
    film = sha256(farm, job_id)
    after = {pool: ranks_of(farm, pool) for pool in POOLS}
    assert film == render(board, gang=POOLS["split"])
    assert not psutil.pid_exists(victim.pid), "a rank that hangs is ended"
    assert after["split"][index] != before["split"][index]
    assert after["split"][1 - index] == before["split"][1 - index], "the rank that lives keeps its weights"
    assert {pool: after[pool] for pool in ("plain", "both")} == {pool: before[pool] for pool in ("plain", "both")}
    assert sum(take["retries"] for take in farm.job(job_id)["takes"]) <= 2, "one call computed, one beside it"


def run_alone(program: str, folder: Path) -> list[str]:
    """What a program says that starts a Ray of its own in a process of its own; Ray may have the last word."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", program, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_a_gang_with_a_rank_on_a_node_that_is_drained_moves_and_loses_nothing(tmp_path: Path) -> None:
    said = run_alone("tests.e2e.drain_rank", tmp_path)
    assert any(line.startswith("the gang has moved in ") for line in said), said


def test_a_farm_that_is_deployed_anew_keeps_its_gangs_and_its_film(tmp_path: Path) -> None:
    said = run_alone("tests.e2e.redeployed_farm", tmp_path)
    assert any(line.startswith("the gang stayed") for line in said), said
