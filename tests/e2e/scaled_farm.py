"""A farm that scales, on a cluster whose autoscaler is real and whose GPU nodes are made up.

`python -m tests.e2e.scaled_farm SCENARIO FOLDER`, in a process namespace of its own (fake_autoscaler.in_own_namespace):

grow    nothing to do -> a film -> gangs on new nodes -> the film is done -> the nodes are gone; nodes and farm are
        those of the chart, as Ray derives them from its worker groups and Serve from its RayService
drain   a gang's node is drained by the API, and a timeline host's by `ray drain-node`, while the film renders
lose    a gang's node vanishes while the film renders

Fails with an AssertionError, or prints what happened.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import ray

from serving import app
from serving.config.farm import MARKET_LABEL, FarmConfig, PoolConfig, ScalingConfig
from serving.local_farm.ray_cluster import start_application
from serving.settings import CONTROL_RESOURCE
from testkit.farm_process import Json, calls_done, calls_planned, free_port, render, request
from tests.e2e.fake_autoscaler import NodeTypes, fake_cluster, kill_node

LIMIT_S = 240.0
MOST = 3
BOARD = """
version: 1
title: On nodes that come and go
quality: draft
shots:
  - {{id: day, prompt: "a red ball moves right, day", seconds: {seconds}}}
  - {{id: dusk, prompt: "a blue ball moves left, night", seconds: {seconds}}}
"""

GPU: dict[str, Any] = {"resources": {"CPU": 2, "GPU": 1}, "max_workers": MOST}
GPU_NODES: NodeTypes = {
    "gpu": {**GPU, "labels": {MARKET_LABEL: "on-demand", "zone": "a"}},
    "spot": {**GPU, "labels": {MARKET_LABEL: "spot", "zone": "a"}},
    "elsewhere": {**GPU, "labels": {MARKET_LABEL: "on-demand", "zone": "b"}},
}
"""Of which the pool may use the first kind alone."""

CONTROL_NODES: NodeTypes = {
    "control": {"resources": {"CPU": 1, CONTROL_RESOURCE: 1}, "min_workers": 2, "max_workers": 2}
}


class ScaledFarm:
    """A farm in this process's cluster, asked over HTTP."""

    def __init__(self, folder: Path, config: FarmConfig, *, start: Callable[[], None], seconds: int = 24) -> None:
        self.board = folder / "film.yaml"
        self.board.write_text(BOARD.format(seconds=seconds))
        (folder / "artifacts").mkdir()
        self.config = config
        start()

    def ask(self, method: str, path: str, **what: Any) -> Json:
        return request(self.config.address, method, path, within_s=LIMIT_S, **what)

    def pool(self) -> Json:
        [pool] = self.ask("GET", "/v1/pools")["data"]
        return dict(pool)

    def gangs(self) -> list[Json]:
        """Those that take calls."""
        gangs = (self.pool()["live"] or {}).get("gangs", [])
        return [gang for gang in gangs if not gang["draining"]]

    def nodes(self) -> list[Json]:
        return list(self.ask("GET", "/v1/nodes")["data"])

    def submit(self) -> str:
        return str(self.ask("POST", "/v1/jobs", json={"storyboard": self.board.read_text()})["id"])

    def job(self, job_id: str) -> Json:
        job = self.ask("GET", f"/v1/jobs/{job_id}")
        assert job["status"] != "failed", job["error"]
        return job

    def has_done(self, job_id: str, share: float) -> bool:
        job = self.job(job_id)
        return calls_done(job) > share * max(1, calls_planned(job))

    def finish(self, job_id: str) -> Json:
        wait_for(lambda: self.job(job_id)["status"] == "completed", "the film is done")
        return self.job(job_id)


def places(folder: Path) -> dict[str, Any]:
    """Where a farm of this machine keeps what it keeps, and listens."""
    return {
        "host": "127.0.0.1",
        "port": free_port(),
        "metrics_port": 0,
        "store_url": f"sqlite:///{folder / 'farm.db'}",
        "artifacts_url": str(folder / "artifacts"),
        "scratch": str(folder / "scratch"),
    }


def start_farm(folder: Path, *, min_gangs: int, hold_s: float) -> ScaledFarm:
    """As `longtake up` starts one."""
    scaling = ScalingConfig(drain_within_s=1.0, hold_s=hold_s, idle_for_s=1.0)
    pool = PoolConfig(
        gpus_per_rank=1, min_gangs=min_gangs, max_gangs=MOST, scaling=scaling, spot="avoid", node_labels={"zone": "a"}
    )
    config = FarmConfig(pools=(pool,), **places(folder))

    def start() -> None:
        start_application(app.build(config.as_json()), config, deadline=time.monotonic() + LIMIT_S)

    return ScaledFarm(folder, config, start=start)


CHART_VALUES: dict[str, Any] = {
    "pools": [
        {
            "name": "default",
            "model": "pocket",
            "maxGangs": MOST,
            "planner": {"drain_within_s": 1.0, "hold_s": 1.0, "idle_for_s": 1.0},
            "workers": [
                {"name": "spot", "spot": True, "maxReplicas": 2, "gpus": 1, "cpu": 2, "memory": "4Gi"},
                {"name": "on-demand", "maxReplicas": 1, "gpus": 1, "cpu": 2, "memory": "4Gi"},
            ],
        }
    ],
    "controller": {"enabled": False},
}
"""Over those of a ci file."""


def grow(folder: Path) -> str:
    from tests.charts.chart_rendering import render as render_chart
    from tests.charts.chart_rendering import serve_config, values_of
    from tests.charts.test_chart_ray import node_types

    manifests = render_chart({**values_of("minimal"), **CHART_VALUES})
    types = {name: given for name, given in node_types(manifests).items() if name != "headgroup"}
    with fake_cluster(types, head={"CPU": 0}, idle_timeout_s=3.0):
        front, *pools = serve_config(manifests)["applications"]
        front["args"] |= {**places(folder), "auth": "off"}
        config = FarmConfig.model_validate(front["args"])
        farm = ScaledFarm(folder, config, start=lambda: deploy(config, [front, *pools]))
        wait_for(lambda: alive() == 2, "the head and a control node are there, and no other")
        started = time.monotonic()
        job_id = farm.submit()
        wait_for(lambda: len({gang["node"] for gang in farm.gangs()}) == MOST, "every gang is there")
        grown_s = time.monotonic() - started
        assert farm.pool()["decision"]["gangs"] == MOST, farm.pool()
        markets = sorted(node["labels"][MARKET_LABEL] for node in farm.nodes() if node["gangs"])
        assert markets == ["on-demand", "spot", "spot"], "as many spot nodes as there may be, then others"
        film = farm.finish(job_id)
        ended = time.monotonic()
        wait_for(lambda: alive() == 2, "the nodes of gangs are gone")
        pool = farm.pool()
        assert pool["decision"]["gangs"] == 0, pool
        assert pool["supply"]["cold_start_s"] < LIMIT_S / 2, "it was measured"
        assert film["film"]["sha256"] == render(farm.board)
        return f"{MOST} gangs after {grown_s:.1f} s, none {time.monotonic() - ended:.1f} s after the film"


def deploy(config: FarmConfig, applications: Sequence[Mapping[str, Any]]) -> None:
    """As KubeRay hands a RayService's serveConfigV2 to Serve."""
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    serve.start(proxy_location="HeadOnly", http_options={"host": config.host, "port": config.port})
    client: Any = _get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": list(applications)}))
    wait_for(lambda: is_ready(config), "the farm is there")


def is_ready(config: FarmConfig) -> bool:
    """Serve's proxy answers 404, or not at all, while the application starts."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{config.address}/readyz", timeout=10, trust_env=False).is_success
    return False


def drain(folder: Path) -> str:
    with fake_cluster(GPU_NODES | CONTROL_NODES, head={"CPU": 1}, idle_timeout_s=60.0) as cluster:
        wait_for(lambda: alive() == 3, "the control nodes are there")
        farm = start_farm(folder, min_gangs=1, hold_s=60.0)
        job_id = farm.submit()
        wait_for(lambda: farm.has_done(job_id, 0.1), "the film has begun")
        before = {node["id"]: node for node in farm.nodes()}
        drained = farm.gangs()[0]["node"]
        asked = {"cause": "spot", "reason": "it was sold", "deadline_s": LIMIT_S}
        assert farm.ask("POST", f"/v1/nodes/{drained}/drain", json=asked)["state"] == "draining"
        [holder] = [node for node in before if before[node]["timeline_hosts"]]
        drain_by_command(cluster, holder)
        wait_for(lambda: hosts_elsewhere(farm, holder), "the timeline host has moved")
        assert farm.job(job_id)["status"] == "in_progress", "it moved in mid-render"
        film = farm.finish(job_id)
        assert drained not in {gang["node"] for gang in farm.gangs()}
        assert film["film"]["sha256"] == render(farm.board)
        assert sum(take["retries"] for take in film["takes"]) == 0, "a drain is nobody's failure"
        assert film["cost"]["wasted_gpu_seconds"] == 0, film["cost"]
        return "a gang and a timeline host have moved; nothing was wasted"


def lose(folder: Path) -> str:
    with fake_cluster(GPU_NODES, head={"CPU": 1, CONTROL_RESOURCE: 1}, idle_timeout_s=60.0):
        farm = start_farm(folder, min_gangs=1, hold_s=60.0)
        job_id = farm.submit()
        wait_for(lambda: farm.has_done(job_id, 0.1) and len(farm.gangs()) > 1, "two gangs render")
        used = [node["labels"] for node in farm.nodes() if node["gangs"]]
        assert all((labels[MARKET_LABEL], labels["zone"]) == ("on-demand", "a") for labels in used), used
        victim = farm.gangs()[0]["node"]
        kill_node(victim)
        film = farm.finish(job_id)
        assert film["film"]["sha256"] == render(farm.board)
        wait_for(lambda: next(node for node in farm.nodes() if node["id"] == victim)["state"] == "dead", "it is dead")
        return f"a node was lost, {sum(take['retries'] for take in film['takes'])} of its calls were done again"


def hosts_elsewhere(farm: ScaledFarm, node: str) -> bool:
    return any(one["timeline_hosts"] and one["id"] != node for one in farm.nodes())


def drain_by_command(cluster: str, node: str) -> None:
    command = [
        str(Path(sys.executable).with_name("ray")), "drain-node", f"--address={cluster}", f"--node-id={node}",
        "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=a spot node goes",
        f"--deadline-remaining-seconds={LIMIT_S:.0f}",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def alive() -> int:
    """Nodes of the cluster, the head among them."""
    return sum(bool(node["Alive"]) for node in ray.nodes())


def wait_for(met: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not met():
        assert time.monotonic() < end, f"it did not happen: {what}"
        time.sleep(0.2)


SCENARIOS = {scenario.__name__: scenario for scenario in (grow, drain, lose)}

if __name__ == "__main__":
    print(SCENARIOS[sys.argv[1]](Path(sys.argv[2])), flush=True)
    os._exit(0)  # Ray would take its time; what is left ends with the namespace
