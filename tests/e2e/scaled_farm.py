"""A farm that scales, on a cluster whose autoscaler is real and whose GPU nodes are made up.

`python -m tests.e2e.scaled_farm FOLDER`, in a process namespace of its own (fake_autoscaler.in_own_namespace). Nodes
and farm are those of the chart, as Ray derives them from its worker groups and Serve from its RayService. One after
another:

grow    nothing to do -> a film -> gangs on new nodes -> the film is done -> the nodes are gone
drain   the pool is told to avoid spot nodes and to stay in one zone; a gang's node is drained by the API, and a
        timeline host's by `ray drain-node`, while the film renders
change  what no gang depends on is deployed, and a pool more, while the film renders; no gang is replaced
lose    and then a gang's node vanishes
move    the new pool's gang stands on two nodes; that of its second rank is drained while the gang renders

Prints a line for each. Fails with an AssertionError.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import ray

from serving.config.farm import MARKET_LABEL, FarmConfig
from serving.settings import COLD_START_S
from testkit.farm_process import calls_done, calls_planned, free_port, render, request
from testkit.json_object import Json
from tests.charts.chart_rendering import render as render_chart
from tests.charts.chart_rendering import serve_config, values_of
from tests.charts.test_chart_ray import node_types
from tests.e2e.fake_autoscaler import fake_cluster, kill_node

LIMIT_S = 240.0
MOST = 2
BOARD = """
version: 1
title: On nodes that come and go
quality: draft
shots:
  - {id: day, prompt: "a red ball moves right, day", seconds: 7}
  - {id: dusk, prompt: "a blue ball moves left, night", seconds: 7}
"""

TWO_RANKS = "ulysses=2"
WORKER: dict[str, Any] = {"gpus": 1, "cpu": 2, "memory": "4Gi", "maxReplicas": MOST}
CHART_VALUES: dict[str, Any] = {
    "pools": [
        {
            "name": "default",
            "model": "pocket",
            "maxGangs": MOST,
            "planner": {"drain_within_s": 1.0, "hold_s": 1.0, "idle_for_s": 1.0},
            "workers": [
                {**WORKER, "name": "spot", "spot": True, "maxReplicas": 1, "labels": {"zone": "a"}},
                {**WORKER, "name": "on-demand", "labels": {"zone": "a"}},
                {**WORKER, "name": "elsewhere", "labels": {"zone": "b"}},
            ],
        },
        {
            "name": "later",
            "model": "pocket",
            "gangShape": TWO_RANKS,
            "ranksPerNode": 1,
            "maxGangs": 1,
            "minGangs": 1,
            "workers": [{**WORKER, "name": "later"}],
        },
    ],
    "ray": {"control": {"replicas": 2}},
    "controller": {"enabled": False},
}
"""Over those of a ci file."""

HEAD_AND_CONTROL = 3
"""Nodes that stay if there is nothing to do."""


class ScaledFarm:
    """A farm in this process's cluster, asked over HTTP."""

    def __init__(self, folder: Path, applications: Sequence[Json]) -> None:
        """`applications` are those of the chart's RayService: the front, a pool, and one that is deployed later."""
        self.board = folder / "film.yaml"
        self.board.write_text(BOARD)
        self._takes = folder / "artifacts" / "takes"
        self._takes.parent.mkdir()
        self._front, self._pool, self._later = applications
        *_, self._told_later = self._front["args"]["pools"]
        self._front["args"] |= {**places(folder), "auth": "off", "pools": self._front["args"]["pools"][:1]}
        self.config = FarmConfig.model_validate(self._front["args"])
        deploy(self.config, [self._front, self._pool])
        self._undisturbed: dict[str, str] = {}
        """Sha256 of the film by shape of gang."""

    def avoid_spot(self, zone: str) -> None:
        """Deploy it again with a pool that stands on nodes of this zone alone, none of them spot."""
        [pool] = self._front["args"]["pools"]
        for told in (pool, self._pool["args"]):
            told |= {"spot": "avoid", "node_labels": {**told["node_labels"], "zone": zone}}
        deploy(self.config, [self._front, self._pool])
        wait_for(lambda: self.pool()["spot_applied"] == "avoid", "the farm was deployed again")

    def change_what_no_gang_depends_on(self) -> None:
        """Deploy it again with another price, other limits, a timeline host and a pool more."""
        [pool] = self._front["args"]["pools"]
        told = {**pool, "price_per_gpu_second": 0.5, "slots": 3}
        self._front["args"] |= {"pools": [told, self._told_later], "limits": {"active_jobs": 2}, "timeline_hosts": 2}
        deploy(self.config, [self._front, self._pool, self._later])
        wait_for(lambda: self.pool("later"), "the new Director is there")

    def ask(self, method: str, path: str, **what: Any) -> Json:
        return request(self.config.address, method, path, within_s=LIMIT_S, **what)

    def pool(self, name: str = "default") -> Json:
        """As it is shown; nothing of one that the Director does not know."""
        return next((dict(pool) for pool in self.ask("GET", "/v1/pools")["data"] if pool["name"] == name), {})

    def gangs(self, pool: str = "default") -> list[Json]:
        """Those that take calls."""
        gangs = (self.pool(pool).get("live") or {}).get("gangs", [])
        return [gang for gang in gangs if not gang["draining"]]

    def pids(self) -> set[int]:
        """Processes of its gangs."""
        return {pid for gang in self.gangs() for pid in gang["pids"]}

    def nodes(self) -> list[Json]:
        return list(self.ask("GET", "/v1/nodes")["data"])

    def drain(self, node: str) -> None:
        """Announce that a node goes."""
        asked = {"cause": "spot", "reason": "it was sold", "deadline_s": LIMIT_S}
        assert self.ask("POST", f"/v1/nodes/{node}/drain", json=asked)["state"] == "draining"

    def submit(self, pool: str = "default") -> str:
        """The same film anew: nothing of it is kept."""
        shutil.rmtree(self._takes, ignore_errors=True)
        return str(self.ask("POST", "/v1/jobs", json={"storyboard": self.board.read_text(), "pool": pool})["id"])

    def job(self, job_id: str) -> Json:
        job = self.ask("GET", f"/v1/jobs/{job_id}")
        assert job["status"] != "failed", job["error"]
        return job

    def has_done(self, job_id: str, share: float) -> bool:
        job = self.job(job_id)
        return calls_done(job) > share * max(1, calls_planned(job))

    def finish(self, job_id: str, *, gang: str = "1") -> Json:
        """The job when it is completed, and its film the one that an undisturbed gang of this shape makes."""
        wait_for(lambda: self.job(job_id)["status"] == "completed", "the film is done")
        job = self.job(job_id)
        if gang not in self._undisturbed:
            self._undisturbed[gang] = render(self.board, gang=gang)
        assert job["film"]["sha256"] == self._undisturbed[gang]
        return job


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


def grow(farm: ScaledFarm) -> str:
    wait_for(lambda: alive() == HEAD_AND_CONTROL, "the head and the control nodes are there, and no other")
    started = time.monotonic()
    job_id = farm.submit()
    wait_for(lambda: len({gang["node"] for gang in farm.gangs()}) == MOST, "every gang is there")
    grown_s = time.monotonic() - started
    assert farm.pool()["decision"]["gangs"] == MOST, farm.pool()
    markets = sorted(node["labels"][MARKET_LABEL] for node in farm.nodes() if node["gangs"])
    assert markets == ["on-demand", "spot"], "as many spot nodes as there may be, then others"
    farm.finish(job_id)
    ended = time.monotonic()
    wait_for(lambda: alive() == HEAD_AND_CONTROL, "the nodes of gangs are gone")
    pool = farm.pool()
    assert pool["decision"]["gangs"] == 0, pool
    assert pool["supply"]["cold_start_s"] != COLD_START_S, "it was measured"
    return f"{MOST} gangs after {grown_s:.1f} s, none {time.monotonic() - ended:.1f} s after the film"


def drain(farm: ScaledFarm, cluster: str) -> str:
    farm.avoid_spot("a")
    job_id = farm.submit()
    wait_for(lambda: farm.has_done(job_id, 0.1), "the film has begun")
    before = {node["id"]: node for node in farm.nodes()}
    drained = farm.gangs()[0]["node"]
    farm.drain(drained)
    [holder] = [node for node in before if before[node]["timeline_hosts"]]
    drain_by_command(cluster, holder)
    wait_for(lambda: hosts_elsewhere(farm, holder), "the timeline host has moved")
    assert farm.job(job_id)["status"] == "in_progress", "it moved in mid-render"
    film = farm.finish(job_id)
    assert drained not in {gang["node"] for gang in farm.gangs()}
    nothing_was_wasted(film)
    return "a gang and a timeline host have moved; nothing was wasted"


def change_and_lose(farm: ScaledFarm) -> str:
    job_id = farm.submit()
    wait_for(lambda: farm.has_done(job_id, 0.1) and len(farm.gangs()) > 1, "two gangs render")
    used = [node["labels"] for node in farm.nodes() if node["gangs"]]
    assert all((labels[MARKET_LABEL], labels["zone"]) == ("on-demand", "a") for labels in used), used
    before = farm.pids()
    farm.change_what_no_gang_depends_on()
    wait_for(lambda: len(farm.pids() & before) > 1, "the new Director knows the gangs that were there")
    assert before <= farm.pids(), "no gang goes because of what does not concern it"
    assert farm.job(job_id)["status"] == "in_progress", "it was changed in mid-render"
    victim = farm.gangs()[0]["node"]
    kill_node(victim)
    film = farm.finish(job_id)
    wait_for(lambda: next(node for node in farm.nodes() if node["id"] == victim)["state"] == "dead", "it is dead")
    retries = sum(take["retries"] for take in film["takes"])
    return f"no gang was replaced; a node was lost, {retries} of its calls were done again"


def move(farm: ScaledFarm) -> str:
    wait_for(lambda: farm.gangs("later"), "the pool that was new has its gang")
    job_id = farm.submit("later")
    wait_for(lambda: farm.has_done(job_id, 0.1), "the film has begun")
    [gang] = farm.gangs("later")
    [drained] = set(gang["nodes"]) - {gang["node"]}
    farm.drain(drained)
    wait_for(lambda: any(drained not in gang["nodes"] for gang in farm.gangs("later")), "the gang has moved")
    assert farm.job(job_id)["status"] == "in_progress", "it moved in mid-render"
    nothing_was_wasted(farm.finish(job_id, gang=TWO_RANKS))
    return "a gang left the node of one of its ranks"


def nothing_was_wasted(film: Json) -> None:
    assert sum(take["retries"] for take in film["takes"]) == 0, "a drain is nobody's failure"
    assert film["cost"]["wasted_gpu_seconds"] == 0, film["cost"]


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
    begun = time.monotonic()
    end = begun + LIMIT_S
    while not met():
        assert time.monotonic() < end, f"it did not happen: {what}"
        time.sleep(0.2)
    print(f"{time.monotonic() - begun:6.1f} s until {what}", flush=True)


def main(folder: Path) -> None:
    manifests = render_chart({**values_of("minimal"), **CHART_VALUES})
    types = {name: given for name, given in node_types(manifests).items() if name != "headgroup"}
    with fake_cluster(types, head={"CPU": 0}, idle_timeout_s=3.0) as cluster:
        farm = ScaledFarm(folder, serve_config(manifests)["applications"])
        print(grow(farm), flush=True)
        print(drain(farm, cluster), flush=True)
        print(change_and_lose(farm), flush=True)
        print(move(farm), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # Ray would take its time; what is left ends with the namespace
