"""What the parts of a Director share: the jobs that it holds, the scheduler's books, and everything that it reaches.

One state with one owner: the parts (publishing, endings, finishing, rendering, taking up) work on it from one event
loop, and none keeps a copy. Here too is how work is done beside the loop, and how patient the Director is with a store
that does not answer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.config.farm import FarmConfig
from serving.director.counters import Counting
from serving.director.gangs import Gangs
from serving.director.pool_demand import FarmOutlook
from serving.director.ports import DecoderPort, HostPort
from serving.director.runs import JobRun, Stage, TakeRun
from serving.errors import ArtifactsUnavailable, Fenced, NotFound, OutOfSpace, StoreUnavailable, WrongState
from serving.jobs.lifecycle import Lifecycle
from serving.scheduler.cost_model import CostModel
from serving.scheduler.state import CallKey, FarmState, JobSpec
from serving.store.artifact_keys import frames_artifact, head_artifact, latents_artifact, preview_artifact
from serving.store.artifacts import Artifacts
from serving.store.jobs import JobStore
from serving.store.ledger import Ledger
from serving.telemetry.metrics import FarmMetrics

log = logging.getLogger(__name__)

NoRoomOrStore = (ArtifactsUnavailable, OutOfSpace)
"""What no job is to blame for: it is waited out, however long it takes."""


async def _nobody(run: JobRun, error: dict[str, Any]) -> None:
    """Before there is anybody to end jobs."""


@dataclass(eq=False)
class Desk:
    """Belongs to one Director."""

    config: FarmConfig
    clock: Callable[[], float]
    """Unix seconds."""
    jobs: JobStore
    lifecycle: Lifecycle
    ledger: Ledger
    artifacts: Artifacts
    hosts: Sequence[HostPort]
    decoder: DecoderPort
    costs: CostModel
    state: FarmState
    outlook: FarmOutlook
    gangs: Gangs
    metrics: FarmMetrics
    counting: Counting
    runs: dict[str, JobRun] = field(default_factory=dict)
    """The jobs that are held, by id."""
    by_content: dict[str, TakeRun] = field(default_factory=dict)
    """The take that renders each content key now; others with the same key wait for it."""
    generation: int = 0
    retired: bool = False
    """A newer Director is there: nothing new is taken up."""
    stopping: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where there may be something to give out."""
    sync_now: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    leaving: set[int] = field(default_factory=set)
    """Hosts that are about to move, by index: they get no takes."""
    renewed_at: float = 0.0
    """Unix seconds at which the leases were renewed last."""
    fail_run: Callable[[JobRun, dict[str, Any]], Awaitable[None]] = _nobody
    """Ends a job that met an error of ours; who ends jobs says so."""

    def poke(self) -> None:
        """Look into the store now."""
        self.sync_now.set()

    async def find_cached(self, take: TakeRun) -> None:
        """What is there of a take need not be made again. A film needs latents too: its manifest names them."""
        exists = self.artifacts.exists
        if not await asyncio.to_thread(exists, latents_artifact(take.content_key)):
            return
        take.stage, take.cached = Stage.RENDERED, True
        if await asyncio.to_thread(exists, frames_artifact(take.content_key)):
            take.stage, take.decode_complete = Stage.DECODED, True
            take.decoded_latents, take.decoded_frames = take.plan.latents, take.plan.frames - take.plan.surplus
        await self._find_pictures(take)

    async def _find_pictures(self, take: TakeRun) -> None:
        """What can be looked at of a take that others have rendered."""
        frames = take.plan.frames - take.plan.surplus
        preview, head = preview_artifact(take.content_key), head_artifact(take.content_key, frames)
        there = await asyncio.to_thread(self.artifacts.existing, (preview, head))
        take.has_preview = preview in there
        take.head_frames = frames if head in there else take.head_frames

    def spec(self, run: JobRun) -> JobSpec:
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
            max_calls=self.config.limits.calls_per_job,
            steps=run.plan.steps,
        )

    def is_held(self, run: JobRun) -> bool:
        job = self.state.jobs.get(run.id)
        return job is None or bool(job.held)

    def take(self, key: CallKey) -> TakeRun | None:
        run = self.runs.get(key.job_id)
        return next((take for take in run.takes if take.id.take_key == key.take_key), None) if run else None

    async def note(self, run: JobRun, kind: str, reason: str, data: dict[str, Any]) -> None:
        await self.try_store(
            lambda: self.jobs.note(
                run.id, token=run.job.lease_token, kind=kind, reason=reason, now=self.clock(), data=data
            )
        )

    async def try_store(self, write: Callable[[], Any]) -> None:
        """Write what may be left out if the store does not answer."""
        try:
            await asyncio.to_thread(write)
        except StoreUnavailable as error:
            self.note_store_error(error)
        except (Fenced, NotFound):
            pass  # the job is another's, or gone: found out by the next sync

    async def retrying_store(self, write: Callable[[], Any]) -> None:
        """Write what must not be lost: wait for the store as long as it takes."""
        while True:
            try:
                await asyncio.to_thread(write)
                return
            except StoreUnavailable as error:
                self.note_store_error(error)
                if self.stopping:
                    return
                await asyncio.sleep(self.config.poll_s)
            except (Fenced, NotFound, WrongState) as error:
                log.info("left to others: %s", error, extra={"action": "left_to_others"})
                return

    def note_store_error(self, error: Exception) -> None:
        self.counting.store_failed(error)
        log.warning("%s", error, extra={"action": "store"})

    def spawn(self, work: Coroutine[Any, Any, None], run: JobRun) -> None:
        """Do it beside the loop. What goes wrong that nobody expected fails the job, not the farm."""

        async def guarded() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except StoreUnavailable as error:
                self.note_store_error(error)
            except Exception as error:
                log.exception("an internal error", extra={"action": "internal_error", "job": run.id})
                message = f"internal error: {type(error).__name__}: {error}"
                await self.fail_run(run, {"code": "internal_error", "message": message})

        task = asyncio.ensure_future(guarded())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
