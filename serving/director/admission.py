"""From a storyboard to a job: which pool, which plan, what it will cost and when it may be done.

Both the API (before anything is stored) and the Director (when it takes a job up) go through here, so that a quote and
the work that follows are counted alike. Opens models by their configs only; renders nothing.
"""

import difflib
import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from serving.compile import compile_storyboard
from serving.director.cost_model import CostModel
from serving.errors import Problem, StoryboardError, UserError
from serving.farm_config import FarmConfig, PoolConfig
from serving.models.registry import open_model
from serving.models.wan import WanModel
from serving.plan import FilmPlan, TakePlan
from serving.render.content import content_key
from serving.store.artifacts import Artifacts
from serving.store.ids import new_id
from serving.store.jobs import JobStore
from serving.store.names import frames_artifact
from serving.store.records import Job, Take
from serving.storyboard import Storyboard

DEFAULT_PRIORITY = 50


@dataclass(frozen=True)
class Planned:
    """A storyboard that can be rendered, with the pool that would."""

    storyboard: Storyboard
    steps: int | None
    pool: PoolConfig
    plan: FilmPlan


@dataclass(frozen=True)
class TakeQuote:
    """What one take costs."""

    key: str
    shots: list[str]
    calls: int
    gpu_seconds: float
    usd: float
    cached: bool
    """It need not be rendered: an equal take is there already."""


@dataclass(frozen=True)
class Quote:
    """What a film costs and when it may be there. Cached takes count nothing."""

    pool: str
    calls: int
    gpu_seconds: float
    usd: float
    starts_at: float | None
    finishes_at: float | None
    """Unix seconds, if it were submitted now at default priority; None while the pool has no gang."""
    due_feasible: bool | None
    """None where no due time was given or nothing is known."""
    frames: int
    seconds: float
    takes: tuple[TakeQuote, ...]

    def to_json(self) -> dict[str, Any]:
        """As the API answers it: unix seconds are whole."""
        times = {"starts_at": self.starts_at, "finishes_at": self.finishes_at}
        whole = {key: None if value is None else int(value) for key, value in times.items()}
        return {"object": "quote", **asdict(self), **whole}


class Admission:
    """Plans and prices storyboards for the pools of one farm."""

    def __init__(self, config: FarmConfig, jobs: JobStore, artifacts: Artifacts, costs: CostModel) -> None:
        self._config = config
        self._jobs = jobs
        self._artifacts = artifacts
        self._costs = costs

    def plan(self, storyboard: Storyboard, *, pool: str | None = None, steps: int | None = None) -> Planned:
        """The plan of a storyboard on a pool that serves its model. Raises StoryboardError, UserError, ModelError."""
        chosen = self._choose_pool(storyboard, pool)
        model = open_known_model(chosen.model)
        plan = compile_storyboard(storyboard, model_name=chosen.model, capabilities=model.capabilities, steps=steps)
        return Planned(storyboard, steps, chosen, plan)

    def plan_job(self, job: Job) -> Planned:
        """The plan of a job as it was accepted. Raises UserError where its pool or model is gone."""
        return self.plan(Storyboard.model_validate(job.storyboard), pool=job.pool, steps=job.steps)

    def content_keys(self, planned: Planned, numerics: Mapping[str, str]) -> list[str]:
        """The content key of every take, in the order of the film."""
        return [content_key(planned.plan, take, numerics=numerics) for take in planned.plan.takes]

    def quote(self, planned: Planned, *, due_at: float | None, now: float) -> Quote:
        """What it costs and when it may be done, by what is known of the pool."""
        numerics = self._jobs.pool_numerics(planned.pool.name)
        keys = self.content_keys(planned, numerics) if numerics else [""] * len(planned.plan.takes)
        there = self._artifacts.existing({frames_artifact(key) for key in keys if key})
        cached = [frames_artifact(key) in there for key in keys]
        takes = tuple(
            self._quote_take(planned, take, is_there) for take, is_there in zip(planned.plan.takes, cached, strict=True)
        )
        seconds = sum(take.gpu_seconds for take in takes)
        starts_at, finishes_at = self._when(planned.pool, seconds, now)
        return Quote(
            pool=planned.pool.name,
            calls=sum(take.calls for take in takes),
            gpu_seconds=seconds,
            usd=sum(take.usd for take in takes),
            starts_at=starts_at,
            finishes_at=finishes_at,
            due_feasible=None if due_at is None or finishes_at is None else finishes_at <= due_at,
            frames=planned.plan.frames,
            seconds=planned.plan.frames / planned.plan.fps,
            takes=takes,
        )

    def new_job(
        self,
        planned: Planned,
        *,
        tenant: str,
        priority: int = DEFAULT_PRIORITY,
        due_at: float | None = None,
        budget_usd: float | None = None,
        tags: Mapping[str, str] | None = None,
        kind: str = "native",
        previous: Job | None = None,
        now: float,
    ) -> tuple[Job, list[Take]]:
        """The records of a job that is about to be accepted; a version of `previous` where that is given."""
        identity = new_id("job", now)
        plan = planned.plan
        job = Job(
            id=identity,
            tenant=tenant,
            title=planned.storyboard.title,
            status="queued",
            reason="accepted",
            version=previous.version + 1 if previous else 1,
            family=previous.family if previous else identity,
            parent=previous.id if previous else None,
            storyboard=planned.storyboard.model_dump(mode="json"),
            storyboard_hash=plan.storyboard_hash,
            steps=planned.steps,
            model=plan.model,
            pool=planned.pool.name,
            priority=priority,
            due_at=due_at,
            budget_usd=budget_usd,
            tags=dict(tags or {}),
            kind=kind,
            progress=0.0,
            calls_total=plan.calls,
            calls_done=0,
            eta_at=None,
            at_risk=False,
            gpu_seconds=0.0,
            wasted_gpu_seconds=0.0,
            usd=0.0,
            film=None,
            error=None,
            created_at=now,
            started_at=None,
            finished_at=None,
            updated_at=now,
            revision=1,
            lease_owner=None,
            lease_token=0,
            lease_until=None,
            deleted_at=None,
        )
        return job, [_waiting(identity, index, take) for index, take in enumerate(plan.takes)]

    def cost_key(self, pool: PoolConfig, plan: FilmPlan) -> str:
        """What the cost model knows the calls of a film by."""
        return f"{pool.model}|{plan.width}x{plan.height}|{pool.gang_shape}"

    def _quote_take(self, planned: Planned, take: TakePlan, cached: bool) -> TakeQuote:
        gang_s = 0.0 if cached else self._costs.take_seconds(self.cost_key(planned.pool, planned.plan), take)
        seconds = gang_s * planned.pool.shape.ranks
        return TakeQuote(
            key=take.key,
            shots=[shot.id for shot in take.shots],
            calls=0 if cached else take.calls,
            gpu_seconds=seconds,
            usd=seconds * planned.pool.price_per_gpu_second,
            cached=cached,
        )

    def _when(self, pool: PoolConfig, gpu_s: float, now: float) -> tuple[float | None, float | None]:
        supply = self._jobs.pool_supply(pool.name)
        if supply is None or not supply.gangs_ready:
            return None, None
        gpus = supply.gangs_ready * pool.shape.ranks
        starts_at = now + supply.backlog_gpu_s / gpus
        return starts_at, starts_at + gpu_s / gpus

    def _choose_pool(self, storyboard: Storyboard, name: str | None) -> PoolConfig:
        serving = [pool for pool in self._config.pools if pool.model == storyboard.model]
        if name is not None:
            return self._named_pool(storyboard, name)
        if not serving:
            models = sorted({pool.model for pool in self._config.pools})
            message = f"no pool of this farm serves it; the farm has {', '.join(models)}"
            problem = storyboard.lines.problem(("model",), message, value=storyboard.model)
            raise StoryboardError([problem])
        return serving[0]

    def _named_pool(self, storyboard: Storyboard, name: str) -> PoolConfig:
        pool = self._config.pool(name)
        names = ", ".join(known.name for known in self._config.pools)
        if pool is None:
            nearest = difflib.get_close_matches(name, [known.name for known in self._config.pools], n=1)
            message = f"there is no such pool; the farm has {names}"
            raise StoryboardError([Problem("pool", message, value=name, nearest=nearest[0] if nearest else None)])
        if pool.model != storyboard.model:
            raise UserError(f"pool {name} serves {pool.model}, but the storyboard asks for {storyboard.model}")
        return pool


@functools.lru_cache(maxsize=64)
def open_known_model(name: str) -> WanModel:
    """A model of the farm, opened once in each process. Raises ModelError."""
    return open_model(name)


def _waiting(job_id: str, index: int, take: TakePlan) -> Take:
    return Take(
        job_id=job_id,
        index=index,
        key=take.key,
        content_key=None,
        status="waiting",
        latents=take.latents,
        frames=take.frames - take.surplus,
        calls_total=take.calls,
        calls_done=0,
        latents_finished=0,
        frames_decoded=0,
        step_counts=[],
        cached=False,
        retries=0,
        gpu_seconds=0.0,
        wasted_gpu_seconds=0.0,
        shots=[shot.id for shot in take.shots],
    )
