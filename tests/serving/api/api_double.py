"""A farm for tests of the API: the real store, artifacts and admission behind a real server; only nothing renders."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from cluster.contract.pools_and_nodes import DrainRequest, NodeState
from serving.api.app import create_api
from serving.api.services import Services, open_services
from serving.config.farm import FarmConfig, LimitsConfig
from serving.director.node_states import find_node
from serving.director.ports import ClusterNode
from serving.errors import Fault
from serving.telemetry.histograms import ApiReport

WAIT_S = 10.0
"""Seconds that anything in these tests may take."""

STORYBOARD: dict[str, Any] = {
    "version": 1,
    "title": "Two balls",
    "quality": "draft",
    "shots": [
        {"id": "red", "prompt": "a red ball rolls", "seconds": 1.0},
        {"id": "blue", "prompt": "a blue ball rolls", "seconds": 1.0},
    ],
}

FILM = {"sha256": "ab" * 32, "frames": 32, "seconds": 2.0, "bytes": 1000, "width": 96, "height": 64, "fps": 16}


@dataclass
class DeafLive:
    """A Director that can be away."""

    away: bool = False
    pokes: int = 0
    said: dict[str, Any] = field(default_factory=dict)
    timelines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    there: list[NodeState] = field(default_factory=list)
    drains: dict[str, float] = field(default_factory=dict)
    """Seconds that each node was given."""
    reports: list[ApiReport] = field(default_factory=list)

    def hear_api(self, report: ApiReport) -> None:
        self._check()
        self.reports.append(report)

    def poke(self) -> None:
        self._check()
        self.pokes += 1

    def explain(self, job_id: str) -> dict[str, Any] | None:
        self._check()
        return self.said.get(job_id)

    def timeline(self, job_id: str) -> list[dict[str, Any]] | None:
        self._check()
        return self.timelines.get(job_id)

    def metrics(self) -> bytes:
        self._check()
        return b"longtake_jobs 1\n"

    def pools(self) -> list[dict[str, Any]]:
        self._check()
        return [{"name": "default", "gangs_ready": 2}]

    def nodes(self) -> list[dict[str, Any]]:
        self._check()
        return [node.model_dump(mode="json") for node in self.there]

    def drain(self, node_id: str, request: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """As a Director would; of the request the deadline matters alone."""
        self._check()
        node = find_node(
            [ClusterNode(one.id, "", "", {}, one.state, one.name == "head", True, None) for one in self.there], node_id
        )
        asked = DrainRequest.model_validate(request).deadline_s
        changed = asked < self.drains.get(node.id, float("inf"))
        self.drains[node.id] = min(asked, self.drains.get(node.id, asked))
        return next(one for one in self.nodes() if one["id"] == node_id), changed

    def _check(self) -> None:
        if self.away:
            raise Fault("the Director is not reachable")


@dataclass
class ApiDouble:
    """The running API and what stands behind it."""

    app: FastAPI
    services: Services
    live: DeafLive
    url: str
    http: httpx.Client

    def submit(self, **options: Any) -> dict[str, Any]:
        """A job that is accepted."""
        answer = self.http.post("/v1/jobs", json={"storyboard": STORYBOARD, **options})
        assert answer.status_code == 201, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def complete(self, job_id: str, film: bytes = b"a film") -> None:
        """Have the film there, as a Director would."""
        self.services.artifacts.put(f"films/{job_id}/film.mp4", film)
        self.services.artifacts.put(f"films/{job_id}/film.json", b'{"frames": 32}')
        self.services.artifacts.put(f"films/{job_id}/thumbnail.jpg", b"a picture")
        self.services.artifacts.put(f"films/{job_id}/spritesheet.jpg", b"pictures")
        self.act(job_id, "start")
        self.act(job_id, "complete", film=FILM)

    def act(self, job_id: str, action: Any, **values: Any) -> None:
        """What the Director, or anybody, does to a job."""
        self.services.lifecycle.apply(job_id, action, reason=f"{action} by a test", now=time.time(), **values)

    def key(self, tenant: str) -> dict[str, str]:
        """Headers with a new key of a tenant."""
        _, secret = self.services.keys.create(tenant, "test", time.time())
        return {"Authorization": f"Bearer {secret}"}


def make_config(folder: Path, **values: Any) -> FarmConfig:
    """A farm with one pool of pocket, and much room."""
    limits = LimitsConfig(**{"requests_per_minute": 100_000, **values.pop("limits", {})})
    return FarmConfig(
        store_url=values.pop("store_url", f"sqlite:///{folder / 'farm.db'}"),
        artifacts_url=str(folder / "artifacts"),
        scratch=str(folder / "scratch"),
        poll_s=0.02,
        limits=limits,
        **values,
    )


@contextlib.contextmanager
def running(folder: Path, *, clock: Callable[[], float] = time.time, **values: Any) -> Iterator[ApiDouble]:
    """The API at a free port of this machine, for as long as the block lasts."""
    live = DeafLive()
    services = replace(open_services(make_config(folder, **values), live), clock=clock)
    app = create_api(services)
    try:
        with serving_at(app) as url, httpx.Client(base_url=url, timeout=WAIT_S) as http:
            yield ApiDouble(app, services, live, url, http)
    finally:
        services.database.close()


@contextlib.contextmanager
def serving_at(app: Any) -> Iterator[str]:
    """An ASGI application behind uvicorn in a thread; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(WAIT_S)
        assert not thread.is_alive()


def wait_until(condition: Callable[[], bool]) -> None:
    """Returns once it holds; fails if it does not in time."""
    until = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
