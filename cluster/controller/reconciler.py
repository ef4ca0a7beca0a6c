"""Carries out what pool_plan.py decides: tells the farm the terms of pools, and RenderPools what the farm says."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cluster.contract.pools_and_nodes import PoolTerms
from cluster.controller.actions import Actions
from cluster.controller.drainer import about_pool
from cluster.controller.metrics import ControllerMetrics
from cluster.controller.pool_plan import (
    TERMS_PENDING,
    TERMS_REFUSED,
    PutTerms,
    WriteStatus,
    check_pool,
    plan_first_replicas,
    plan_statuses,
    plan_terms,
    with_terms,
)
from cluster.controller.pool_status import READY, FarmReport, Readiness, as_patch
from cluster.crd import RENDER_POOLS
from cluster.errors import FarmRefused, FarmUnavailable
from cluster.kube.client import Json, Kube
from cluster.kube.events import EventType
from cluster.render_pool import RenderPool

log = logging.getLogger(__name__)


class TermsFarm(Protocol):
    """Takes terms; FarmClient is one."""

    def put_terms(self, pool: str, terms: PoolTerms) -> None:
        """Raises FarmRefused, FarmUnavailable."""


class Reconciler:
    """Brings RenderPools and the farm together, round after round. It remembers nothing."""

    def __init__(self, *, kube: Kube, farm: TermsFarm, metrics: ControllerMetrics) -> None:
        self._kube, self._farm, self._metrics = kube, farm, metrics

    def reconcile(self, pools: Sequence[RenderPool], report: FarmReport, actions: Actions, *, now: float) -> None:
        """One round. Raises NotLeader."""
        failed: dict[str, Readiness] = {}
        done: list[PutTerms] = []
        for change in plan_terms(pools, report):
            failure = self._put_terms(change, actions)
            if failure is None:
                done.append(change)
            else:
                failed[change.render_pool.key] = failure
        started = {first.render_pool.key for first in plan_first_replicas(pools, report)}
        for first in plan_first_replicas(pools, report):
            self._set_first_replicas(first.render_pool, first.replicas, actions)
        after = with_terms(report, done)
        for write in plan_statuses(pools, after, failed=failed, now=now):
            if write.render_pool.key not in started:  # it has another version now; the next round sees it
                self._write_status(write, actions)
        ready = {pool.key: (failed.get(pool.key) or check_pool(pool, pools, after)).truth == "True" for pool in pools}
        self._metrics.show_pools(pools, ready)

    def _put_terms(self, change: PutTerms, actions: Actions) -> Readiness | None:
        """None if the farm took them."""
        errors: list[str] = []

        def put() -> None:
            try:
                self._farm.put_terms(change.pool, change.terms)
            except (FarmRefused, FarmUnavailable) as error:
                errors.append(str(error))
                raise

        outcome = actions.run("farm", "put_terms", put)
        if outcome == "done":
            log.info("pool %s: %s", change.pool, _changes(change), extra={"action": "put_terms", "pool": change.pool})
            return None
        reason = TERMS_REFUSED if outcome == "refused" else TERMS_PENDING
        return Readiness("False", reason, errors[0] if errors else "the farm does not answer")

    def _set_first_replicas(self, pool: RenderPool, replicas: int, actions: Actions) -> None:
        patch: Json = {"metadata": {"resourceVersion": pool.version}, "spec": {"replicas": replicas}}
        actions.run(
            "kubernetes",
            "begin_replicas",
            lambda: self._kube.patch(RENDER_POOLS, pool.name, patch, namespace=pool.namespace),
        )

    def _write_status(self, write: WriteStatus, actions: Actions) -> None:
        pool, ready = write.render_pool, write.status.condition(READY)
        if write.news is not None and ready is not None and ready.status != "Unknown":
            kind: EventType = "Normal" if ready.status == "True" else "Warning"
            actions.emit(about_pool(pool), reason=ready.reason, message=write.news, kind=kind)
        status: Json = dict(as_patch(write.status))
        actions.run(
            "kubernetes",
            "write_status",
            lambda: self._kube.patch_status(
                RENDER_POOLS, pool.name, status, namespace=pool.namespace, version=pool.version
            ),
        )


def _changes(change: PutTerms) -> str:
    old: Mapping[str, Any] = change.before.model_dump()
    new: Mapping[str, Any] = change.terms.model_dump()
    return ", ".join(f"{name} {old[name]} -> {new[name]}" for name in new if old[name] != new[name])
