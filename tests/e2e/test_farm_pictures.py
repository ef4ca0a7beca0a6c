"""A film from pictures on a real farm: by the command line and by HTTP, with the bytes of a render, though a gang is
killed."""

import hashlib
import re
import time
from pathlib import Path

import httpx
import psutil
import pytest

from testkit.farm_process import TIME_LIMIT_S, Farm, calls_done, render
from testkit.shared_farm import gang_pids

pytestmark = pytest.mark.farm

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"

STORYBOARD = """
version: 1
title: From pictures, for a farm
seed: 41
quality: draft
shots:
  - {id: cross, prompt: "a red ball moving right, day", seconds: 4, image: PLACE/open.png,
     keyframes: [{at: 1.5, image: PLACE/middle.png}]}
  - {id: wish, prompt: "a white star falling, night", seconds: 1.5, image: PLACE/star.png, transition: {dissolve: 0.5}}
"""


def kill_a_gang(farm: Farm, job_id: str, pool: str) -> None:
    """With SIGKILL, in the middle of a job; returns when another is in its place."""
    farm.wait_for(job_id, lambda job: calls_done(job) > 2)
    before = gang_pids(farm, pool)
    psutil.Process(before[0]).kill()
    end = time.monotonic() + TIME_LIMIT_S
    while gang_pids(farm, pool) in ([], before):
        assert time.monotonic() < end, "no other gang comes"
        time.sleep(0.1)


def test_a_film_from_pictures_has_the_bytes_of_a_render_however_it_is_sent(shared_farm: Farm, tmp_path: Path) -> None:
    farm, board = shared_farm, tmp_path / "film.yaml"
    board.write_text(STORYBOARD.replace("PLACE", str(PICTURES)))
    job_id = farm.run("submit", str(board), "--pool", "plain").strip()
    kill_a_gang(farm, job_id, "plain")
    first = farm.wait_for(job_id, lambda job: job["status"] == "completed")
    expected = render(board)
    assert first["film"]["sha256"] == expected

    names: dict[str, str] = {}
    for name in sorted(set(re.findall(r"PLACE/(\w+\.png)", STORYBOARD))):
        content = (PICTURES / name).read_bytes()
        sent = httpx.post(f"{farm.address}/v1/assets", content=content, trust_env=False)
        assert sent.status_code == 200, "the command line has sent it already"
        assert sent.json()["id"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        names[f"PLACE/{name}"] = f'"{sent.json()["id"]}"'
    by_http = STORYBOARD
    for name, asset_id in names.items():
        by_http = by_http.replace(name, asset_id)
    second = farm.ask("POST", "/v1/jobs", json={"storyboard": by_http, "pool": "plain"})["id"]
    again = farm.wait_for(second, lambda job: job["status"] == "completed")
    assert again["film"]["sha256"] == expected
    assert all(take["cached"] for take in again["takes"]), "it is the same film, so nothing is rendered"
