"""What a Director tells the world, again and again: how it stands (gauges), supply for quotes, measured costs.

It decides nothing; what happens is counted in counters.py and gangs.py.
"""

import asyncio
import math

from serving import settings
from serving.director.context import Desk
from serving.director.runs import JobRun, Stage
from serving.scheduler.state import PoolDemand

GANGS = "gangs"
"""Kind under which the store keeps the gangs of each pool that were counted as started."""


class Publishing:
    """Publishes what one Director knows."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def publish(self, now: float) -> None:
        """Tell it as it is now. Raises StoreUnavailable."""
        desk = self._desk
        desk.metrics.generation.set(desk.generation)
        desk.metrics.leases.set(len(desk.runs))
        desk.metrics.checkpoint_age.set(self._checkpoint_age_s(now))
        told = False
        for pool in desk.config.pools:
            demand = desk.state.demand(pool.name, now)
            self._show_pool(pool.name, demand, now)
            gangs = desk.gangs.count_started(pool.name)
            supply = {"gangs_ready": demand.gangs_ready, "backlog_gpu_s": round(demand.backlog_gpu_s, 3), "at": now}
            if desk.gangs.worth_telling(pool.name, supply):
                await asyncio.to_thread(desk.jobs.learn, "supply", pool.name, supply, now=now)
                await asyncio.to_thread(desk.jobs.learn, GANGS, pool.name, gangs, now=now)
                told = True
        if told:  # what holds for all pools, once
            await asyncio.to_thread(desk.jobs.learn, "costs", "calls", desk.costs.dump(), now=now)
            counts = await asyncio.to_thread(desk.jobs.count)
            desk.metrics.count_jobs({str(status): number for status, number in counts.items()})

    def _show_pool(self, pool: str, demand: PoolDemand, now: float) -> None:
        metrics, outlook = self._desk.metrics, self._desk.outlook
        metrics.backlog.labels(pool).set(max(demand.backlog_gpu_s, outlook.backlog_gpu_s(pool)))
        metrics.calls_ready.labels(pool).set(demand.calls_ready)
        metrics.set_gangs(pool, wanted=outlook.pools[pool].gangs_wanted, supply=outlook.supply(pool, now))
        metrics.due_slack.labels(pool).set(math.nan if demand.due_slack_s is None else demand.due_slack_s)
        if (measured_at := outlook.measured_at(pool)) is not None:
            metrics.demand_at.labels(pool).set(measured_at)
        runs = [run for run in self._desk.runs.values() if run.job.pool == pool]
        metrics.at_risk.labels(pool).set(sum(run.at_risk for run in runs))
        metrics.near_budget.labels(pool).set(sum(_is_near_budget(run) for run in runs))

    def _checkpoint_age_s(self, now: float) -> float:
        takes = [take for run in self._desk.runs.values() for take in run.takes if take.stage is Stage.RENDERING]
        working = [take for take in takes if take.progress is not None and not take.progress.done]
        return max((now - take.saved_at for take in working if take.saved_at is not None), default=0.0)


def _is_near_budget(run: JobRun) -> bool:
    budget = run.job.budget_usd
    return budget is not None and run.spent_usd >= settings.BUDGET_WARNING * budget
