"""What each pool has to do, with how many gangs and on which terms: for scaling, for gauges and for GET /v1/pools.

It brings together the scheduler's books, the jobs that nobody holds yet, and what is known of gangs that start; reads
the store through JobStore alone. Everything but `refresh` answers at once.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cluster.contract.pools_and_nodes import PoolDemand, PoolSupply
from serving.config.farm import FarmConfig, PoolConfig
from serving.config.pool_terms import TERMS, read_terms
from serving.director.pools.pool_scaling import COLD_START, PoolScaling, open_scaling
from serving.director.pools.waiting_jobs import WaitingJobs
from serving.scheduler.due_times import gangs_for
from serving.scheduler.state import FarmState, PoolSpec
from serving.store.jobs import JobStore

log = logging.getLogger(__name__)


class FarmDemand:
    """What every pool of one farm has to do. Puts the pools into the scheduler's books."""

    def __init__(self, config: FarmConfig, state: FarmState, jobs: JobStore, waiting: WaitingJobs) -> None:
        self._config = config
        self._state = state
        self._jobs = jobs
        self._waiting = waiting
        self.pools: dict[str, PoolScaling] = open_scaling(config.pools)
        self._targets = {pool.name: pool.scaling.model_dump() for pool in config.pools if pool.scaling is not None}
        self._demand: dict[str, PoolDemand] = {}
        self._unwritten: set[str] = set()
        """Pools of which a start was measured that is not in the store."""
        self._use_terms({})

    def load(self) -> None:
        """Take over what was measured before. Blocks; raises StoreUnavailable."""
        for pool, dumped in self._jobs.recall_all(COLD_START).items():
            if pool in self.pools:
                self.pools[pool].load(dumped)

    def refresh(self, now: float) -> Mapping[str, Any]:
        """Look into the store, and write down what was measured; returns the stored terms, for `measure`. Blocks;
        raises StoreUnavailable."""
        self._waiting.look(now)
        for pool in list(self._unwritten):
            self._jobs.learn(COLD_START, pool, self.pools[pool].dump(), now=now)
            self._unwritten.discard(pool)
        return self._jobs.recall_all(TERMS)

    def measure(self, stored_terms: Mapping[str, Any], *, calls_soon: Mapping[str, int], now: float) -> None:
        """Use the terms, and see what there is to do. `calls_soon`: calls of each pool that only wait for a timeline
        that is being opened or moved."""
        self._use_terms(stored_terms)
        for pool in self._config.pools:
            self._demand[pool.name] = self._measure(pool, calls_soon.get(pool.name, 0), now)

    def gang_came(self, pool: str, leader: str, now: float) -> None:
        """A gang of this leader takes calls."""
        if pool in self.pools and self.pools[pool].gang_came(leader, now):
            self._unwritten.add(pool)

    def answer(self, pool: str, standing: Mapping[str, Any], now: float) -> dict[str, Any] | None:
        """To a pool's policy, which says what stands: the terms, targets, demand and supply to decide by.

        None for a pool that is unknown or does not scale, and before anything was measured.
        """
        if pool not in self._demand or pool not in self._targets:
            return None
        try:
            self.pools[pool].hear(standing, now)
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            log.warning(
                "pool %s: its policy is not understood: %s", pool, error, extra={"action": "scale", "pool": pool}
            )
        return {
            "terms": self.pools[pool].terms.model_dump(mode="json"),
            "targets": self._targets[pool],
            "demand": self._demand[pool].model_dump(mode="json"),
            "supply": self.supply(pool, now).model_dump(mode="json"),
        }

    def supply(self, pool: str, now: float) -> PoolSupply:
        """A pool's gangs as they are now."""
        found = self._state.load(pool, now)
        return self.pools[pool].supply(ready=found.gangs_ready, idle=found.gangs_idle, draining=found.gangs_draining)

    def backlog_gpu_s(self, pool: str) -> float:
        """As it was measured last."""
        return self._demand[pool].backlog_gpu_s if pool in self._demand else 0.0

    def demand(self, pool: str) -> PoolDemand | None:
        """What the pool has to do, as it was measured last; None before that."""
        return self._demand.get(pool)

    def describe(self, pool: str, now: float) -> dict[str, Any]:
        """As GET /v1/pools shows it; see PoolState."""
        scaling, demand = self.pools[pool], self._demand.get(pool)
        return {
            "gangs_wanted": scaling.gangs_wanted,
            "demand": None if demand is None else demand.model_dump(mode="json"),
            "supply": self.supply(pool, now).model_dump(mode="json"),
            "decision": None if scaling.decision is None else scaling.decision.model_dump(mode="json"),
        }

    def describe_due(self, pool: str) -> dict[str, Any]:
        """The same due times under the names that the pool's `live` part has always had."""
        demand = self._demand.get(pool)
        return {
            "required_rate": 0.0 if demand is None else demand.required_gangs,
            "due_slack_s": None if demand is None else demand.due_slack_s,
        }

    def _use_terms(self, stored: Mapping[str, Any]) -> None:
        every = read_terms(self._config, stored)
        for pool in self._config.pools:
            terms = every[pool.name]
            self.pools[pool.name].terms = terms
            spec = PoolSpec(pool.name, pool.slots, gpus_per_gang=pool.shape.ranks, max_gangs=terms.max_gangs)
            known = self._state.pools.get(pool.name)
            if known is None or known.spec != spec:
                self._state.put_pool(spec)

    def _measure(self, pool: PoolConfig, calls_soon: int, now: float) -> PoolDemand:
        here = self._state.load(pool.name, now)
        within_s = math.inf if pool.scaling is None else pool.scaling.drain_within_s
        there = self._waiting.work(pool.name, without=self._state.jobs.keys())
        due = [*self._state.due_work(pool.name), *there.due]
        required, slack_s = gangs_for(due, most=self.pools[pool.name].terms.max_gangs, now=now)
        waited_s = 0.0 if there.oldest_at is None else max(0.0, now - there.oldest_at)
        return PoolDemand(
            measured_at=now,
            backlog_gpu_s=(self._state.backlog_s(pool.name, within_s=within_s) + there.work_s) * pool.shape.ranks,
            gpus_per_gang=pool.shape.ranks,
            calls_ready=here.calls_ready + calls_soon + there.calls_ready,
            calls_running=here.calls_running,
            oldest_wait_s=max(here.oldest_wait_s, waited_s),
            required_gangs=required,
            due_slack_s=slack_s,
        )
