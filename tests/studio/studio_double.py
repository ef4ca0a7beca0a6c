"""A whole farm with its studio in the process of the test: the real Api, store, Director, gang and decoder, no Ray.

It is there in about a second. A page sees no difference to a farm that `longtake up` starts.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from cluster.contract.pools_and_nodes import DrainRequest
from serving.api.app import create_api
from serving.api.services import Services, open_services
from serving.config.farm import LimitsConfig
from serving.director.director import Director
from serving.director.testing import LocalFarm
from serving.director.timelines import describe_timeline
from serving.errors import Fault
from serving.telemetry.histograms import ApiReport
from tests.serving.api.api_double import WAIT_S, serving_at

Found = TypeVar("Found")

PATIENCE_S = 60.0
"""Seconds that the Director is waited for: here it stands still while the libraries of models are imported."""

FILM_S = 240.0
"""Seconds that a short film may take on a busy machine."""


@dataclass
class LocalLive:
    """The Director as the API asks it, from threads; it can be away."""

    director: Director
    loop: asyncio.AbstractEventLoop
    away: bool = False

    def poke(self) -> None:
        self._check()
        self.loop.call_soon_threadsafe(self.director.poke)

    def explain(self, job_id: str) -> dict[str, Any] | None:
        return self._ask(lambda: self.director.explain(job_id))

    def timeline(self, job_id: str) -> list[dict[str, Any]] | None:
        def look() -> list[dict[str, Any]] | None:
            run = self.director.runs.get(job_id)
            return None if run is None else describe_timeline(run, self.director.state)

        return self._ask(look)

    def metrics(self) -> bytes:
        return self._ask(lambda: self.director.metrics.text())

    def hear_api(self, report: ApiReport) -> None:
        self._ask(lambda: self.director.hear_api(report))

    def pools(self) -> list[dict[str, Any]]:
        return self._ask(self.director.pools)

    def nodes(self) -> list[dict[str, Any]]:
        return [node.model_dump(mode="json") for node in self._run(self.director.nodes)]

    def drain(self, node_id: str, request: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        asked = DrainRequest.model_validate(request)
        node, changed = self._run(lambda: self.director.drain(node_id, asked))
        return node.model_dump(mode="json"), changed

    def _ask(self, look: Callable[[], Found]) -> Found:
        async def once() -> Found:
            return look()

        return self._run(once)

    def _run(self, work: Callable[[], Coroutine[Any, Any, Found]]) -> Found:
        self._check()
        try:
            return asyncio.run_coroutine_threadsafe(work(), self.loop).result(PATIENCE_S)
        except TimeoutError as error:
            raise Fault("the Director is not reachable") from error

    def _check(self) -> None:
        if self.away:
            raise Fault("the Director is not reachable")


@dataclass
class Studio:
    """The running farm."""

    address: str
    http: httpx.Client
    farm: LocalFarm
    services: Services
    live: LocalLive
    key: str = ""
    """One of an administrator, where the farm asks for keys."""

    def submit(self, storyboard: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """A job that is accepted."""
        answer = self.http.post("/v1/jobs", json={"storyboard": storyboard, **options})
        assert answer.status_code == 201, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return found

    def finished(self, job_id: str) -> dict[str, Any]:
        """The job when it is over."""
        until = time.monotonic() + FILM_S
        while (job := self.job(job_id))["status"] not in ("completed", "failed", "cancelled"):
            assert time.monotonic() < until, job
            time.sleep(0.02)
        return job

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No gang begins another call, so that what a page shows stays as it is. After some ten seconds the Director
        takes the gang for a stuck one."""
        lines = [gang.line for gang in self.farm.gangs.values()]
        for line in lines:
            asyncio.run_coroutine_threadsafe(line.acquire(), self.live.loop).result(PATIENCE_S)
        try:
            yield
        finally:
            for line in lines:
                self.live.loop.call_soon_threadsafe(line.release)

    def new_key(self, tenant: str) -> str:
        return self.services.keys.create(tenant, "test", self.services.clock())[1]


@contextlib.contextmanager
def running_studio(folder: Path, *, model: str = "pocket", gangs: int = 1, **config: Any) -> Iterator[Studio]:
    """A farm with one pool and its studio, for as long as the block lasts. `config` as in farm.yaml; `auth="on"` asks
    for keys."""
    quick = {"limits": LimitsConfig(requests_per_minute=100_000), "checkpoint_every_s": 1.0, "poll_s": 0.2}
    config = {**quick, **config}
    farm = LocalFarm(folder, model=model, gangs=gangs, config=config)
    with _directing(farm) as live:
        services = open_services(farm.config, live)
        try:
            with serving_at(create_api(services)) as address:
                studio = Studio(address, httpx.Client(base_url=address, timeout=WAIT_S), farm, services, live)
                with studio.http:
                    if farm.config.needs_keys:
                        studio.key = studio.new_key("admin")
                        studio.http.headers["Authorization"] = f"Bearer {studio.key}"
                    yield studio
        finally:
            services.database.close()


@contextlib.contextmanager
def _directing(farm: LocalFarm) -> Iterator[LocalLive]:
    """The farm's Director at work in a thread of its own."""
    loop = asyncio.new_event_loop()
    ending = asyncio.Event()
    director = farm.director()

    async def work() -> None:
        async with farm.running(director):
            await ending.wait()
            await director.stop()
        late = asyncio.all_tasks() - {asyncio.current_task()}
        if late:  # calls that were out are charged when they come back
            await asyncio.wait(late, timeout=WAIT_S)

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(work())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield LocalLive(director, loop)
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join(WAIT_S)
        assert not thread.is_alive()
        farm.database.close()
