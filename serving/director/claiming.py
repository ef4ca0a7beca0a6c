"""Jobs are claimed from the store and made ready: planned, looked up among what is rendered already, prompts encoded.

A job that cannot be planned any more fails here.
"""

import asyncio
import logging

from serving.director.context import Desk
from serving.director.finishing import Finishing
from serving.director.outcomes import Endings
from serving.director.ports import EncoderPort
from serving.director.runs import JobRun, TakeRun
from serving.errors import LongtakeError, StoreUnavailable, UserError
from serving.jobs.admission import Admission, open_known_model
from serving.planning.content_keys import take_texts
from serving.scheduler.state import TenantSpec
from serving.store.artifact_keys import prompt_artifact
from serving.store.keys import ApiKeys
from serving.store.records import Job

log = logging.getLogger(__name__)


class TakingUp:
    """Takes up jobs for one Director, which is called `owner` in the leases."""

    def __init__(
        self,
        desk: Desk,
        *,
        owner: str,
        admission: Admission,
        tenants: ApiKeys,
        encoder: EncoderPort,
        endings: Endings,
        finishing: Finishing,
    ) -> None:
        self._desk = desk
        self._owner = owner
        self._admission = admission
        self._tenants = tenants
        self._encoder = encoder
        self._endings = endings
        self._finishing = finishing

    async def claim(self, now: float) -> None:
        room = self._desk.config.limits.active_jobs - len(self._desk.runs)
        ready = [pool.name for pool in self._desk.config.pools if self._desk.gangs.numerics(pool.name) is not None]
        unfit = await self._fail_unfit(now)
        ready += unfit
        if room <= 0 or not ready or self._desk.retired or self._desk.stopping:
            return
        claimed = await asyncio.to_thread(
            self._desk.jobs.claim,
            owner=self._owner,
            now=now,
            lease_s=self._desk.config.lease_s,
            limit=room,
            pools=ready,
        )
        for job in claimed:
            if job.id in self._desk.runs:  # our own lease ran out and nobody took it: begin again with the new token
                await self._endings.drop(job.id, save=True)
            if job.pool in unfit:
                await self._endings.fail(job, "model_unfit", unfit[job.pool])
                continue
            try:
                await self._take_up(job)
            except UserError as error:  # its pool or model is gone, or the storyboard is not understood any more
                await self._endings.fail(job, "cannot_render", str(error))
            except StoreUnavailable:
                raise
            except LongtakeError as error:
                await self._endings.fail(job, "cannot_start", str(error))

    async def _fail_unfit(self, now: float) -> dict[str, str]:
        """By pool, what is wrong with the model that keeps it without gangs; jobs that are held for it fail."""
        pools = [pool.name for pool in self._desk.config.pools]
        unfit = {name: problem for name in pools if (problem := self._desk.gangs.problem(name, now)) is not None}
        for run in [run for run in self._desk.runs.values() if run.job.pool in unfit]:
            await self._endings.fail_run(run, {"code": "model_unfit", "message": unfit[run.job.pool]})
        return unfit

    async def _take_up(self, job: Job) -> None:
        planned = await asyncio.to_thread(self._admission.plan_job, job)
        numerics = self._desk.gangs.numerics(job.pool)
        assert numerics is not None
        await asyncio.to_thread(self._desk.jobs.learn, "numerics", job.pool, numerics, now=self._desk.clock())
        keys = self._admission.content_keys(planned, numerics, tenant=job.tenant)
        stored = {take.key: take for take in await asyncio.to_thread(self._desk.jobs.takes, job.id)}
        takes = [
            TakeRun.taken_up(job.id, index, take, key, stored.get(take.key))
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
        self._desk.runs[job.id] = run
        words = "it is taken up: %d takes, %d calls"
        log.info(words, len(takes), run.plan.calls, extra={"action": "claim_job", "job": job.id, "pool": job.pool})
        self._desk.state.put_tenant(await self._tenant_spec(job.tenant))
        self._desk.state.put_job(self._desk.spec(run))
        self._endings.check_budget(run)
        self._desk.spawn(self._prepare(run), run)

    async def _tenant_spec(self, name: str) -> TenantSpec:
        """A tenant's share and caps; what it has none of its own for is as the farm's limits say."""
        own = await asyncio.to_thread(self._tenants.tenant, name)
        most = self._desk.config.limits.calls_per_tenant
        return TenantSpec(name, own.weight, most if own.max_concurrent_calls is None else own.max_concurrent_calls)

    async def _prepare(self, run: JobRun) -> None:
        """See what is there of it, and have its prompts encoded; then its takes may be opened."""
        missing = await self._endings.retrying(run, lambda: self._look_up(run))
        if missing:
            await self._endings.retrying(
                run, lambda: self._encoder.encode(run.plan.model, run.numerics["weights"], missing)
            )
        if self._desk.runs.get(run.id) is not run:
            return
        if run.started:  # whoever rendered it may have died between making its latents durable and this
            for take in run.takes:
                if take.done:
                    self._desk.spawn(self._finishing.clear_checkpoints(take), run)
        run.prepared = True
        self._desk.state.put_job(self._desk.spec(run))
        self._finishing.advance(run)
        self._desk.wake.set()

    async def _look_up(self, run: JobRun) -> list[str]:
        """Find takes that are done already; returns the texts that must be encoded for the others."""
        await asyncio.gather(*(self._desk.find_cached(take) for take in run.takes))
        if all(take.done for take in run.takes):
            return []
        there = await asyncio.to_thread(self._desk.artifacts.existing, run.prompt_keys.values())
        return [text for text, key in sorted(run.prompt_keys.items()) if key not in there]
