"""What the API needs from the rest of the farm, as it declares it. Whoever starts the API builds a Services.

Live is a protocol: the Director's handle fits it, and so does a small fake in tests.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request

from serving.api.feed import Feed
from serving.config.farm import FarmConfig
from serving.errors import Fault
from serving.jobs.admission import Admission
from serving.jobs.lifecycle import Lifecycle
from serving.scheduler.cost_model import CostModel
from serving.store.artifacts import Artifacts
from serving.store.assets import Assets
from serving.store.audit import AuditLog
from serving.store.database import Database, open_database
from serving.store.idempotency import IdempotencyKeys
from serving.store.jobs import JobStore
from serving.store.keys import ApiKeys
from serving.store.ledger import Ledger
from serving.store.log_lines import LogLines
from serving.store.webhooks import Webhooks
from serving.telemetry.histograms import ApiReport

log = logging.getLogger(__name__)


class Live(Protocol):
    """The running Director. Every method raises Fault if it cannot be reached."""

    def poke(self) -> None:
        """Have it look at the store now."""

    def explain(self, job_id: str) -> dict[str, Any] | None:
        """Why a job is where it is; None if the Director does not know it."""

    def timeline(self, job_id: str) -> list[dict[str, Any]] | None:
        """How far the latents of each take of a job are, and which calls of it gangs have now; None if the Director
        does not hold it. See schemas.TimelineTake."""

    def metrics(self) -> bytes:
        """The farm's metrics in Prometheus' text format."""

    def hear_api(self, report: ApiReport) -> None:
        """Tell it how fast this process answers."""

    def pools(self) -> list[dict[str, Any]]:
        """The pools as they are now."""

    def nodes(self) -> list[dict[str, Any]]:
        """The machines of the farm: NodeStates as JSON."""

    def drain(self, node_id: str, request: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Have a machine emptied; returns its NodeState as JSON, and whether that changed anything. `request` is a
        DrainRequest as JSON. Raises NotFound, WrongState."""


@dataclass(frozen=True)
class Services:
    """Everything that the routes work with."""

    database: Database
    jobs: JobStore
    lifecycle: Lifecycle
    ledger: Ledger
    keys: ApiKeys
    idempotency: IdempotencyKeys
    webhooks: Webhooks
    audit: AuditLog
    log_lines: LogLines
    artifacts: Artifacts
    assets: Assets
    config: FarmConfig
    admission: Admission
    live: Live
    clock: Callable[[], float]
    """Unix seconds."""


class Poker:
    """Tells the Director to look at the store, without keeping anybody waiting: one message at a time is on its way,
    and one that cannot be told finds the change by itself."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="poke")
        self._waiting = False
        self._told = True

    def poke(self) -> None:
        """Returns at once."""
        if not self._waiting:
            self._waiting = True
            self._thread.submit(self._tell)

    def close(self) -> None:
        """Send nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _tell(self) -> None:
        self._waiting = False  # first, so that a change made from now on is told again
        try:
            self._live.poke()
        except Fault as error:
            if self._told:  # once, not with every job
                log.warning("the Director was not told: %s", error, extra={"action": "poke"})
            self._told = False
        else:
            self._told = True


def open_services(config: FarmConfig, live: Live) -> Services:
    """The real store, artifacts and admission of a farm. Raises StoreUnavailable, UserError."""
    database = open_database(config.store_url)
    jobs, artifacts = JobStore(database), Artifacts.open(config.artifacts_url)

    def costs() -> CostModel:
        """As the Director has measured them until now."""
        measured = CostModel()
        measured.load(jobs.recall("costs", "calls") or {})
        return measured

    return Services(
        database=database,
        jobs=jobs,
        lifecycle=Lifecycle(database),
        ledger=Ledger(database),
        keys=ApiKeys(database),
        idempotency=IdempotencyKeys(database),
        webhooks=Webhooks(database),
        audit=AuditLog(database),
        log_lines=LogLines(database),
        artifacts=artifacts,
        assets=Assets(database, artifacts),
        config=config,
        admission=Admission(config, jobs, artifacts, costs),
        live=live,
        clock=time.time,
    )


# Async, because FastAPI sends every other function to a thread, which costs more than these do.


async def _find_services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


async def _find_feed(request: Request) -> Feed:
    feed = request.app.state.feed
    assert isinstance(feed, Feed)
    return feed


async def _find_poker(request: Request) -> Poker:
    poker = request.app.state.poker
    assert isinstance(poker, Poker)
    return poker


TheServices = Annotated[Services, Depends(_find_services)]
TheFeed = Annotated[Feed, Depends(_find_feed)]
ThePoker = Annotated[Poker, Depends(_find_poker)]
