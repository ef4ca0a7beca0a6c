"""The Director: takes up jobs, assigns their calls to gangs, and brings each film to its end.

It owns the leases of the jobs that it works on, and nothing that could not be made again: jobs are in the store,
latents with the timeline hosts and in checkpoints. Tensors never pass through it. What it decides is decided elsewhere
(policy, failures, cost model, lifecycle: all pure); here are the loops that act. A plain class: an actor of the farm
wraps it.

Longer than most files here, because it is one state with one owner: splitting it would only pass that state around.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from cluster.contract import DrainRequest, NodeState
from serving import settings
from serving.director.admission import Admission, open_known_model
from serving.director.cost_model import CostModel
from serving.director.explain import explain
from serving.director.gangs import Answer, Gangs
from serving.director.lifecycle import Action, Lifecycle
from serving.director.moving import Mover
from serving.director.node_states import describe_node, find_node
from serving.director.outlook import FarmOutlook
from serving.director.policy import assign
from serving.director.ports import DecoderPort, EncoderPort, HostLost, HostPort, NodesPort
from serving.director.runs import JobRun, Stage, TakeRun
from serving.director.state import Assignment, CallKey, FarmState, JobSpec, ReadyCall, TenantSpec
from serving.director.tidying import Tidier
from serving.director.waiting import WaitingJobs
from serving.errors import (
    ArtifactMissing,
    ArtifactsUnavailable,
    Fenced,
    LongtakeError,
    NotFound,
    OutOfSpace,
    StoreUnavailable,
    UserError,
    WrongState,
)
from serving.farm_config import FarmConfig
from serving.metrics import FarmMetrics
from serving.render.content import take_texts
from serving.render.orders import (
    AssembleOrder,
    CallReport,
    DecodeOrder,
    GangHello,
    NotHeld,
    OpenCall,
    StaleToken,
    TakeOrder,
)
from serving.store.artifacts import Artifacts
from serving.store.checkpoints import Checkpoints
from serving.store.database import Database
from serving.store.jobs import JobStore
from serving.store.keys import ApiKeys
from serving.store.ledger import Ledger
from serving.store.names import frames_artifact, latents_artifact, prompt_artifact
from serving.store.records import LIVE, Job

log = logging.getLogger(__name__)

NoRoomOrStore = (ArtifactsUnavailable, OutOfSpace)
"""What no job is to blame for: it is waited out, however long it takes."""


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
        self._config = config
        self._owner = owner
        self._database = database
        self._ledger = Ledger(database)
        self._jobs = jobs
        self._lifecycle = lifecycle
        self._tenants = tenants
        self._artifacts = artifacts
        self._hosts = hosts
        self._encoder = encoder
        self._decoder = decoder
        self._clock = clock
        self.costs = CostModel()
        self.admission = Admission(config, jobs, artifacts, self.costs)
        self.metrics = FarmMetrics()
        self.state = FarmState(self.costs)
        self.outlook = FarmOutlook(config, self.state, jobs, WaitingJobs(jobs, self.admission, self.costs))
        self.gangs = Gangs(self.state)
        self._nodes = nodes
        self._mover = Mover(hosts, nodes, self, clock=clock)
        self.runs: dict[str, JobRun] = {}
        self._by_content: dict[str, TakeRun] = {}
        """The take that renders each content key now; others with the same key wait for it."""
        self.generation = 0
        self._retired = False
        """A newer Director is there: nothing new is taken up."""
        self._stopping = False
        self._wake = asyncio.Event()
        self._sync_now = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewed_at = 0.0

    # ------------------------------------------------------------------------------------------------ loops

    async def run(self) -> None:
        """Work until stopped. A fault in one job fails that job; one of the store is waited out."""
        await self._begin()
        tidier = Tidier(self._database, self._jobs, self._artifacts, self._config.retention, clock=self._clock)
        tidying = tidier.run(prompts_in_use=self._prompts_in_use, is_retired=lambda: self._retired)
        loops = [asyncio.ensure_future(loop) for loop in (self._sync_forever(), tidying, self._mover.run())]
        try:
            while not self._stopping:
                self._give_out()
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(settings.DIRECTOR_TICK_S):
                        await self._wake.wait()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    async def stop(self) -> None:
        """Save what is rendered, give the jobs back, and end `run`."""
        self._stopping = True
        self._wake.set()
        await self._give_back()

    async def _give_back(self) -> None:
        """Save what is rendered, and leave every job to whoever claims it next."""
        tokens = {run.id: run.job.lease_token for run in self.runs.values()}
        for job_id in tokens:
            await self._drop(job_id, save=True)
        await self._try_store(lambda: self._jobs.release(tokens))

    def _calls_soon(self) -> dict[str, int]:
        """For each pool the calls of a step of every take that is about to be opened again or has just been taken up:
        gangs for them are needed, though none is ready."""
        soon: dict[str, int] = {}
        now = self._clock()
        for run in self.runs.values():
            for take in run.takes:
                opens = take.stage is Stage.OPENING or take.resting
                waits = take.stage is Stage.WAITING and (take.not_before > now or not run.prepared)
                if opens or waits:
                    soon[run.job.pool] = soon.get(run.job.pool, 0) + take.plan.chunks_per_step[0]
        return soon

    def poke(self) -> None:
        """Look into the store now."""
        self._sync_now.set()

    async def _begin(self) -> None:
        while True:
            try:
                self.generation = await asyncio.to_thread(self._jobs.next_generation, now=self._clock())
                self.costs.load(await asyncio.to_thread(lambda: self._jobs.recall("costs", "calls") or {}))
                await asyncio.to_thread(self.outlook.load)
                return
            except StoreUnavailable as error:
                self._note_store_error(error)
                await asyncio.sleep(self._config.poll_s)

    async def _sync_forever(self) -> None:
        while True:
            try:
                await self._sync()
            except StoreUnavailable as error:
                self._note_store_error(error)
            except Exception:
                log.exception("the Director failed to look into the store", extra={"action": "sync"})
            self._sync_now.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.poll_s):
                    await self._sync_now.wait()

    async def _sync(self) -> None:
        """Renew leases, hear what others changed, write down what happened, claim new jobs."""
        now = self._clock()
        await self._keep_leases(now)
        await self._hear_changes()
        await self._write_down(now)
        await self._claim(now)
        self.gangs.drop_silent(now)
        terms = await asyncio.to_thread(self.outlook.refresh, now)
        self.outlook.measure(terms, calls_soon=self._calls_soon(), now=self._clock())
        self._wake.set()

    async def _keep_leases(self, now: float) -> None:
        if self.runs and now - self._renewed_at >= self._config.lease_s / 3:
            tokens = {run.id: run.job.lease_token for run in self.runs.values()}
            kept = await asyncio.to_thread(self._jobs.renew, tokens, now=now, lease_s=self._config.lease_s)
            for job_id in tokens.keys() - kept:
                await self._drop(job_id, save=True)
        if not self.runs or now - self._renewed_at >= self._config.lease_s / 3:
            self._renewed_at = now
            if not self._retired and await asyncio.to_thread(self._jobs.generation) > self.generation:
                self._retired = True
                log.warning("a newer Director is at work; this one gives its jobs back", extra={"action": "retire"})
                await self._give_back()

    async def _hear_changes(self) -> None:
        revisions = {run.id: run.job.revision for run in self.runs.values()}
        for job in await asyncio.to_thread(self._jobs.changed_since, revisions):
            run = self.runs.get(job.id)
            if run is None:
                continue
            if job.status not in LIVE or job.deleted_at is not None or job.lease_token != run.job.lease_token:
                await self._drop(job.id, save=job.status != "cancelled")
                continue
            run.job = job
            self.state.put_job(self._spec(run))

    async def _write_down(self, now: float) -> None:
        updates = []
        for run in self.runs.values():
            said = explain(self.state, run.id, now)
            if said is not None:
                run.eta_at, run.at_risk = said.finishes_at, said.at_risk
            progress = run.progress()
            costs = run.close_ledger(now)
            if costs or progress.takes:
                updates.append((run, progress, costs))
        if updates:
            written = [progress for _, progress, _ in updates]
            entries = [entry for _, _, costs in updates for entry in costs]
            lost = await asyncio.to_thread(self._jobs.save_progress, written, entries, now=now)
            for run, progress, costs in updates:
                run.progress_written(progress)
                run.ledger_written(costs)
            for job_id in lost:
                await self._drop(job_id, save=False)
        await self._publish(now)

    async def _write_all_down(self) -> None:
        """Before a job ends: what it cost and how far it came is in the store, however long that takes to answer."""
        while not self._stopping:
            try:
                await self._write_down(self._clock())
                return
            except StoreUnavailable as error:
                self._note_store_error(error)
                await asyncio.sleep(self._config.poll_s)

    async def _publish(self, now: float) -> None:
        """Tell the world: metrics, supply for quotes, measured costs."""
        for pool in self._config.pools:
            demand = self.state.demand(pool.name, now)
            self.metrics.backlog.labels(pool.name).set(max(demand.backlog_gpu_s, self.outlook.backlog_gpu_s(pool.name)))
            self.metrics.calls_ready.labels(pool.name).set(demand.calls_ready)
            wanted = self.outlook.pools[pool.name].gangs_wanted
            self.metrics.set_gangs(pool.name, wanted=wanted, supply=self.outlook.supply(pool.name, now))
            slack = float("nan") if demand.due_slack_s is None else demand.due_slack_s
            self.metrics.due_slack.labels(pool.name).set(slack)
            supply = {"gangs_ready": demand.gangs_ready, "backlog_gpu_s": round(demand.backlog_gpu_s, 3), "at": now}
            if self.gangs.worth_telling(pool.name, supply):
                await asyncio.to_thread(self._jobs.learn, "supply", pool.name, supply, now=now)
                await asyncio.to_thread(self._jobs.learn, "costs", "calls", self.costs.dump(), now=now)
                counts = await asyncio.to_thread(self._jobs.count)
                self.metrics.count_jobs({str(status): number for status, number in counts.items()})

    # ------------------------------------------------------------------------------------------------ taking up jobs

    async def _claim(self, now: float) -> None:
        room = self._config.limits.active_jobs - len(self.runs)
        ready = [pool.name for pool in self._config.pools if self.gangs.numerics(pool.name) is not None]
        if room <= 0 or not ready or self._retired or self._stopping:
            return
        claimed = await asyncio.to_thread(
            self._jobs.claim, owner=self._owner, now=now, lease_s=self._config.lease_s, limit=room, pools=ready
        )
        for job in claimed:
            if job.id in self.runs:  # our own lease ran out and nobody took it: begin again with the new token
                await self._drop(job.id, save=True)
            try:
                await self._take_up(job)
            except UserError as error:  # its pool or model is gone, or the storyboard is not understood any more
                await self._fail(job, "cannot_render", str(error))
            except StoreUnavailable:
                raise
            except LongtakeError as error:
                await self._fail(job, "cannot_start", str(error))

    async def _take_up(self, job: Job) -> None:
        planned = await asyncio.to_thread(self.admission.plan_job, job)
        numerics = self.gangs.numerics(job.pool)
        assert numerics is not None
        await asyncio.to_thread(self._jobs.learn, "numerics", job.pool, numerics, now=self._clock())
        keys = self.admission.content_keys(planned, numerics)
        stored = {take.key: take for take in await asyncio.to_thread(self._jobs.takes, job.id)}
        takes = [
            TakeRun.taken_up(job.id, index, take, key, stored.get(take.key))
            for index, (take, key) in enumerate(zip(planned.plan.takes, keys, strict=True))
        ]
        texts = {text for take in planned.plan.takes for text in take_texts(take)}
        run = JobRun(
            job=job,
            plan=planned.plan,
            capabilities=open_known_model(planned.pool.model).capabilities,
            cost_key=self.admission.cost_key(planned.pool, planned.plan),
            numerics=numerics,
            prompt_keys={text: prompt_artifact(numerics["weights"], text) for text in texts},
            takes=takes,
            ranks=planned.pool.shape.ranks,
            price_per_gpu_second=planned.pool.price_per_gpu_second,
            spent_usd=job.usd,
            started=job.status == "in_progress",
        )
        self.runs[job.id] = run
        self.state.put_tenant(await self._tenant_spec(job.tenant))
        self.state.put_job(self._spec(run))
        self._check_budget(run)
        self._spawn(self._prepare(run), run)

    async def _tenant_spec(self, name: str) -> TenantSpec:
        """A tenant's share and caps; what it has none of its own for is as the farm's limits say."""
        own = await asyncio.to_thread(self._tenants.tenant, name)
        most = self._config.limits.calls_per_tenant
        return TenantSpec(name, own.weight, most if own.max_concurrent_calls is None else own.max_concurrent_calls)

    async def _find_cached(self, take: TakeRun) -> None:
        """What is there of a take need not be made again. A film needs latents too: its manifest names them."""
        exists = self._artifacts.exists
        if not await asyncio.to_thread(exists, latents_artifact(take.content_key)):
            return
        take.stage, take.cached = Stage.RENDERED, True
        if await asyncio.to_thread(exists, frames_artifact(take.content_key)):
            take.stage, take.decode_complete = Stage.DECODED, True
            take.decoded_latents, take.decoded_frames = take.plan.latents, take.plan.frames - take.plan.surplus

    async def _prepare(self, run: JobRun) -> None:
        """See what is there of it, and have its prompts encoded; then its takes may be opened."""
        missing = await self._retrying(run, lambda: self._look_up(run))
        if missing:
            await self._retrying(run, lambda: self._encoder.encode(run.plan.model, run.numerics["weights"], missing))
        if self.runs.get(run.id) is not run:
            return
        if run.started:  # whoever rendered it may have died between making its latents durable and this
            for take in run.takes:
                if take.done:
                    self._spawn(self._clear_checkpoints(take), run)
        run.prepared = True
        self.state.put_job(self._spec(run))
        self._advance(run)
        self._wake.set()

    async def _look_up(self, run: JobRun) -> list[str]:
        """Find takes that are done already; returns the texts that must be encoded for the others."""
        await asyncio.gather(*(self._find_cached(take) for take in run.takes))
        if all(take.done for take in run.takes):
            return []
        there = await asyncio.to_thread(self._artifacts.existing, run.prompt_keys.values())
        return [text for text, key in sorted(run.prompt_keys.items()) if key not in there]

    def _spec(self, run: JobRun) -> JobSpec:
        key, window = run.cost_key, run.capabilities.window
        left = [take for take in run.takes if not take.done]
        paths = (self.costs.path_seconds(key, take.plan, window=window) * take.share_left for take in left)
        return JobSpec(
            id=run.id,
            tenant=run.job.tenant,
            pool=run.job.pool,
            priority=run.job.priority,
            due_at=run.job.due_at,
            created_at=run.job.created_at,
            cost_key=key,
            work_s=sum(self.costs.take_seconds(key, take.plan) * take.share_left for take in left),
            path_s=max(paths, default=0.0),
            max_calls=self._config.limits.calls_per_job,
            steps=run.plan.steps,
        )

    # ------------------------------------------------------------------------------------------------ giving out

    def _give_out(self) -> None:
        """Open takes where there is room, and give ready calls to gangs."""
        now = self._clock()
        if now - self._renewed_at > self._config.lease_s and self.runs:
            return  # the leases may be somebody else's by now: nothing new before they are renewed
        self._open_takes(now)
        for assignment in assign(self.state, now):
            take = self._take(assignment.call)
            if take is not None:
                self._spawn(self._run_call(take, assignment), self.runs[take.id.job_id])

    def _open_takes(self, now: float) -> None:
        most = self._config.takes_per_host
        room = [0 if host in self._mover.leaving else most for host in range(len(self._hosts))]
        active: dict[str, int] = {}
        for run in self.runs.values():
            for take in run.takes:
                if take.host is not None:
                    room[take.host] -= 1
                    active[run.job.tenant] = active.get(run.job.tenant, 0) + 1
        waiting = [run for run in self.runs.values() if run.prepared and not self._is_held(run)]
        for run in sorted(
            waiting, key=lambda run: (-run.job.priority, active.get(run.job.tenant, 0), run.job.created_at)
        ):
            for take in run.takes:
                if max(room) <= 0:
                    return
                other = self._by_content.get(take.content_key)
                if take.stage is Stage.WAITING and take.not_before <= now and (other is None or other is take):
                    host = room.index(max(room))
                    room[host] -= 1
                    take.host, take.stage = host, Stage.OPENING
                    self._by_content[take.content_key] = take
                    self._spawn(self._open(run, take, host), run)

    async def _open(self, run: JobRun, take: TakeRun, host: int) -> None:
        if take.stage is not Stage.OPENING or take.host != host:
            return  # it was let go before this could begin
        order = TakeOrder(
            take.id,
            self.generation,
            run.plan,
            take.plan,
            take.content_key,
            {text: run.prompt_keys[text] for text in take_texts(take.plan)},
            run.numerics["weights"],
        )
        try:
            await self._find_cached(take)  # another job may have rendered it meanwhile, or a host that was lost since
            if take.done:
                self._found(run, take)
                return
            opened = await self._hosts[host].open_take(order)
        except (HostLost, LongtakeError) as error:
            self._host_failed(run, take, error)
            return
        if take.stage is not Stage.OPENING or self.runs.get(run.id) is not run:  # it was let go meanwhile
            take.host = host
            await self._close(take, save=False)
            return
        take.stage, take.progress = Stage.RENDERING, opened.progress
        self.state.put_job(self._spec(run))
        self._tell_ready(take, opened.ready)
        log.info("take %s opened from %s", take.id, opened.resumed, extra={"action": "open_take"})
        if take.resting:  # its host was told to move while it opened it
            await self.hand_back(take)
            return
        for call, gang in opened.running:
            self._spawn(self._join(take, call, gang), run)
        self._after_report(run, take)

    def _found(self, run: JobRun, take: TakeRun) -> None:
        """It need not be rendered after all."""
        take.host = None
        self._by_content.pop(take.content_key, None)
        self.state.put_job(self._spec(run))
        self._advance(run)
        self._spawn(self._clear_checkpoints(take), run)

    async def _clear_checkpoints(self, take: TakeRun) -> None:
        """Those that a host had no time to remove; what stays now goes by retention."""
        with contextlib.suppress(ArtifactsUnavailable):
            await asyncio.to_thread(Checkpoints(self._artifacts, take.content_key).clear)

    def _tell_ready(self, take: TakeRun, calls: Sequence[OpenCall]) -> None:
        if take.resting:  # it is opened anew soon, and its calls told of then
            return
        ready = [
            ReadyCall(
                CallKey(take.id.job_id, take.id.take_key, call.step, call.chunk),
                call.latents,
                call.evaluations,
                call.start,
                expert=call.expert,
                take_index=take.index,
            )
            for call in calls
        ]
        self.state.calls_ready(take.id.job_id, ready, self._clock())
        self._wake.set()

    async def _run_call(self, take: TakeRun, given: Assignment) -> None:
        key, host = given.call, take.host
        run = self.runs[key.job_id]
        if not run.started:
            run.started = True
            self._spawn(self._start(run), run)
        flight = self.state.calls.get(key)
        if flight is None or host is None:
            return
        try:
            report = await self._hosts[host].run_call(
                take.id,
                self.generation,
                step=key.step,
                chunk=key.chunk,
                gang=given.gang,
                handle=self.gangs.handle(given.gang),
                timeout_s=given.deadline_s,
            )
        except (HostLost, NotHeld, StaleToken) as error:
            wasted = self._clock() - flight.since
            if self.state.calls.get(key) is flight:
                run.charge(take, start=flight.call.start, latents=flight.call.latents, seconds=wasted, useful=False)
                self.state.call_failed(key, given.gang, "host_lost", str(error), self._clock())
            if take.host == host:
                self._host_failed(run, take, error)
            return
        self._hear(run, take, flight.call, given.gang, report)

    async def _join(self, take: TakeRun, call: OpenCall, gang: str) -> None:
        """Wait for a call that an earlier Director gave out."""
        run = self.runs.get(take.id.job_id)
        if run is None or take.host is None:
            return
        try:
            report = await self._hosts[take.host].run_call(
                take.id, self.generation, step=call.step, chunk=call.chunk, gang=gang, handle=None, timeout_s=1.0
            )
        except (HostLost, NotHeld, StaleToken) as error:
            self._host_failed(run, take, error)
            return
        if report.outcome != "done":
            self._tell_ready(take, [call])
        else:
            run.charge(take, start=call.start, latents=call.latents, seconds=report.seconds, useful=True)
        take.progress = report.progress
        self._tell_ready(take, report.ready)
        self._after_report(run, take)

    def _hear(self, run: JobRun, take: TakeRun, call: ReadyCall, gang: str, report: CallReport) -> None:
        """Take in how a call ended."""
        pool, now = run.job.pool, self._clock()
        self.metrics.calls.labels(pool, report.outcome).inc()
        useful = report.outcome == "done"
        # A call that only waited beside the one that its gang died of has cost nothing.
        if report.outcome != "gang_died" or self.gangs.was_working_on(gang, call.key):
            run.charge(take, start=call.start, latents=call.latents, seconds=report.seconds, useful=useful)
            self.metrics.gpu_seconds.labels(pool, "useful" if useful else "wasted").inc(report.seconds * run.ranks)
            self.metrics.spent_usd.labels(pool).inc(report.seconds * run.ranks * run.price_per_gpu_second)
        if run.id not in self.runs or take.stage is not Stage.RENDERING:
            self.state.call_moot(call.key, gang)
            if self.runs.get(run.id) is not run:
                self._spawn(self._charge_late(run), run)
            return
        take.progress, take.failures = report.progress, 0
        if report.outcome == "done":
            self.state.call_finished(call.key, gang, report.seconds)
        elif report.outcome == "not_ready":
            self.state.call_moot(call.key, gang)
        else:
            self._hear_failure(run, take, call, gang, report, now)
        self._tell_ready(take, report.ready)
        self._check_budget(run)
        self._after_report(run, take)

    async def _charge_late(self, run: JobRun) -> None:
        """Write down the calls of a job that was let go meanwhile: their seconds are spent, whoever holds it now."""
        entries = run.close_ledger(self._clock())
        if entries:
            await self._retrying_store(lambda: self._ledger.add(entries))
            run.ledger_written(entries)

    def _hear_failure(
        self, run: JobRun, take: TakeRun, call: ReadyCall, gang: str, report: CallReport, now: float
    ) -> None:
        outcome = report.outcome
        assert outcome != "done"
        assert outcome != "not_ready"
        if report.outcome == "gang_died" and not self.gangs.was_working_on(gang, call.key):
            # It only waited beside the call that the gang was working on: no fault of its own.
            self.state.call_failed(call.key, gang, "drained", report.detail, now)
            return
        take.retries += 1
        verdict = self.state.call_failed(call.key, gang, outcome, report.detail, now)
        log.warning("call %s on %s: %s %s", call.key, gang, report.outcome, report.detail, extra={"action": "call"})
        if report.outcome == "gang_died" or (verdict is not None and verdict.replace_gang):
            self.gangs.condemn(gang, now)
        if verdict is None:
            return
        data = {"take": take.plan.key, "step": call.key.step, "chunk": call.key.chunk, "gang": gang}
        if verdict.retry_at is not None:
            reason = f"a call is tried again: {report.outcome.replace('_', ' ')}"
            self._spawn(self._note(run, "retry", reason, data), run)
            return
        evidence = [
            {"gang": one.gang, "kind": one.kind, "detail": one.detail, "at": one.at} for one in verdict.evidence
        ]
        what = "killed" if verdict.code == "poison_call" else "failed on"
        message = (
            f"call (step {call.key.step}, chunk {call.key.chunk}) of take {take.plan.key} {what} {len(evidence)} gangs"
        )
        error = {"code": verdict.code, "message": f"{message}; the last: {report.detail[-500:]}", "attempts": evidence}
        self._spawn(self._fail_run(run, error), run)

    # ------------------------------------------------------------------------------------------------ finishing

    def _after_report(self, run: JobRun, take: TakeRun) -> None:
        """Begin what a take's progress allows: decode its head, make its latents durable."""
        assert take.progress is not None
        if take.resting and not take.progress.done:
            return
        if take.progress.done and not take.finishing and take.stage is Stage.RENDERING:
            take.finishing = True
            self._spawn(self._finish_take(run, take), run)
        grown = take.progress.finished_head - take.decoded_latents
        if not take.feeding and (grown >= settings.DECODE_AT_LATENTS or (take.progress.done and grown > 0)):
            take.feeding = True
            self._spawn(self._feed(run, take), run)

    async def _finish_take(self, run: JobRun, take: TakeRun) -> None:
        assert take.host is not None
        try:
            await self._hosts[take.host].finish_take(take.id, self.generation)
        except (HostLost, LongtakeError) as error:
            take.finishing = False
            self._host_failed(run, take, error)
            return
        take.stage = Stage.RENDERED
        self.state.put_job(self._spec(run))
        await self._note(run, "take_rendered", f"take {take.plan.key} is rendered", {"take": take.plan.key})
        self._advance(run)

    async def _feed(self, run: JobRun, take: TakeRun) -> None:
        """Send the decoder the head of a take, until it has all that is finished."""
        try:
            while take.host is not None and take.progress and take.decoded_latents < take.progress.finished_head:
                decoded = await self._hosts[take.host].feed_decoder(
                    take.id, self.generation, start=take.decoded_latents
                )
                take.decoded_latents, take.decoded_frames = decoded.latents, decoded.frames
                take.decode_failures = 0
                if decoded.complete:
                    take.decode_complete = True
        except (HostLost, NotHeld, StaleToken) as error:
            if take.stage is Stage.RENDERING:
                self._host_failed(run, take, error)
            else:
                take.host = None  # its latents are durable: they are decoded from there
        except Exception as error:
            await self._decode_failed(run, take, error)
        finally:
            take.feeding = False
        if take.progress and take.stage is Stage.RENDERING:
            self._after_report(run, take)
        self._advance(run)

    async def _decode_stored(self, run: JobRun, take: TakeRun) -> None:
        try:
            decoded = await self._decoder.decode_stored(DecodeOrder(run.plan, take.plan, take.content_key))
            take.decoded_latents, take.decoded_frames = decoded.latents, decoded.frames
            take.decode_complete = decoded.complete
        except ArtifactMissing as error:  # its latents were swept or lost: it is rendered again
            log.warning("take %s is rendered again: %s", take.id, error, extra={"action": "render_again"})
            take.begin_again()
            self.state.put_job(self._spec(run))
        except Exception as error:
            await self._decode_failed(run, take, error)
        finally:
            take.feeding = False
        self._advance(run)

    async def _decode_failed(self, run: JobRun, take: TakeRun, error: Exception) -> None:
        """Try again a while later, from what is durable or from the first latent: decoding loses nothing."""
        take.decode_failures += 1
        log.warning("decoding %s failed: %s", take.id, error, extra={"action": "decode"})
        if take.decode_failures >= settings.MAX_DECODE_TRIES and not isinstance(error, NoRoomOrStore):
            message = f"take {take.plan.key} could not be decoded: {error}"
            await self._fail_run(run, {"code": "decode_failed", "message": message})
            return
        await asyncio.sleep(settings.DECODE_RETRY_S * 2 ** min(take.decode_failures, settings.MAX_DECODE_TRIES))

    def _advance(self, run: JobRun) -> None:
        """Move takes that are rendered on to frames, and a job whose takes all are on to its film."""
        if run.id not in self.runs:
            return
        for take in run.takes:
            if take.stage is Stage.RENDERED and take.decode_complete:
                take.stage = Stage.DECODED
                self._by_content.pop(take.content_key, None)
                self._spawn(self._close(take, save=False), run)
                self._spawn(self._note(run, "take_done", f"take {take.plan.key} is done", {"take": take.plan.key}), run)
            elif take.stage is Stage.RENDERED and not take.feeding:
                take.feeding = True
                decode = self._decode_stored if take.host is None or take.decode_failures else self._feed
                self._spawn(decode(run, take), run)
        self._wake_sharers(run)
        if all(take.stage is Stage.DECODED for take in run.takes) and not run.finishing:
            run.finishing = True
            self._spawn(self._assemble(run), run)

    def _wake_sharers(self, run: JobRun) -> None:
        """Takes of other jobs that waited for one of this job's look again whether it is there."""
        done = {take.content_key for take in run.takes if take.stage is Stage.DECODED}
        for other in self.runs.values():
            for take in other.takes:
                if other is not run and take.stage is Stage.WAITING and take.content_key in done:
                    take.stage, take.cached, take.decode_complete = Stage.RENDERED, True, True
                    take.decoded_frames = take.plan.frames - take.plan.surplus
                    self.state.put_job(self._spec(other))
                    asyncio.get_running_loop().call_soon(self._advance, other)

    async def _assemble(self, run: JobRun) -> None:
        now = self._clock()
        order = AssembleOrder(
            job_id=run.id,
            plan=run.plan,
            content_keys=tuple(take.content_key for take in run.takes),
            numerics=run.numerics,
            timings={
                "total_s": now - (run.job.started_at or now),
                "gang_s": sum(take.gpu_seconds for take in run.takes) / run.ranks,
            },
            gangs=self.state.num_gangs(run.job.pool),
        )

        try:
            film = await self._retrying(run, lambda: self._decoder.assemble(order))
        except ArtifactMissing as error:  # frames that were damaged or swept: made again from the latents
            log.warning("job %s makes takes again: %s", run.id, error, extra={"action": "make_again"})
            run.finishing, run.assemblies = False, run.assemblies + 1
            if run.assemblies == settings.MAX_DECODE_TRIES:
                await self._fail_run(run, {"code": "finishing_failed", "message": str(error)[-1000:]})
                return
            for take in run.takes:
                take.begin_again()
                await self._find_cached(take)
            self.state.put_job(self._spec(run))
            self._advance(run)
            return
        if film is None:
            return
        await self._write_all_down()
        await self._end(run, "complete", reason="its film is there", film=film)
        self.metrics.end_to_end.labels(run.job.pool).observe(self._clock() - run.job.created_at)

    # ------------------------------------------------------------------------------------------------ ends and troubles

    async def _start(self, run: JobRun) -> None:
        if run.job.status == "queued":
            await self._act(run.job, "start", reason="its first call was given out")
            self.metrics.queue_wait.labels(run.job.pool).observe(self._clock() - run.job.created_at)

    async def _act(self, job: Job, action: Action, *, reason: str, **what: Any) -> None:
        """Change a job's status as its leaseholder, however long the store takes to answer."""
        await self._retrying_store(
            lambda: self._lifecycle.apply(
                job.id, action, reason=reason, now=self._clock(), token=job.lease_token, **what
            )
        )

    async def _end(self, run: JobRun, action: Action, *, reason: str, **what: Any) -> None:
        """Take an action that ends our hold of a job, and forget it."""
        await self._act(run.job, action, reason=reason, **what)
        await self._drop(run.id, save=action != "complete")

    async def _fail(self, job: Job, code: str, message: str) -> None:
        await self._act(job, "fail", reason=message, error={"code": code, "message": message})

    async def _fail_run(self, run: JobRun, error: dict[str, Any]) -> None:
        if run.id in self.runs:
            self.state.hold_job(run.id, "it failed")
            await self._write_all_down()
            await self._end(run, "fail", reason=str(error["message"]), error=error)

    def _is_held(self, run: JobRun) -> bool:
        job = self.state.jobs.get(run.id)
        return job is None or bool(job.held)

    def _check_budget(self, run: JobRun) -> None:
        budget = run.job.budget_usd
        if budget is None or run.id not in self.runs:
            return
        if run.spent_usd >= budget and not self._is_held(run) and not all(take.done for take in run.takes):
            self.state.hold_job(run.id, "its budget is spent")
            self._spawn(self._stop_at_budget(run, budget), run)
        elif run.spent_usd >= settings.BUDGET_WARNING * budget and not run.warned:
            run.warned = True
            words = f"{run.spent_usd:.4f} of {budget:.4f} US dollars are spent"
            self._spawn(self._note(run, "budget_warning", words, {"spent_usd": run.spent_usd}), run)

    async def _stop_at_budget(self, run: JobRun, budget: float) -> None:
        await self._write_all_down()
        reason = f"its budget of {budget:.4f} US dollars is spent; resume it with a larger one"
        await self._end(run, "pause", reason=reason, data={"budget_usd": budget, "spent_usd": run.spent_usd})

    def _host_failed(self, run: JobRun, take: TakeRun, error: Exception) -> None:
        """Open the take again, from its newest checkpoint, after a wait that grows."""
        if take.stage not in (Stage.OPENING, Stage.RENDERING):
            take.host = None
            return
        log.warning("take %s was lost by its host: %s", take.id, error, extra={"action": "host_lost"})
        if isinstance(error, StaleToken):  # a newer Director has it: see at once whether all are to be given back
            self._renewed_at = 0.0
            self.poke()
        take.failures += 1
        take.begin_again()
        take.not_before = self._clock() + min(10.0, settings.HOST_RETRY_S * 2 ** min(take.failures, 6))
        self._by_content.pop(take.content_key, None)
        self.state.forget_take(take.id.job_id, take.id.take_key)
        if take.failures > settings.MAX_HOST_FAILURES and not isinstance(error, NoRoomOrStore):
            message = f"take {take.plan.key} could not be held: {error}"
            self._spawn(self._fail_run(run, {"code": "host_failed", "message": message}), run)

    async def _drop(self, job_id: str, *, save: bool) -> None:
        run = self.runs.pop(job_id, None)
        if run is not None:
            await self._let_go(run, save=save)

    async def _let_go(self, run: JobRun, *, save: bool) -> None:
        self.state.drop_job(run.id)
        for take in run.takes:
            if self._by_content.get(take.content_key) is take:
                del self._by_content[take.content_key]
            await self._close(take, save=save and take.stage is Stage.RENDERING)
            if take.decoded_latents and not take.decode_complete:
                self._spawn(self._forget(take), run)
        await self._charge_late(run)

    async def _forget(self, take: TakeRun) -> None:
        try:
            await self._decoder.forget(take.content_key)
        except Exception as error:  # it forgets by itself, later
            log.info("the decoder was not told of take %s: %s", take.id, error, extra={"action": "forget"})

    async def _close(self, take: TakeRun, *, save: bool) -> None:
        host, take.host = take.host, None
        if host is None:
            return
        try:
            await self._hosts[host].close_take(take.id, self.generation, save=save)
        except (HostLost, LongtakeError) as error:
            log.info("take %s was not closed: %s", take.id, error, extra={"action": "close_take"})

    # ------------------------------------------------------------------------------------------------ hosts that move

    def takes_on(self, host: int) -> list[TakeRun]:
        """Takes that a host holds, or opens."""
        return [take for run in self.runs.values() for take in run.takes if take.host == host]

    def rest(self, take: TakeRun) -> None:
        """Give out nothing more of a take, until it is opened again."""
        take.resting = True
        self.state.rest_take(take.id.job_id, take.id.take_key)

    def is_busy(self, take: TakeRun) -> bool:
        """Whether a call of it is out, or its decoder is fed, or its latents are being made durable."""
        out = self.state.has_calls_out(take.id.job_id, take.id.take_key)
        return out or take.feeding or take.finishing or take.stage is Stage.OPENING

    async def hand_back(self, take: TakeRun) -> None:
        """Have its host save it and let it go; it is opened again where there is room."""
        if take.stage is not Stage.RENDERING or take.id.job_id not in self.runs:
            return
        host, take.not_before = take.host, float("inf")  # not opened elsewhere before it is saved
        self._by_content.pop(take.content_key, None)
        self.state.forget_take(take.id.job_id, take.id.take_key)
        take.begin_again()
        take.host = host
        try:
            await self._close(take, save=True)
        finally:
            take.not_before = 0.0
            self._wake.set()

    # ------------------------------------------------------------------------------------------------ others ask

    def hello(self, hello: GangHello, handle: Any) -> Answer:
        """A gang is there, or still there; the answer says what becomes of it."""
        now = self._clock()
        answer = self.gangs.hello(hello, handle, now)
        if answer == "go_on" and not hello.draining:
            self.outlook.gang_came(hello.pool, hello.leader or hello.gang, now)
        self._wake.set()
        return answer

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
                **self.outlook.describe(pool.name, self._clock()),
                **self.gangs.describe(pool.name, self._clock()),
            }
            for pool in self._config.pools
        ]

    async def nodes(self) -> list[NodeState]:
        """The machines of the farm and what is on them. Raises Fault where the cluster does not answer."""
        found, places = await asyncio.gather(asyncio.to_thread(self._nodes.nodes), self._mover.places())
        return [describe_node(node, gangs=self.gangs, places=places) for node in found]

    async def drain(self, node_id: str, request: DrainRequest) -> tuple[NodeState, bool]:
        """Have a node emptied; returns it, and whether that changed anything: one that is gone, or goes as soon, stays
        as it is. Raises NotFound, WrongState for the head, Fault where the cluster does not answer."""
        node = find_node(await asyncio.to_thread(self._nodes.nodes), node_id)
        until = self._clock() + request.deadline_s
        changes = node.state == "alive" or (node.state == "draining" and until < (node.until or float("inf")) - 1)
        if changes:
            words = f"{request.cause}: {request.reason}"
            await asyncio.to_thread(lambda: self._nodes.drain(node.id, reason=words, until=until))
            log.warning("node %s is drained: %s", node.id, words, extra={"action": "drain_node"})
        return next(one for one in await self.nodes() if one.id == node.id), changes

    # ------------------------------------------------------------------------------------------------ inner

    def _take(self, key: CallKey) -> TakeRun | None:
        run = self.runs.get(key.job_id)
        return next((take for take in run.takes if take.id.take_key == key.take_key), None) if run else None

    async def _note(self, run: JobRun, kind: str, reason: str, data: dict[str, Any]) -> None:
        await self._try_store(
            lambda: self._jobs.note(
                run.id, token=run.job.lease_token, kind=kind, reason=reason, now=self._clock(), data=data
            )
        )

    async def _try_store(self, write: Callable[[], Any]) -> None:
        """Write what may be left out if the store does not answer."""
        try:
            await asyncio.to_thread(write)
        except StoreUnavailable as error:
            self._note_store_error(error)
        except (Fenced, NotFound):
            pass  # the job is another's, or gone: found out by the next sync

    async def _retrying_store(self, write: Callable[[], Any]) -> None:
        """Write what must not be lost: wait for the store as long as it takes."""
        while True:
            try:
                await asyncio.to_thread(write)
                return
            except StoreUnavailable as error:
                self._note_store_error(error)
                if self._stopping:
                    return
                await asyncio.sleep(self._config.poll_s)
            except (Fenced, NotFound, WrongState) as error:
                log.info("left to others: %s", error, extra={"action": "lifecycle"})
                return

    async def _retrying(self, run: JobRun, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any | None:
        """Work of an encoder or decoder, tried again with growing waits; then its job fails and None is returned.
        Raises ArtifactMissing at once."""
        failures = 0
        while self.runs.get(run.id) is run:
            try:
                return await work()
            except ArtifactMissing:
                raise
            except Exception as error:
                log.warning("work for job %s failed: %s", run.id, error, extra={"action": "retry"})
                if failures + 1 < settings.MAX_DECODE_TRIES or not isinstance(error, NoRoomOrStore):
                    failures += 1
                if failures == settings.MAX_DECODE_TRIES:
                    await self._fail_run(run, {"code": "finishing_failed", "message": str(error)[-1000:]})
                    return None
            await asyncio.sleep(settings.DECODE_RETRY_S * 2**failures)
        return None

    def _prompts_in_use(self) -> set[str]:
        return {key for run in self.runs.values() for key in run.prompt_keys.values()}

    def _note_store_error(self, error: Exception) -> None:
        self.metrics.store_errors.inc()
        log.warning("%s", error, extra={"action": "store"})

    def _spawn(self, work: Coroutine[Any, Any, None], run: JobRun) -> None:
        """Do it beside the loop. What goes wrong that nobody expected fails the job, not the farm."""

        async def guarded() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except StoreUnavailable as error:
                self._note_store_error(error)
            except Exception as error:
                log.exception("job %s met an internal error", run.id, extra={"action": "internal_error"})
                message = f"internal error: {type(error).__name__}: {error}"
                await self._fail_run(run, {"code": "internal_error", "message": message})

        task = asyncio.ensure_future(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
