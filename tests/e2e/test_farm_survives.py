"""A real farm, started and used through the real command, that loses processes while it renders."""

import json
from pathlib import Path

import httpx
import pytest

from testkit.farm_process import Farm, calls_done, calls_planned, render

pytestmark = pytest.mark.farm

STORYBOARD = """
version: 1
title: Two takes
seed: {seed}
shots:
  - id: day
    prompt: a red ball moves right, day
    seconds: {seconds}
  - id: night
    prompt: a white star falls, night
    seconds: {seconds}
"""


@pytest.fixture(scope="module")
def farm(shared_farm: Farm) -> Farm:
    return shared_farm


def storyboard(folder: Path, *, seed: int, seconds: int = 3) -> Path:
    """A film of its own: the same one would come from the cache."""
    path = folder / "film.yaml"
    path.write_text(STORYBOARD.format(seed=seed, seconds=seconds))
    return path


def test_submit_wait_and_download_give_the_film_that_render_gives(farm: Farm, tmp_path: Path) -> None:
    board, out = storyboard(tmp_path, seed=7), tmp_path / "film.mp4"
    job_id = farm.run("submit", str(board), "--wait").split()[0]
    farm.run("download", job_id, "-o", str(out))
    assert json.loads(farm.run("show", job_id, "--json"))["film"]["sha256"] == render(board)
    assert out.stat().st_size > 1000
    exported = httpx.get(f"http://127.0.0.1:{farm.environment['LONGTAKE_METRICS_PORT']}/metrics", trust_env=False).text
    assert "longtake_calls_total" in exported
    assert sum(farm.calls().values()) > 0, "the API shows the same"


def test_everything_killed_in_mid_render_goes_on_from_the_checkpoint_to_the_same_bytes(
    farm: Farm, tmp_path: Path
) -> None:
    board = storyboard(tmp_path, seed=16, seconds=8)
    expected = render(board)
    job_id = farm.submit(board)
    checkpoints = farm.home / "artifacts" / "takes"
    half = farm.wait_for(
        job_id, lambda job: calls_done(job) > 0.5 * calls_planned(job) and any(checkpoints.rglob("*.ckpt"))
    )
    assert half["status"] == "in_progress"
    farm.kill_everything()
    farm.up()
    done = farm.wait_for(job_id, lambda job: job["status"] == "completed")
    assert done["film"]["sha256"] == expected
    assert farm.calls()["done"] < 0.8 * calls_planned(half), "it began anew instead of from its checkpoints"
    assert not list(checkpoints.rglob("*.ckpt"))
