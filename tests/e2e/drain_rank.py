"""A farm on a Ray cluster of several nodes, with a gang across two of them; one rank's node is drained in mid-render.

`python -m tests.e2e.drain_rank FOLDER`, in a process of its own: Ray is not easily started twice in one. Fails with
an AssertionError, or prints how long the gang took to move.
"""

import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray._private import worker
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from serving import app
from serving.config.farm import FarmConfig, PoolConfig
from serving.local_farm.ray_cluster import start_application
from serving.settings import CONTROL_RESOURCE
from testkit.farm_process import calls_done, calls_planned, render, request
from testkit.json_object import Json
from tests.e2e.scaled_farm import LIMIT_S, places, wait_for

GANG = "ulysses=2 x threads=2"
NODES = 3
BOARD = """
version: 1
title: Across nodes
quality: draft
shots:
  - {id: day, prompt: "a red ball moves right, day", seconds: 16}
"""


def main(folder: Path) -> None:
    board = folder / "film.yaml"
    board.write_text(BOARD)
    (folder / "artifacts").mkdir()
    # A node has room for one rank and not for the leader beside it, so the gang is on the head and two others.
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "resources": {CONTROL_RESOURCE: 1},
            "include_dashboard": False,
            "object_store_memory": 200 << 20,
        },
    )
    for _ in range(NODES):
        cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
    ray.init(address=cluster.address, log_to_driver=False)
    config = FarmConfig(
        pools=(PoolConfig(gang_shape=GANG, ranks_per_node=1),),
        **places(folder),
    )
    try:
        start_application(app.build(config.as_json()), config, deadline=time.monotonic() + LIMIT_S)
        before = wait_for_gang(config.address, without=())
        assert len(set(before["nodes"])) == 2, before
        job = ask(config.address, "POST", "/v1/jobs", json={"storyboard": board.read_text()})["id"]
        wait_for(lambda: began(ask(config.address, "GET", f"/v1/jobs/{job}")), "the film has begun")
        drained = next(node for node in before["nodes"] if node != before["node"])
        drain(drained)
        started = time.monotonic()
        after = wait_for_gang(config.address, without=(drained,))
        moved_s = time.monotonic() - started
        wait_for(lambda: ask(config.address, "GET", f"/v1/jobs/{job}")["status"] == "completed", "the film is done")
        film = ask(config.address, "GET", f"/v1/jobs/{job}")
        assert drained not in after["nodes"], after
        assert film["film"]["sha256"] == render(board, gang=GANG)
        assert sum(take["retries"] for take in film["takes"]) == 0, "a drain is nobody's failure"
        assert film["cost"]["wasted_gpu_seconds"] == 0, film["cost"]
        print(f"the gang has moved in {moved_s:.1f} s")
    finally:
        ray.shutdown()
        cluster.shutdown()


def drain(node: str) -> None:
    client: Any = vars(worker.global_worker)["gcs_client"]
    why = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + LIMIT_S) * 1000)
    accepted = client.drain_node(node, why, "a spot node goes", deadline_ms)
    assert accepted[0] if isinstance(accepted, tuple) else accepted


def began(job: Json) -> bool:
    assert job["status"] != "failed", job["error"]
    return calls_done(job) > 0.1 * max(1, calls_planned(job))


def wait_for_gang(address: str, *, without: tuple[str, ...]) -> Json:
    """The pool's gang, once it is on none of these nodes."""
    found: list[Json] = []

    def look() -> bool:
        [pool] = ask(address, "GET", "/v1/pools")["data"]
        gangs = (pool["live"] or {}).get("gangs", [])
        found[:] = [gang for gang in gangs if not set(without) & set(gang["nodes"])]
        return bool(found)

    wait_for(look, "the pool has a gang elsewhere" if without else "the pool has a gang")
    return found[0]


def ask(address: str, method: str, path: str, **what: Any) -> Json:
    return request(address, method, path, within_s=LIMIT_S, **what)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
