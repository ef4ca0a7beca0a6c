"""Periodically exports a Director's gauges, and stores supply and measured costs for quotes.

It decides nothing; what happens is counted in counters.py and gangs.py.
"""

import asyncio
import math
from collections.abc import Callable, Sequence

from serving import settings
from serving.config.farm import PoolConfig
from serving.director.held_jobs import HeldJobs
from serving.director.job_leases import JobLeases
from serving.director.pools.gangs import Gangs
from serving.director.pools.pool_demand import FarmDemand
from serving.director.runs import JobRun
from serving.scheduler.cost_model import CostModel
from serving.scheduler.state import FarmState, PoolLoad
from serving.store.assets import Assets
from serving.store.jobs import JobStore
from serving.telemetry.metrics import FarmMetrics

GANGS = "gangs"
"""Kind under which the store keeps the gangs of each pool that were counted as started."""


class Gauges:
    """Of one Director. `clock` gives Unix seconds."""

    def __init__(
        self,
        metrics: FarmMetrics,
        pools: Sequence[PoolConfig],
        held: HeldJobs,
        state: FarmState,
        gangs: Gangs,
        demand: FarmDemand,
        costs: CostModel,
        leases: JobLeases,
        jobs: JobStore,
        assets: Assets,
        clock: Callable[[], float],
    ) -> None:
        self._metrics = metrics
        self._pools = pools
        self._held = held
        self._state = state
        self._gangs = gangs
        self._demand = demand
        self._costs = costs
        self._leases = leases
        self._jobs = jobs
        self._assets = assets
        self._clock = clock

    async def publish(self) -> None:
        """Show and store everything as it is now. Raises StoreUnavailable."""
        now = self._clock()
        self._metrics.generation.set(self._leases.generation)
        self._metrics.leases.set(len(self._held.runs))
        self._metrics.checkpoint_age.set(self._checkpoint_age_s(now))
        stored = False
        for pool in self._pools:
            load = self._state.load(pool.name, now)
            self._show_pool(pool.name, load, now)
            gangs = self._gangs.count_started(pool.name)
            supply = {"gangs_ready": load.gangs_ready, "backlog_gpu_s": round(load.backlog_gpu_s, 3), "at": now}
            if self._gangs.worth_telling(pool.name, supply):
                await asyncio.to_thread(self._jobs.learn, "supply", pool.name, supply, now=now)
                await asyncio.to_thread(self._jobs.learn, GANGS, pool.name, gangs, now=now)
                stored = True
        if stored:  # what holds for all pools, once
            await asyncio.to_thread(self._jobs.learn, "costs", "calls", self._costs.dump(), now=now)
            counts = await asyncio.to_thread(self._jobs.count)
            self._metrics.count_jobs({str(status): number for status, number in counts.items()})
            files, kept_bytes = await asyncio.to_thread(self._assets.usage)
            self._metrics.assets.set(files)
            self._metrics.asset_bytes.set(kept_bytes)

    def _show_pool(self, pool: str, load: PoolLoad, now: float) -> None:
        metrics = self._metrics
        metrics.backlog.labels(pool).set(max(load.backlog_gpu_s, self._demand.backlog_gpu_s(pool)))
        metrics.calls_ready.labels(pool).set(load.calls_ready)
        metrics.set_gangs(pool, wanted=self._demand.pools[pool].gangs_wanted, supply=self._demand.supply(pool, now))
        if (demand := self._demand.demand(pool)) is not None:
            metrics.due_slack.labels(pool).set(math.nan if demand.due_slack_s is None else demand.due_slack_s)
            metrics.demand_at.labels(pool).set(demand.measured_at)
        runs = [run for run in self._held.runs.values() if run.job.pool == pool]
        metrics.at_risk.labels(pool).set(sum(run.at_risk for run in runs))
        metrics.near_budget.labels(pool).set(sum(_is_near_budget(run) for run in runs))

    def _checkpoint_age_s(self, now: float) -> float:
        working = [take for take in self._held.takes() if take.held and take.progress and not take.progress.done]
        return max((now - take.saved_at for take in working if take.saved_at is not None), default=0.0)


def _is_near_budget(run: JobRun) -> bool:
    budget = run.job.budget_usd
    return budget is not None and run.spent_usd >= settings.BUDGET_WARNING * budget
