"""From a storyboard to a job: which pool, which plan, what it will cost and when it may be done.

Both the API (before anything is stored) and the Director (when it takes a job up) go through here, so that a quote and
the work that follows are counted alike. Opens models by their configs only; renders nothing.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from serving.config.farm import FarmConfig, PoolConfig
from serving.documents.places import find_nearest
from serving.errors import Problem, StoryboardError, UserError
from serving.models.registry import open_model
from serving.models.wan import WanModel
from serving.planning.compile import compile_storyboard
from serving.planning.content_keys import content_key
from serving.planning.plan import FilmPlan, TakePlan
from serving.scheduler.cost_model import CostModel
from serving.store.artifact_keys import frames_artifact
from serving.store.artifacts import Artifacts
from serving.store.ids import new_id
from serving.store.jobs import JobStore
from serving.store.records import Job, JobStatus, Take
from serving.storyboard import Storyboard
from sharding.gang_shape import GangShape

DEFAULT_PRIORITY = 50

GANG_EFFICIENCY = 0.9
"""What is expected of gangs of several ranks before they were measured: others reach 0.86 to 0.98 with two to four GPUs
(xDiT's and LightX2V's published numbers on Wan and HunyuanVideo)."""


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
    """None if no due time was given or nothing is known."""
    frames: int
    seconds: float
    takes: tuple[TakeQuote, ...]
    warnings: tuple[Problem, ...]
    """What the film will not show of the storyboard."""


@dataclass(frozen=True)
class _Prices:
    """What films cost on the pools of a farm, by what is known of their calls at one moment."""

    config: FarmConfig
    costs: CostModel

    def cost_key(self, pool: PoolConfig, plan: FilmPlan) -> str:
        """See Admission.cost_key."""
        key = _cost_key(pool, plan)
        if not self.costs.is_measured(key):
            for other in self.config.pools:
                known = _cost_key(other, plan)
                if other.model == pool.model and self.costs.is_measured(known):
                    self.costs.expect_like(key, known, factor=_share(pool.shape) / _share(other.shape))
                    break
        return key

    def quote_take(self, pool: PoolConfig, plan: FilmPlan, take: TakePlan, *, cached: bool) -> TakeQuote:
        seconds = 0.0 if cached else self.costs.take_seconds(self.cost_key(pool, plan), take) * pool.shape.ranks
        return TakeQuote(
            key=take.key,
            shots=[shot.id for shot in take.shots],
            calls=0 if cached else take.calls,
            gpu_seconds=seconds,
            usd=seconds * pool.price_per_gpu_second,
            cached=cached,
        )

    def path_s(self, pool: PoolConfig, plan: FilmPlan, takes: Iterable[TakePlan]) -> float:
        """Seconds that the longest of some takes needs on any number of gangs; 0 if there are none."""
        key, window = self.cost_key(pool, plan), open_known_model(pool.model).capabilities.window
        return max((self.costs.path_seconds(key, take, window=window) for take in takes), default=0.0)


class Admission:
    """Plans and prices storyboards for the pools of one farm. `costs` is asked anew for every price."""

    def __init__(
        self, config: FarmConfig, jobs: JobStore, artifacts: Artifacts, costs: Callable[[], CostModel]
    ) -> None:
        self._config = config
        self._jobs = jobs
        self._artifacts = artifacts
        self._costs = costs

    def plan(
        self,
        storyboard: Storyboard,
        *,
        pool: str | None = None,
        steps: int | None = None,
        due_at: float | None = None,
        now: float = 0.0,
    ) -> Planned:
        """The plan of a storyboard, on the pool that is named or else on the one that suits it.

        Of the pools that serve its model: the cheapest that can be in time, or the one that is done first where none
        can; the cheapest where no due time is given. Raises StoryboardError, UserError, ModelError.
        """
        serving = self._serving(storyboard, pool)
        model = open_known_model(serving[0].model)
        plan = compile_storyboard(
            storyboard,
            model_name=model.name,
            capabilities=model.capabilities,
            tokens=model.prompt_tokens,
            steps=steps,
        )
        work = model.workload(width=plan.width, height=plan.height)
        fitting = [one for one in serving if one.shape.is_valid(work)]
        if not fitting:
            try:
                serving[0].shape.check(work)
            except ValueError as error:
                raise UserError(f"pool {serving[0].name} cannot render it: {error}") from error
        if len(fitting) == 1:
            return Planned(storyboard, steps, fitting[0], plan)
        return Planned(storyboard, steps, self._choose_pool(fitting, plan, due_at=due_at, now=now), plan)

    def plan_job(self, job: Job) -> Planned:
        """The plan of a job as it was accepted. Raises UserError if its pool or model is gone."""
        return self.plan(Storyboard.model_validate(job.storyboard), pool=job.pool, steps=job.steps)

    def content_keys(self, planned: Planned, numerics: Mapping[str, str], *, tenant: str) -> list[str]:
        """The content key of every take of a tenant's film, in the order of the film."""
        owner = "" if self._config.shares_takes else tenant
        return [content_key(planned.plan, take, numerics=numerics, owner=owner) for take in planned.plan.takes]

    def quote(self, planned: Planned, *, tenant: str, due_at: float | None, now: float) -> Quote:
        """What it costs the tenant and when it may be done, by what is known of the pool."""
        pool, plan = planned.pool, planned.plan
        numerics = self._jobs.pool_numerics(planned.pool.name)
        keys = self.content_keys(planned, numerics, tenant=tenant) if numerics else [""] * len(planned.plan.takes)
        existing = self._artifacts.existing({frames_artifact(key) for key in keys if key})
        cached = [frames_artifact(key) in existing for key in keys]
        prices = _Prices(self._config, self._costs())
        takes = tuple(
            prices.quote_take(pool, plan, take, cached=there) for take, there in zip(plan.takes, cached, strict=True)
        )
        seconds = sum(take.gpu_seconds for take in takes)
        rendered = [take for take, there in zip(plan.takes, cached, strict=True) if not there]
        path_s = prices.path_s(pool, plan, rendered)
        starts_at, finishes_at = self._when(planned.pool, seconds, path_s, now)
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
            warnings=planned.plan.warnings,
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
        """The records of a job that is about to be accepted; a version of `previous` if that is given."""
        identity = new_id("job", now)
        plan = planned.plan
        job = Job(
            id=identity,
            tenant=tenant,
            title=planned.storyboard.title,
            status=JobStatus.QUEUED,
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
            calls_total=plan.calls,
            created_at=now,
            updated_at=now,
        )
        return job, [_waiting(identity, index, take) for index, take in enumerate(plan.takes)]

    def cost_key(self, pool: PoolConfig, plan: FilmPlan) -> str:
        """What the cost model knows the calls of a film by. Of a shape of which nothing was measured it expects what
        another of the same model needs, shared out."""
        return _Prices(self._config, self._costs()).cost_key(pool, plan)

    def _when(self, pool: PoolConfig, gpu_s: float, path_s: float, now: float) -> tuple[float | None, float | None]:
        supply = self._jobs.pool_supply(pool.name)
        if supply is None or not supply.gangs_ready:
            return None, None
        gpus = supply.gangs_ready * pool.shape.ranks
        starts_at = now + supply.backlog_gpu_s / gpus
        return starts_at, starts_at + max(gpu_s / gpus, path_s)

    def _choose_pool(
        self, pools: Sequence[PoolConfig], plan: FilmPlan, *, due_at: float | None, now: float
    ) -> PoolConfig:
        """Nothing of it may be in the cache here: what is there makes every pool cheaper."""

        prices = _Prices(self._config, self._costs())

        def price(pool: PoolConfig) -> tuple[float, float, float]:
            takes = [prices.quote_take(pool, plan, take, cached=False) for take in plan.takes]
            gpu_s = sum(take.gpu_seconds for take in takes)
            _, finishes_at = self._when(pool, gpu_s, prices.path_s(pool, plan, plan.takes), now)
            return sum(take.usd for take in takes), gpu_s, math.inf if finishes_at is None else finishes_at

        priced = {pool.name: price(pool) for pool in pools}
        if due_at is not None:
            in_time = [pool for pool in pools if priced[pool.name][2] <= due_at]
            if not in_time:
                return min(pools, key=lambda pool: (priced[pool.name][2], priced[pool.name]))
            pools = in_time
        return min(pools, key=lambda pool: priced[pool.name])

    def _serving(self, storyboard: Storyboard, name: str | None) -> list[PoolConfig]:
        """The pools that may render it: one if it is named."""
        serving = [pool for pool in self._config.pools if pool.model == storyboard.model]
        if name is not None:
            return [self._named_pool(storyboard, name)]
        if not serving:
            models = sorted({pool.model for pool in self._config.pools})
            message = f"no pool of this farm serves it; the farm has {', '.join(models)}"
            problem = storyboard.lines.problem(("model",), message, value=storyboard.model)
            raise StoryboardError([problem])
        return serving

    def _named_pool(self, storyboard: Storyboard, name: str) -> PoolConfig:
        pool = self._config.pool(name)
        if pool is None:
            names = [known.name for known in self._config.pools]
            message = f"there is no such pool; the farm has {', '.join(names)}"
            raise StoryboardError([Problem("pool", message, value=name, nearest=find_nearest(name, names))])
        if pool.model != storyboard.model:
            raise UserError(f"pool {name} serves {pool.model}, but the storyboard asks for {storyboard.model}")
        return pool


def _cost_key(pool: PoolConfig, plan: FilmPlan) -> str:
    return f"{pool.model}|{plan.width}x{plan.height}|{pool.gang_shape}"


def _share(shape: GangShape) -> float:
    """Of one rank's time, that a call takes a gang."""
    return 1.0 if shape.ranks == 1 else 1.0 / (shape.ranks * GANG_EFFICIENCY)


@functools.lru_cache(maxsize=64)
def open_known_model(name: str) -> WanModel:
    """A model of the farm, opened once in each process. Raises ModelError."""
    return open_model(name)


def _waiting(job_id: str, index: int, take: TakePlan) -> Take:
    return Take(
        job_id=job_id,
        index=index,
        key=take.key,
        status="waiting",
        latents=take.latents,
        frames=take.frames - take.surplus,
        calls_total=take.calls,
        shots=[shot.id for shot in take.shots],
    )
