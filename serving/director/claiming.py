"""Jobs are claimed from the store and made ready: planned, looked up among what is rendered already, prompts and
pictures encoded.

A job that cannot be planned any more fails here.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from serving.config.farm import FarmConfig
from serving.director.finishing import Finishing
from serving.director.held_jobs import HeldJobs
from serving.director.job_leases import JobLeases
from serving.director.outcomes import Outcomes
from serving.director.pools.gangs import Gangs
from serving.director.ports import EncoderPort
from serving.director.runs import JobRun, TakeRun
from serving.errors import ArtifactMissing, LongtakeError, StoreUnavailable, UserError
from serving.jobs.admission import Admission, open_known_model
from serving.planning.content_keys import take_texts
from serving.render.farm_messages import ConditionOrder
from serving.scheduler.state import TenantSpec
from serving.store.artifact_keys import condition_artifact, prompt_artifact
from serving.store.artifacts import Artifacts
from serving.store.jobs import JobStore
from serving.store.keys import ApiKeys
from serving.store.records import Job

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _ToEncode:
    """What of a job must be encoded before its takes can be opened."""

    texts: list[str]
    conditions: list[ConditionOrder]


class Claiming:
    """Claims jobs for one Director. `wake` is set when there may be something to open; `clock` gives Unix seconds."""

    def __init__(
        self,
        config: FarmConfig,
        leases: JobLeases,
        held: HeldJobs,
        gangs: Gangs,
        outcomes: Outcomes,
        finishing: Finishing,
        admission: Admission,
        tenants: ApiKeys,
        jobs: JobStore,
        artifacts: Artifacts,
        encoder: EncoderPort,
        wake: asyncio.Event,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._admission = admission
        self._tenants = tenants
        self._jobs = jobs
        self._artifacts = artifacts
        self._encoder = encoder
        self._leases = leases
        self._gangs = gangs
        self._held = held
        self._outcomes = outcomes
        self._finishing = finishing
        self._wake = wake
        self._clock = clock

    async def claim(self) -> None:
        """Claim as many jobs as there is room for, of pools that have gangs. Raises StoreUnavailable.

        Jobs of a pool whose model no gang can load are claimed too, to fail with what is wrong with it.
        """
        room = self._config.limits.active_jobs - len(self._held.runs)
        ready = [pool.name for pool in self._config.pools if self._gangs.numerics(pool.name) is not None]
        unfit = await self._fail_unfit()
        ready += unfit
        if room <= 0 or not ready or self._leases.retired:
            return
        claimed = await asyncio.to_thread(
            self._jobs.claim,
            owner=self._leases.owner,
            now=self._clock(),
            lease_s=self._leases.lease_s,
            limit=room,
            pools=ready,
        )
        for job in claimed:
            if job.id in self._held.runs:  # our own lease ran out and nobody took it: begin again with the new token
                await self._outcomes.drop(job.id, save=True)
            if job.pool in unfit:
                await self._outcomes.refuse(job, "model_unfit", unfit[job.pool])
                continue
            try:
                await self._hold(job)
            except UserError as error:  # its pool or model is gone, or the storyboard is not understood any more
                await self._outcomes.refuse(job, "cannot_render", str(error))
            except StoreUnavailable:
                raise
            except LongtakeError as error:
                await self._outcomes.refuse(job, "cannot_start", str(error))

    async def _fail_unfit(self) -> dict[str, str]:
        """By pool, what is wrong with the model that keeps it without gangs; jobs that are held for it fail."""
        pools = [pool.name for pool in self._config.pools]
        unfit = {name: problem for name in pools if (problem := self._gangs.problem(name, self._clock())) is not None}
        for run in [run for run in self._held.runs.values() if run.job.pool in unfit]:
            await self._outcomes.fail(run, {"code": "model_unfit", "message": unfit[run.job.pool]})
        return unfit

    async def _hold(self, job: Job) -> None:
        planned = await asyncio.to_thread(self._admission.plan_job, job)
        numerics = self._gangs.numerics(job.pool)
        assert numerics is not None
        await asyncio.to_thread(self._jobs.learn, "numerics", job.pool, numerics, now=self._clock())
        keys = self._admission.content_keys(planned, numerics, tenant=job.tenant)
        stored = {take.key: take for take in await asyncio.to_thread(self._jobs.takes, job.id)}
        takes = [
            TakeRun.claimed(job.id, index, take, key, stored.get(take.key))
            for index, (take, key) in enumerate(zip(planned.plan.takes, keys, strict=True))
        ]
        texts = {text for take in planned.plan.takes for text in take_texts(take)}
        run = JobRun(
            job=job,
            plan=planned.plan,
            capabilities=open_known_model(planned.pool.model).capabilities,
            cost_key=self._admission.cost_key(planned.pool, planned.plan),
            numerics=numerics,
            prompt_keys={text: prompt_artifact(numerics["weights"], text) for text in texts},
            takes=takes,
            ranks=planned.pool.shape.ranks,
            price_per_gpu_second=planned.pool.price_per_gpu_second,
            spent_usd=job.usd,
            started=job.status == "in_progress",
        )
        words = "it is claimed: %d takes, %d calls"
        log.info(words, len(takes), run.plan.calls, extra={"action": "claim_job", "job": job.id, "pool": job.pool})
        self._held.put_tenant(await self._tenant_spec(job.tenant))
        self._held.add(run)
        self._outcomes.check_budget(run)
        self._outcomes.spawn(self._make_ready(run), run)

    async def _tenant_spec(self, name: str) -> TenantSpec:
        """A tenant's share and caps; what it has not set is as the farm's limits say."""
        own = await asyncio.to_thread(self._tenants.tenant, name)
        most = self._config.limits.calls_per_tenant
        return TenantSpec(name, own.weight, most if own.max_concurrent_calls is None else own.max_concurrent_calls)

    async def _make_ready(self, run: JobRun) -> None:
        """See what is there of it, and have its prompts encoded; then its takes may be opened."""
        found = await self._outcomes.trying(run, lambda: self._look_up(run))
        if found is not None and found.texts:
            weights = run.numerics["weights"]
            await self._outcomes.trying(run, lambda: self._encoder.encode(run.plan.model, weights, found.texts))
        for order in found.conditions if found is not None else ():
            await self._encode_pictures(run, order)
        if not self._held.holds(run):
            return
        if run.started:  # who rendered it may have died between making its latents durable and this
            for take in run.takes:
                if take.done:
                    self._outcomes.spawn(self._finishing.clear_checkpoints(take), run)
        run.prepared = True
        self._held.tell_scheduler(run)
        self._finishing.advance(run)
        self._wake.set()

    async def _encode_pictures(self, run: JobRun, order: ConditionOrder) -> None:
        try:
            await self._outcomes.trying(run, lambda: self._encoder.encode_pictures(order))
        except ArtifactMissing:
            message = f"a picture of take {order.take.key} is not there any more; send it again and revise the film"
            await self._outcomes.fail(run, {"code": "asset_missing", "message": message})

    async def _look_up(self, run: JobRun) -> _ToEncode:
        """Find takes that are done already; returns what must be encoded for the others."""
        await asyncio.gather(*(self._finishing.find_cached(take) for take in run.takes))
        if all(take.done for take in run.takes):
            return _ToEncode([], [])
        pictured = {condition_artifact(take.content_key): take for take in run.takes if take.plan.conditioned}
        there = await asyncio.to_thread(self._artifacts.existing, [*run.prompt_keys.values(), *pictured])
        texts = [text for text, key in sorted(run.prompt_keys.items()) if key not in there]
        missing = [take for key, take in pictured.items() if key not in there and not take.done]
        orders = [ConditionOrder(run.plan, take.plan, take.content_key, run.job.tenant) for take in missing]
        return _ToEncode(texts, orders)
