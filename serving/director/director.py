"""The Director: claims jobs, has their calls given to gangs, and brings each film to its end.

It owns the leases of the jobs that it works on, and nothing that could not be made again: jobs are in the store,
latents with the timeline hosts and in checkpoints. Tensors never pass through it. What it decides is decided elsewhere
(policy, failures, cost model, lifecycle: all pure); its parts act, each given only what it uses. Here are its loops,
and what others ask it. A plain class: an actor of the farm wraps it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence, Set
from typing import Any

from cluster.contract.pools_and_nodes import DrainRequest, NodeState
from serving.config.farm import FarmConfig
from serving.director.claiming import Claiming
from serving.director.cleanup import Cleanup
from serving.director.finishing import Finishing
from serving.director.held_jobs import HeldJobs
from serving.director.host_moves import HostMoves
from serving.director.job_leases import JobLeases
from serving.director.node_states import describe_node, find_node
from serving.director.opening import Opening
from serving.director.outcomes import Outcomes
from serving.director.patient_store import PatientStore
from serving.director.pools.gangs import Answer, Gangs
from serving.director.pools.pool_demand import FarmDemand
from serving.director.pools.waiting_jobs import WaitingJobs
from serving.director.ports import DecoderPort, EncoderPort, HostPort, NodesPort
from serving.director.progress_writer import ProgressWriter
from serving.director.rendering import Rendering
from serving.director.reporting.counters import Counters, EventCounters
from serving.director.reporting.gauges import GANGS, Gauges
from serving.director.reporting.journal import Journal
from serving.director.runs import JobRun, Stage
from serving.director.take_hosts import TakeHosts
from serving.director.tasks import Tasks
from serving.errors import StoreUnavailable
from serving.jobs.admission import Admission
from serving.jobs.lifecycle import Lifecycle
from serving.render.farm_messages import GangHello
from serving.scheduler.cost_model import CostModel
from serving.scheduler.explain import explain
from serving.scheduler.state import FarmState
from serving.store.artifacts import Artifacts
from serving.store.assets import Assets
from serving.store.database import Database
from serving.store.jobs import JobStore
from serving.store.keys import ApiKeys
from serving.store.ledger import Ledger
from serving.store.log_lines import LogLines
from serving.store.records import LIVE, JobStatus
from serving.telemetry.histograms import ApiReport
from serving.telemetry.metrics import FarmMetrics

log = logging.getLogger(__name__)

DIRECTOR_TICK_S = 0.5
"""Seconds after which the Director looks for calls to give out if nothing wakes it: some waits end by themselves."""


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
        self._config, self._jobs, self._nodes, self._clock = config, jobs, nodes, clock
        self._stopping = False
        self._wake = wake = asyncio.Event()
        """Set when there may be something to give out."""
        self._sync_now = asyncio.Event()
        self._journal, self._log_lines = Journal(), LogLines(database)
        self.metrics = metrics = FarmMetrics()
        self.costs = costs = CostModel()
        self.state = state = FarmState(costs)
        self.gangs = gangs = Gangs(state, metrics)
        self.admission = admission = Admission(config, jobs, artifacts, lambda: costs)
        self.demand = demand = FarmDemand(config, state, jobs, WaitingJobs(jobs, admission, costs))
        self.tasks = Tasks()
        self._leases = leases = JobLeases(jobs, owner=owner, lease_s=config.lease_s, clock=clock)
        self._counters = counters = Counters(metrics)
        self._event_counters = EventCounters(jobs, counters, clock=clock)
        self._store = store = PatientStore(jobs, counters, retry_s=config.poll_s, clock=clock)
        self._held = held = HeldJobs(state, costs, calls_per_job=config.limits.calls_per_job)
        self._hosts = at_hosts = TakeHosts(hosts, leases, takes_each=config.takes_per_host)
        progress = ProgressWriter(held, state, jobs, Ledger(database), store, counters, clock)
        self._outcomes = outcomes = Outcomes(
            held, at_hosts, decoder, lifecycle, progress, store, self.tasks, counters, self._doubt_leases, clock
        )
        self._finishing = finishing = Finishing(
            held, state, at_hosts, decoder, outcomes, artifacts, store, counters, clock
        )
        self._rendering = Rendering(held, state, gangs, at_hosts, outcomes, finishing, store, counters, wake, clock)
        self._opening = Opening(held, at_hosts, outcomes, finishing, self._rendering, counters, wake, clock)
        self._claiming = Claiming(
            config, leases, held, gangs, outcomes, finishing, admission, tenants, jobs, artifacts, encoder, wake, clock
        )
        self._moves = HostMoves(hosts, nodes, at_hosts, self._opening, clock=clock)
        self._gauges = Gauges(
            metrics, config.pools, held, state, gangs, demand, costs, leases, jobs, Assets(database, artifacts), clock
        )
        self._cleanup = Cleanup(database, jobs, artifacts, config.retention, clock=clock)
        metrics.open(
            (pool.name for pool in config.pools), spend_limit_usd_per_day=config.limits.spend_limit_usd_per_day
        )

    @property
    def runs(self) -> dict[str, JobRun]:
        """The jobs that it holds, by id."""
        return self._held.runs

    @property
    def generation(self) -> int:
        """Rises with every Director of a farm."""
        return self._leases.generation

    @property
    def moving_hosts(self) -> Set[int]:
        """Timeline hosts that are on their way to another node, by index."""
        return self._hosts.moving

    # ------------------------------------------------------------------------------------------------ its loops

    async def run(self) -> None:
        """Work until stopped. A fault in one job fails that job; one of the store is waited out."""
        with self._journal.listening():
            await self._work()

    async def _work(self) -> None:
        await self._begin()
        cleaning = self._cleanup.run(prompts_in_use=self._prompts_in_use, is_retired=lambda: self._leases.retired)
        loops = [asyncio.ensure_future(loop) for loop in (self._sync_forever(), cleaning, self._moves.run())]
        try:
            while not self._stopping:
                self._give_out()
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DIRECTOR_TICK_S):
                        await self._wake.wait()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    def _give_out(self) -> None:
        """Open takes, and give ready calls to gangs; nothing new if the jobs may be another's by now."""
        if not (self._held.runs and self._leases.may_be_lost):
            self._opening.open_takes()
            self._rendering.give_out()

    async def stop(self) -> None:
        """Save what is rendered, give the jobs back, and end `run`."""
        self._stopping = True
        self._store.close()
        self._wake.set()
        await self._give_back()
        await self._store.try_write(lambda: self._journal.write(self._log_lines))

    async def _give_back(self) -> None:
        """Save what is rendered, and leave every job to the Director that claims it next."""
        tokens = self._tokens()
        for job_id in tokens:
            await self._outcomes.drop(job_id, save=True)
        await self._store.try_write(lambda: self._jobs.release(tokens))

    async def _begin(self) -> None:
        async def begin() -> None:
            await self._leases.begin()
            self.costs.load(await asyncio.to_thread(lambda: self._jobs.recall("costs", "calls") or {}))
            await asyncio.to_thread(self.demand.load)
            self.gangs.load(await asyncio.to_thread(self._jobs.recall_all, GANGS))
            await self._event_counters.begin(self._leases.generation)

        await self._store.patiently(begin)

    async def _sync_forever(self) -> None:
        while True:
            try:
                await self._sync()
            except StoreUnavailable as error:
                self._store.failed(error)
            except Exception:
                log.exception("the Director failed to look into the store", extra={"action": "sync"})
            self._sync_now.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.poll_s):
                    await self._sync_now.wait()

    async def _sync(self) -> None:
        """Renew leases, read what others changed, write down what happened, claim new jobs."""
        await self._renew_leases()
        await self._read_changes()
        await self._outcomes.write_progress()
        await self._gauges.publish()
        if not self._stopping:
            await self._claiming.claim()
        await self._drop_silent_gangs(self._clock())
        if not self._leases.retired:
            await self._event_counters.count()
        terms = await asyncio.to_thread(self.demand.refresh, self._clock())
        self.demand.measure(terms, calls_soon=self._calls_soon(), now=self._clock())
        self._wake.set()
        await asyncio.to_thread(self._journal.write, self._log_lines)

    async def _renew_leases(self) -> None:
        for job_id in await self._leases.renew(self._tokens()):
            await self._outcomes.drop(job_id, save=True)
        if self._leases.retired and self._held.runs:
            await self._give_back()

    async def _read_changes(self) -> None:
        revisions = {run.id: run.job.revision for run in self._held.runs.values()}
        for job in await asyncio.to_thread(self._jobs.changed_since, revisions):
            run = self._held.runs.get(job.id)
            if run is None:
                continue
            if job.status not in LIVE or job.deleted_at is not None or job.lease_token != run.job.lease_token:
                await self._outcomes.drop(job.id, save=job.status != JobStatus.CANCELLED)
                continue
            run.job = job
            self._held.tell_scheduler(run)

    async def _drop_silent_gangs(self, now: float) -> None:
        if self.gangs.silent(now):
            try:
                nodes = await asyncio.to_thread(self._nodes.nodes)
            except Exception as error:  # whatever Ray fails with: it only leaves open why they went
                log.warning("nodes are not known: %s", error, extra={"action": "watch_nodes"})
                nodes = []
            self.gangs.drop_silent(now, lost_nodes={node.id for node in nodes if node.state == "dead"})

    def _doubt_leases(self) -> None:
        """A host obeys a newer Director: see at once whether all jobs are to be given back."""
        self._leases.doubt()
        self.poke()

    def _tokens(self) -> dict[str, int]:
        return {run.id: run.job.lease_token for run in self._held.runs.values()}

    def _calls_soon(self) -> dict[str, int]:
        """For each pool the calls of a step of every take that is about to be opened again or has just been claimed:
        gangs for them are needed, though none is ready."""
        soon: dict[str, int] = {}
        now = self._clock()
        for run in self._held.runs.values():
            for take in run.takes:
                opens = take.stage in (Stage.OPENING, Stage.RESTING, Stage.RELEASING)
                waits = take.stage is Stage.WAITING and (take.not_before > now or not run.prepared)
                if opens or waits:
                    soon[run.job.pool] = soon.get(run.job.pool, 0) + take.plan.ready_calls
        return soon

    def _prompts_in_use(self) -> set[str]:
        return {key for run in self._held.runs.values() for key in run.prompt_keys.values()}

    # ------------------------------------------------------------------------------------------------ what it is asked

    def hello(self, hello: GangHello, handle: Any) -> Answer:
        """A gang is there, or still there; the answer says what becomes of it."""
        now = self._clock()
        answer = self.gangs.hello(hello, handle, now)
        if answer == "go_on" and not hello.draining:
            self.demand.gang_came(hello.pool, hello.leader or hello.gang, now)
        self._wake.set()
        return answer

    def gang_unfit(self, pool: str, leader: str, problem: str) -> None:
        """A gang cannot be formed: its model's files are unfit. Without another gang the jobs of its pool fail."""
        self.gangs.unfit(pool, leader, problem, self._clock())
        self.poke()

    def hear_api(self, report: ApiReport) -> None:
        """A process of the Api says what it has measured."""
        self._counters.hear_api(report)

    def explain(self, job_id: str) -> dict[str, Any] | None:
        """Why a job is where it is; None for one that this Director does not hold."""
        said = explain(self.state, job_id, self._clock())
        return None if said is None else said.to_json()

    def pools(self) -> list[dict[str, Any]]:
        """The pools as they are now."""
        return [
            {
                "name": pool.name,
                "model": pool.model,
                "gang_shape": pool.gang_shape,
                **self.demand.describe(pool.name, self._clock()),
                **self.gangs.describe(pool.name, self._clock()),
                **self.demand.describe_due(pool.name),
            }
            for pool in self._config.pools
        ]

    async def nodes(self) -> list[NodeState]:
        """The machines of the farm and what is on them. Raises Fault if the cluster does not answer."""
        found, places = await asyncio.gather(asyncio.to_thread(self._nodes.nodes), self._moves.places())
        return [describe_node(node, gangs=self.gangs, places=places) for node in found]

    async def drain(self, node_id: str, request: DrainRequest) -> tuple[NodeState, bool]:
        """Have a node emptied; returns it, and whether that changed anything: one that is gone, or goes as soon, stays
        as it is. Raises NotFound, WrongState for the head, Fault if the cluster does not answer."""
        node = find_node(await asyncio.to_thread(self._nodes.nodes), node_id)
        until = self._clock() + request.deadline_s
        changes = node.state == "alive" or (node.state == "draining" and until < (node.until or float("inf")) - 1)
        if changes:
            words = f"{request.cause}: {request.reason}"
            await asyncio.to_thread(lambda: self._nodes.drain(node.id, reason=words, until=until))
            log.warning("node %s is drained: %s", node.id, words, extra={"action": "drain_node", "node": node.id})
        return next(one for one in await self.nodes() if one.id == node.id), changes

    def poke(self) -> None:
        """Look into the store now."""
        self._sync_now.set()
