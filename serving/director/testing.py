"""A whole farm in one process, for tests: the real Director, timeline hosts, ranks, decoder and store, without Ray.

Gangs, hosts and decoders can be made to fail as the real ones do.
"""

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from serving.config.farm import FarmConfig, PoolConfig
from serving.director.director import Director
from serving.director.ports import ClusterNode
from serving.errors import GangDied, HostLost
from serving.jobs.lifecycle import Lifecycle
from serving.models.registry import open_model
from serving.render.assemble_film import assemble_film
from serving.render.farm_messages import Assembled, AssembleOrder, ConditionOrder, Decoded, DecodeOrder, GangHello
from serving.render.host import TimelineHost
from serving.render.messages import Array, CallInput, CallOutput, TakeInputs
from serving.render.rank import Rank
from serving.render.store_condition import store_condition
from serving.render.take_decoder import TakeDecoder
from serving.store.artifact_keys import prompt_artifact
from serving.store.artifacts import Artifacts
from serving.store.database import open_database
from serving.store.jobs import JobStore
from serving.store.keys import ApiKeys
from serving.store.latents import write_prompt
from serving.store.records import Job
from serving.storyboard import Storyboard

ONE_AT_A_TIME = threading.Lock()
"""Models are loaded when they are first used, and loading must not happen in two threads at once. In a farm each has a
process of its own."""

SESSIONS = 8
"""Takes that the decoder decodes at once."""

Fault = Callable[[CallInput], None]
"""Called before each call of a gang; what it raises is what the gang does."""


@dataclass
class LocalGang:
    """A gang in this process. `fault` may raise GangDied, or anything else."""

    rank: Rank
    fault: Fault | None = None
    dead: bool = False
    calls: int = 0
    line: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def keep_inputs(self, key: str, inputs: TakeInputs) -> None:
        self._check()
        self.rank.keep_inputs(key, inputs)

    async def predict(self, call: CallInput, inputs_key: str) -> CallOutput:
        async with self.line:
            self._check()
            self.calls += 1
            if self.fault is not None:
                try:
                    self.fault(call)
                except GangDied:
                    self.dead = True
                    raise
            output = await asyncio.to_thread(self._predict, call, inputs_key)
            self._check()
            return output

    def _predict(self, call: CallInput, inputs_key: str) -> CallOutput:
        with ONE_AT_A_TIME:
            return self.rank.predict(call, inputs_key)

    def _check(self) -> None:
        if self.dead:
            raise GangDied("it was killed")


class LocalDecoder:
    """Encoder and decoder in this process."""

    def __init__(self, artifacts: Artifacts, scratch: Path) -> None:
        self._artifacts, self._scratch = artifacts, scratch
        self.decoder = TakeDecoder(artifacts, scratch, sessions=SESSIONS)
        self.failures = 0
        """Times that it will still fail."""
        self.free = asyncio.Event()
        """Cleared, it keeps those waiting who send it latents."""
        self.free.set()

    def restart(self) -> None:
        """Lose every session."""
        self.decoder = TakeDecoder(self._artifacts, self._scratch, sessions=SESSIONS)

    async def encode(self, model: str, weights: str, texts: Sequence[str]) -> None:
        with ONE_AT_A_TIME:
            embeddings = open_model(model).encode_prompts(texts)
        for text, embedding in zip(texts, embeddings, strict=True):
            write_prompt(self._artifacts, prompt_artifact(weights, text), embedding.numpy())

    async def encode_pictures(self, order: ConditionOrder) -> None:
        with ONE_AT_A_TIME:
            store_condition(order, self._artifacts)

    async def decode(self, order: DecodeOrder, start: int, latents_nChw: Array) -> Decoded:
        await self.free.wait()
        self._maybe_fail()
        with ONE_AT_A_TIME:
            return self.decoder.decode(order, start, latents_nChw)

    async def decode_stored(self, order: DecodeOrder) -> Decoded:
        self._maybe_fail()
        with ONE_AT_A_TIME:
            return self.decoder.decode_stored(order)

    async def forget(self, content_key: str) -> None:
        self.decoder.forget(content_key)

    async def assemble(self, order: AssembleOrder) -> Assembled:
        self._maybe_fail()
        return assemble_film(order, self._artifacts, self._scratch)

    def _maybe_fail(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise RuntimeError("the decoder was killed")


class LocalHost:
    """A timeline host that can be killed: what it held is gone, and the next call finds a new one."""

    def __init__(self, make: Callable[[], TimelineHost]) -> None:
        self._make = make
        self.inner = make()
        self.node, self.next_node = "here", "elsewhere"
        """Where it is, and where it is after its next restart."""
        self._killed = asyncio.Event()

    async def where(self) -> str:
        return self.node

    async def restart(self) -> None:
        """Come back elsewhere, with nothing."""
        self.node = self.next_node
        self.kill()

    def kill(self) -> None:
        self._killed.set()
        self._killed = asyncio.Event()
        self.inner = self._make()

    def __getattr__(self, method: str) -> Any:
        async def call(*arguments: Any, **named: Any) -> Any:
            work = asyncio.ensure_future(getattr(self.inner, method)(*arguments, **named))
            killed = asyncio.ensure_future(self._killed.wait())
            await asyncio.wait([work, killed], return_when=asyncio.FIRST_COMPLETED)
            killed.cancel()
            if not work.done():
                raise HostLost("the host was killed")
            return work.result()

        return call


@dataclass
class LocalNodes:
    """A cluster of two nodes that take hosts."""

    going: dict[str, float] = field(default_factory=dict)
    """Nodes that drain, and the Unix seconds until which they stay."""
    gone: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, float]] = field(default_factory=list)
    """Every drain: the node, the reason and until when."""

    def nodes(self) -> list[ClusterNode]:
        return [self._node("head"), self._node("here"), self._node("elsewhere")]

    def draining(self) -> dict[str, float]:
        return dict(self.going)

    def drain(self, node: str, *, reason: str, until: float) -> None:
        self.asked.append((node, reason, until))
        self.going[node] = until

    def _node(self, name: str) -> ClusterNode:
        state: Literal["alive", "draining", "dead"] = "alive"
        if name in self.gone:
            state = "dead"
        elif name in self.going:
            state = "draining"
        is_head = name == "head"
        return ClusterNode(name, "127.0.0.1", name, {}, state, is_head, not is_head, self.going.get(name))


class LocalFarm:
    """Parts of a farm over one store and one artifact folder. `model` is what its one pool serves."""

    def __init__(self, folder: Path, *, model: str, gangs: int = 1, config: Mapping[str, Any] | None = None) -> None:
        pool = PoolConfig(
            model=model,
            min_gangs=min(1, gangs),
            max_gangs=max(1, gangs),
            gangs=gangs,
            price_per_gpu_second=1.0,
        )
        self.config = FarmConfig(
            pools=(pool,),
            store_url=f"sqlite:///{folder / 'farm.db'}",
            artifacts_url=str(folder / "artifacts"),
            scratch=str(folder / "scratch"),
            **{"poll_s": 0.02, **(config or {})},
        )
        (folder / "artifacts").mkdir(parents=True, exist_ok=True)
        self.artifacts = Artifacts.open(self.config.artifacts_url)
        self.database = open_database(self.config.store_url)
        weakref.finalize(self, self.database.close)
        self.jobs = JobStore(self.database)
        self.lifecycle = Lifecycle(self.database)
        self.decoder = LocalDecoder(self.artifacts, folder / "scratch")
        self.hosts = [LocalHost(self._make_host)]
        self.nodes = LocalNodes()
        self._rank = Rank(model)
        self.gangs: dict[str, LocalGang] = {}
        for _ in range(gangs):
            self.add_gang()

    def add_gang(self, fault: Fault | None = None) -> LocalGang:
        """One more gang; it says hello while a Director runs."""
        gang = LocalGang(self._rank, fault)
        self.gangs[f"gang-{len(self.gangs)}"] = gang
        return gang

    def director(self, owner: str = "director", *, clock: Callable[[], float] = time.time) -> Director:
        """A Director of this farm."""
        return Director(
            self.config,
            owner=owner,
            jobs=self.jobs,
            lifecycle=self.lifecycle,
            tenants=ApiKeys(self.database),
            database=self.database,
            artifacts=self.artifacts,
            hosts=self.hosts,
            encoder=self.decoder,
            decoder=self.decoder,
            nodes=self.nodes,
            clock=clock,
        )

    def submit(self, director: Director, storyboard: Storyboard, **terms: Any) -> Job:
        """Accept a storyboard as the API does."""
        planned = director.admission.plan(storyboard, pool=None, steps=None)
        job, takes = director.admission.new_job(
            planned, tenant=terms.pop("tenant", "default"), now=time.time(), **terms
        )
        assets = sorted({asset for take in planned.plan.takes for asset in take.assets})
        return self.jobs.insert(job, takes, actor="longtake", assets=assets)

    @contextlib.asynccontextmanager
    async def running(self, director: Director) -> AsyncIterator[None]:
        """The Director at work, and gangs that report to it; a gang that is to be replaced is."""
        work = asyncio.ensure_future(director.run())
        greeting = asyncio.ensure_future(self._greet(director))
        try:
            yield
        finally:
            greeting.cancel()
            work.cancel()
            await asyncio.gather(work, greeting, return_exceptions=True)

    async def _greet(self, director: Director) -> None:
        while True:
            for name, gang in list(self.gangs.items()):
                hello = GangHello(name, self.config.pools[0].name, self._rank.numerics, "here", draining=False)
                if gang.dead or director.hello(hello, gang) == "replace":
                    gang.dead = True
                    del self.gangs[name]
                    self.gangs[f"{name}'"] = LocalGang(self._rank, gang.fault)
            await asyncio.sleep(self.config.poll_s)

    def _make_host(self) -> TimelineHost:
        return TimelineHost(
            self.artifacts,
            self.decoder,
            checkpoint_every_s=self.config.checkpoint_every_s,
            checkpoint_every_steps=self.config.checkpoint_every_steps,
        )

    async def until(self, met: Callable[[], Any], *, within_s: float = 60.0) -> None:
        """Wait for a condition. Raises AssertionError if it does not come."""
        end = time.monotonic() + within_s
        while not met():
            assert time.monotonic() < end, "it did not happen in time"
            await asyncio.sleep(0.01)

    def job(self, job_id: str) -> Job:
        """The job as it is stored now; it must not be deleted."""
        found = self.jobs.get(job_id)
        assert found is not None, f"there is no job {job_id}"
        return found

    def status(self, job: Job) -> str:
        """The job's status now."""
        found = self.jobs.get(job.id)
        return "deleted" if found is None else found.status
