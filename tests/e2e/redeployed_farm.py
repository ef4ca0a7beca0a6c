"""A farm that is deployed as a RayService does it, and deployed again with another configuration in mid-render.

`python -m tests.e2e.redeployed_farm FOLDER`, in a process of its own: Ray is not easily started twice in one. Fails
with an AssertionError, or prints what happened.
"""

import sys
from pathlib import Path
from typing import Any

import ray
from ray import serve

from serving.actors.named import APP
from serving.config.farm import FarmConfig, PoolConfig
from serving.settings import CONTROL_RESOURCE
from testkit.farm_process import calls_done, calls_planned, render, request
from testkit.json_object import Json
from tests.e2e.scaled_farm import LIMIT_S, deploy, places, wait_for

BOARD = """
version: 1
title: Beneath a change
quality: draft
shots:
  - {id: day, prompt: "a red ball moves right, day", seconds: 16}
"""
FIRST, NEW = PoolConfig(), PoolConfig(name="new", gang_shape="cfg=2")


def main(folder: Path) -> None:
    board = folder / "film.yaml"
    board.write_text(BOARD)
    (folder / "artifacts").mkdir()
    ray.init(address="local", num_cpus=12, resources={CONTROL_RESOURCE: 1}, log_to_driver=False)
    farm = FarmConfig(pools=(FIRST,), **places(folder))
    try:
        as_ray_service(farm)
        wait_for_gang(farm, "default")
        job = ask(farm, "POST", "/v1/jobs", json={"storyboard": board.read_text()})["id"]
        wait_for(lambda: share_done(farm, job) > 0.15, "it renders")
        before = wait_for_gang(farm, "default")

        changed = farm.model_copy(
            update={
                "pools": (FIRST.model_copy(update={"price_per_gpu_second": 0.5, "slots": 3}), NEW),
                "limits": farm.limits.model_copy(update={"active_jobs": 2}),
                "timeline_hosts": 2,
            }
        )
        as_ray_service(changed)
        wait_for_gang(farm, "new")
        done_by_then = share_done(farm, job)
        assert wait_for_gang(farm, "default") == before, "no gang goes because of what does not concern it"
        wait_for(lambda: ask(farm, "GET", f"/v1/jobs/{job}")["status"] == "completed", "the film is done")
        film = ask(farm, "GET", f"/v1/jobs/{job}")
        assert film["film"]["sha256"] == render(board)
        assert sum(take["retries"] for take in film["takes"]) == 0, "the calls that were out have ended"

        as_ray_service(changed.model_copy(update={"pools": (FIRST.model_copy(update={"drain_s": 20.0}), NEW)}))
        wait_for(lambda: pids(farm, "default") not in ([], before), "a gang that is told something else is replaced")
        print(f"the gang stayed, and the new Director went on at {done_by_then:.0%} of the film or before")
    finally:
        serve.shutdown()
        ray.shutdown()


def as_ray_service(farm: FarmConfig) -> None:
    front = {"name": APP, "import_path": "serving.app:build_front", "route_prefix": "/", "args": farm.as_json()}
    pools = [
        {"name": f"pool-{pool.name}", "import_path": "serving.app:build_pool", "route_prefix": None,
         "args": pool.for_gangs()}
        for pool in farm.pools
    ]  # fmt: skip
    deploy(farm, [front, *pools])


def share_done(farm: FarmConfig, job_id: str) -> float:
    job = ask(farm, "GET", f"/v1/jobs/{job_id}")
    assert job["status"] != "failed", job["error"]
    return calls_done(job) / max(1, calls_planned(job))


def pids(farm: FarmConfig, name: str) -> list[int]:
    """Processes of a pool's gang; nothing while it has none, or the Director does not know it."""
    pools = {pool["name"]: pool["live"] or {} for pool in ask(farm, "GET", "/v1/pools")["data"]}
    gangs = [gang for gang in pools.get(name, {}).get("gangs", []) if not gang["draining"]]
    return list(gangs[-1]["pids"]) if gangs else []


def wait_for_gang(farm: FarmConfig, name: str) -> list[int]:
    wait_for(lambda: bool(pids(farm, name)), f"pool {name} has a gang")
    return pids(farm, name)


def ask(farm: FarmConfig, method: str, path: str, **what: Any) -> Json:
    return request(farm.address, method, path, within_s=LIMIT_S, **what)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
