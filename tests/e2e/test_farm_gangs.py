"""Gangs of several ranks on a real farm: pools of different shapes at once, and gangs that lose a rank."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from testkit.farm_process import TIME_LIMIT_S, Farm, calls_done, calls_planned, render
from testkit.shared_farm import SHAPES, gang_pids

pytestmark = pytest.mark.farm

STORYBOARD = """
version: 1
title: For a gang
seed: 20
quality: draft
shots:
  - {id: day, prompt: "a red ball moves right, day", seconds: 4}
"""


@pytest.fixture(scope="module")
def farm(shared_farm: Farm) -> Farm:
    return shared_farm


def submit(farm: Farm, board: Path, pool: str) -> str:
    return str(farm.ask("POST", "/v1/jobs", json={"storyboard": board.read_text(), "pool": pool})["id"])


def sha256(farm: Farm, job_id: str) -> str:
    job = farm.wait_for(job_id, lambda job: job["status"] == "completed")
    return str(job["film"]["sha256"])


def test_pools_of_different_shapes_at_once_give_the_films_that_render_gives_though_one_loses_ranks(
    farm: Farm, tmp_path: Path
) -> None:
    board = tmp_path / "film.yaml"
    board.write_text(STORYBOARD)
    jobs = {pool: submit(farm, board, pool) for pool in SHAPES}
    others = {pool: gang_pids(farm, pool) for pool in ("plain", "both")}
    lose_rank(farm, jobs["split"], psutil.Process.kill, index=0, at=0.1)
    lose_rank(farm, jobs["split"], psutil.Process.suspend, index=1, at=0.5)
    films = {pool: sha256(farm, job_id) for pool, job_id in jobs.items()}
    assert {pool: gang_pids(farm, pool) for pool in others} == others
    assert len(others["both"]) == 4
    assert films == {pool: render(board, gang=shape) for pool, shape in SHAPES.items()}
    retries = sum(take["retries"] for take in farm.job(jobs["split"])["takes"])
    assert retries <= 4, "of each lost rank, one call computed and one beside it"
    assert farm.job(jobs["both"])["cost"]["gpu_seconds"] > 0
    out = tmp_path / "film.mp4"
    farm.run("download", jobs["split"], "-o", str(out))
    assert hashlib.sha256(out.read_bytes()).hexdigest() == films["split"]
    exported = httpx.get(f"http://127.0.0.1:{farm.environment['LONGTAKE_METRICS_PORT']}/metrics", trust_env=False).text
    assert 'longtake_calls_total{outcome="done",pool="both"' in exported
    assert farm.calls()["done"] > 0, "the API shows the same"


def lose_rank(farm: Farm, job_id: str, fault: Callable[[psutil.Process], None], *, index: int, at: float) -> None:
    """Break a rank of pool `split` when this share of a job is done; returns when another process is in its place."""
    farm.wait_for(job_id, lambda job: calls_done(job) > at * max(1, calls_planned(job)))
    before = gang_pids(farm, "split")
    victim = psutil.Process(before[index])
    fault(victim)
    end = time.monotonic() + TIME_LIMIT_S
    while (after := gang_pids(farm, "split")) in ([], before):
        assert time.monotonic() < end, "the gang does not get another rank"
        time.sleep(0.1)
    assert not victim.is_running(), "a rank that hangs is ended"
    assert after[index] != before[index]
    assert after[1 - index] == before[1 - index], "the rank that lives keeps its weights"
