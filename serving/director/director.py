"""The Director: takes up jobs, assigns their calls to gangs, and brings each film to its end.

It owns the leases of the jobs that it works on, and nothing that could not be made again: jobs are in the store,
latents with the timeline hosts and in checkpoints. Tensors never pass through it. What it decides is decided elsewhere
(policy, failures, cost model, lifecycle: all pure); its parts act, on one desk. Here are its loops, and what others ask
it. A plain class: an actor of the farm wraps it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence, Set
from typing import Any

from cluster.contract.pools_and_nodes import DrainRequest, NodeState
from serving.config.farm import FarmConfig
from serving.director.claiming import TakingUp
from serving.director.cleanup import Tidier
from serving.director.context import Desk
from serving.director.counters import Counting, EventCounting
from serving.director.finishing import Finishing
from serving.director.gangs import Answer, Gangs
from serving.director.gauges import GANGS, Publishing
from serving.director.host_moves import Mover
from serving.director.journal import Journal
from serving.director.node_states import describe_node, find_node
from serving.director.outcomes import Endings
from serving.director.pool_demand import FarmOutlook
from serving.director.ports import DecoderPort, EncoderPort, HostPort, NodesPort
from serving.director.rendering import Rendering
from serving.director.runs import JobRun, Stage
from serving.director.waiting_jobs import WaitingJobs
from serving.errors import StoreUnavailable
from serving.jobs.admission import Admission
from serving.jobs.lifecycle import Lifecycle
from serving.render.farm_messages import GangHello
from serving.scheduler.cost_model import CostModel
from serving.scheduler.explain import explain
from serving.scheduler.state import FarmState
from serving.store.artifacts import Artifacts
from serving.store.database import Database
from serving.store.jobs import JobStore
from serving.store.keys import ApiKeys
from serving.store.ledger import Ledger
from serving.store.log_lines import LogLines
from serving.store.records import LIVE
from serving.telemetry.histograms import ApiReport
from serving.telemetry.metrics import FarmMetrics

log = logging.getLogger(__name__)

DIRECTOR_TICK_S = 0.5
"""Seconds after which the Director looks again for calls to give out when nothing wakes it: for waits that are over."""


class Director:
    """Directs the farm of `config`. `run` works until `stop`; everything else may be called meanwhile."""

    def __init__(
        self,
        config: FarmConfig,
        *,
        owner: str,
        database: Database,
        jobs: JobStore,
        lifecycle: Lifecycle,
        tenants: ApiKeys,
        artifacts: Artifacts,
        hosts: Sequence[HostPort],
        encoder: EncoderPort,
        decoder: DecoderPort,
        nodes: NodesPort,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._journal, self._log_lines = Journal(), LogLines(database)
        self._nodes = nodes
        costs = CostModel()
        state = FarmState(costs)
        metrics = FarmMetrics()
        metrics.open(
            (pool.name for pool in config.pools), spend_limit_usd_per_day=config.limits.spend_limit_usd_per_day
        )
        counting = Counting(metrics)
        self._events = EventCounting(jobs, counting, clock=clock)
        self.admission = Admission(config, jobs, artifacts, lambda: costs)
        self._desk = Desk(
            config=config,
            clock=clock,
            jobs=jobs,
            lifecycle=lifecycle,
            ledger=Ledger(database),
            artifacts=artifacts,
            hosts=hosts,
            decoder=decoder,
            costs=costs,
            state=state,
            outlook=FarmOutlook(config, state, jobs, WaitingJobs(jobs, self.admission, costs)),
            gangs=Gangs(state, metrics),
            metrics=metrics,
            counting=counting,
        )
        self._endings = Endings(self._desk, Publishing(self._desk))
        self._finishing = Finishing(self._desk, self._endings)
        self._rendering = Rendering(self._desk, self._endings, self._finishing)
        self._taking_up = TakingUp(
            self._desk,
            owner=owner,
            admission=self.admission,
            tenants=tenants,
            encoder=encoder,
            endings=self._endings,
            finishing=self._finishing,
        )
        self._mover = Mover(hosts, nodes, self._rendering, leaving=self._desk.leaving, clock=clock)

    @property
    def metrics(self) -> FarmMetrics:
        return self._desk.metrics

    @property
    def state(self) -> FarmState:
        return self._desk.state

    @property
    def costs(self) -> CostModel:
        return self._desk.costs

    @property
    def outlook(self) -> FarmOutlook:
        return self._desk.outlook

    @property
    def gangs(self) -> Gangs:
        return self._desk.gangs

    @property
    def runs(self) -> dict[str, JobRun]:
        """The jobs that it holds, by id."""
        return self._desk.runs

    @property
    def moving_hosts(self) -> Set[int]:
        """Timeline hosts that are on their way to another node, by index."""
        return self._desk.leaving

    @property
    def generation(self) -> int:
        return self._desk.generation

    async def run(self) -> None:
        """Work until stopped. A fault in one job fails that job; one of the store is waited out."""
        with self._journal.listening():
            await self._work()

    async def _work(self) -> None:
        await self._begin()
        tidier = Tidier(
            self._database, self._desk.jobs, self._desk.artifacts, self._desk.config.retention, clock=self._desk.clock
        )
        tidying = tidier.run(prompts_in_use=self._prompts_in_use, is_retired=lambda: self._desk.retired)
        loops = [asyncio.ensure_future(loop) for loop in (self._sync_forever(), tidying, self._mover.run())]
        try:
            while not self._desk.stopping:
                self._rendering.give_out()
                self._desk.wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DIRECTOR_TICK_S):
                        await self._desk.wake.wait()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    async def stop(self) -> None:
        """Save what is rendered, give the jobs back, and end `run`."""
        self._desk.stopping = True
        self._desk.wake.set()
        await self._give_back()
        await self._desk.try_store(lambda: self._journal.write(self._log_lines))

    async def _give_back(self) -> None:
        """Save what is rendered, and leave every job to whoever claims it next."""
        tokens = {run.id: run.job.lease_token for run in self._desk.runs.values()}
        for job_id in tokens:
            await self._endings.drop(job_id, save=True)
        await self._desk.try_store(lambda: self._desk.jobs.release(tokens))

    def _calls_soon(self) -> dict[str, int]:
        """For each pool the calls of a step of every take that is about to be opened again or has just been taken up:
        gangs for them are needed, though none is ready."""
        soon: dict[str, int] = {}
        now = self._desk.clock()
        for run in self._desk.runs.values():
            for take in run.takes:
                opens = take.stage is Stage.OPENING or take.resting
                waits = take.stage is Stage.WAITING and (take.not_before > now or not run.prepared)
                if opens or waits:
                    soon[run.job.pool] = soon.get(run.job.pool, 0) + take.plan.chunks_per_step[0]
        return soon

    async def _begin(self) -> None:
        while True:
            try:
                self._desk.generation = await asyncio.to_thread(self._desk.jobs.next_generation, now=self._desk.clock())
                self._desk.costs.load(await asyncio.to_thread(lambda: self._desk.jobs.recall("costs", "calls") or {}))
                await asyncio.to_thread(self._desk.outlook.load)
                self._desk.gangs.load(await asyncio.to_thread(self._desk.jobs.recall_all, GANGS))
                await self._events.begin(self._desk.generation)
                return
            except StoreUnavailable as error:
                self._desk.note_store_error(error)
                await asyncio.sleep(self._desk.config.poll_s)

    async def _sync_forever(self) -> None:
        while True:
            try:
                await self._sync()
            except StoreUnavailable as error:
                self._desk.note_store_error(error)
            except Exception:
                log.exception("the Director failed to look into the store", extra={"action": "sync"})
            self._desk.sync_now.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._desk.config.poll_s):
                    await self._desk.sync_now.wait()

    async def _sync(self) -> None:
        """Renew leases, hear what others changed, write down what happened, claim new jobs."""
        now = self._desk.clock()
        await self._keep_leases(now)
        await self._hear_changes()
        await self._endings.write_down(now)
        await self._taking_up.claim(now)
        await self._drop_silent_gangs(now)
        if not self._desk.retired:
            await self._events.look()
        terms = await asyncio.to_thread(self._desk.outlook.refresh, now)
        self._desk.outlook.measure(terms, calls_soon=self._calls_soon(), now=self._desk.clock())
        self._desk.wake.set()
        await asyncio.to_thread(self._journal.write, self._log_lines)

    async def _drop_silent_gangs(self, now: float) -> None:
        if self._desk.gangs.silent(now):
            try:
                nodes = await asyncio.to_thread(self._nodes.nodes)
            except Exception as error:  # whatever Ray fails with: it only leaves open why they went
                log.warning("nodes are not known: %s", error, extra={"action": "watch_nodes"})
                nodes = []
            self._desk.gangs.drop_silent(now, lost_nodes={node.id for node in nodes if node.state == "dead"})

    async def _keep_leases(self, now: float) -> None:
        if self._desk.runs and now - self._desk.renewed_at >= self._desk.config.lease_s / 3:
            tokens = {run.id: run.job.lease_token for run in self._desk.runs.values()}
            kept = await asyncio.to_thread(self._desk.jobs.renew, tokens, now=now, lease_s=self._desk.config.lease_s)
            for job_id in tokens.keys() - kept:
                await self._endings.drop(job_id, save=True)
        if not self._desk.runs or now - self._desk.renewed_at >= self._desk.config.lease_s / 3:
            self._desk.renewed_at = now
            if not self._desk.retired and await asyncio.to_thread(self._desk.jobs.generation) > self._desk.generation:
                self._desk.retired = True
                log.warning("a newer Director is at work; this one gives its jobs back", extra={"action": "retire"})
                await self._give_back()

    async def _hear_changes(self) -> None:
        revisions = {run.id: run.job.revision for run in self._desk.runs.values()}
        for job in await asyncio.to_thread(self._desk.jobs.changed_since, revisions):
            run = self._desk.runs.get(job.id)
            if run is None:
                continue
            if job.status not in LIVE or job.deleted_at is not None or job.lease_token != run.job.lease_token:
                await self._endings.drop(job.id, save=job.status != "cancelled")
                continue
            run.job = job
            self._desk.state.put_job(self._desk.spec(run))

    def hello(self, hello: GangHello, handle: Any) -> Answer:
        """A gang is there, or still there; the answer says what becomes of it."""
        now = self._desk.clock()
        answer = self._desk.gangs.hello(hello, handle, now)
        if answer == "go_on" and not hello.draining:
            self._desk.outlook.gang_came(hello.pool, hello.leader or hello.gang, now)
        self._desk.wake.set()
        return answer

    def gang_unfit(self, pool: str, leader: str, problem: str) -> None:
        """A gang cannot be formed: its model's files are unfit. Without another gang the jobs of its pool fail."""
        self._desk.gangs.unfit(pool, leader, problem, self._desk.clock())
        self.poke()

    def hear_api(self, report: ApiReport) -> None:
        """A process of the Api says what it has measured."""
        self._desk.counting.hear_api(report)

    def explain(self, job_id: str) -> dict[str, Any] | None:
        """Why a job is where it is; None for one that this Director does not hold."""
        said = explain(self._desk.state, job_id, self._desk.clock())
        return None if said is None else said.to_json()

    def pools(self) -> list[dict[str, Any]]:
        """The pools as they are now."""
        return [
            {
                "name": pool.name,
                "model": pool.model,
                "gang_shape": pool.gang_shape,
                **self._desk.outlook.describe(pool.name, self._desk.clock()),
                **self._desk.gangs.describe(pool.name, self._desk.clock()),
            }
            for pool in self._desk.config.pools
        ]

    async def nodes(self) -> list[NodeState]:
        """The machines of the farm and what is on them. Raises Fault where the cluster does not answer."""
        found, places = await asyncio.gather(asyncio.to_thread(self._nodes.nodes), self._mover.places())
        return [describe_node(node, gangs=self._desk.gangs, places=places) for node in found]

    async def drain(self, node_id: str, request: DrainRequest) -> tuple[NodeState, bool]:
        """Have a node emptied; returns it, and whether that changed anything: one that is gone, or goes as soon, stays
        as it is. Raises NotFound, WrongState for the head, Fault where the cluster does not answer."""
        node = find_node(await asyncio.to_thread(self._nodes.nodes), node_id)
        until = self._desk.clock() + request.deadline_s
        changes = node.state == "alive" or (node.state == "draining" and until < (node.until or float("inf")) - 1)
        if changes:
            words = f"{request.cause}: {request.reason}"
            await asyncio.to_thread(lambda: self._nodes.drain(node.id, reason=words, until=until))
            log.warning("node %s is drained: %s", node.id, words, extra={"action": "drain_node", "node": node.id})
        return next(one for one in await self.nodes() if one.id == node.id), changes

    def _prompts_in_use(self) -> set[str]:
        return {key for run in self._desk.runs.values() for key in run.prompt_keys.values()}

    def poke(self) -> None:
        """Look into the store now."""
        self._desk.poke()
