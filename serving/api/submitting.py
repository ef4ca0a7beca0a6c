"""Accepts jobs: new ones, and new versions of old ones. Everything that may refuse comes before anything is stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.api.caller import Caller
from serving.api.errors import RETRY_FAULT_S, ApiError, refuse
from serving.api.fetching import fetch_pictures, stand_in
from serving.api.services import Poker, Services
from serving.api.wire.jobs import Quote
from serving.api.wire.requests import JobOptions
from serving.documents.places import write_path
from serving.errors import Problem, UserError
from serving.jobs.admission import DEFAULT_PRIORITY
from serving.store.assets import MissingAssets
from serving.store.records import IdempotencyRecord, Job, JobStatus, Take
from serving.storyboard import Storyboard
from serving.storyboard.schema import asset_of


@dataclass(frozen=True)
class Order:
    """A storyboard that somebody wants rendered, and how."""

    storyboard: Storyboard
    options: JobOptions
    kind: str = "native"
    previous: Job | None = None
    """The version that this one comes after."""

    @property
    def due_at(self) -> float | None:
        """As asked for, else as it was."""
        due_at: float | None = self._term("due_at")
        return due_at

    def _term(self, name: str) -> Any:
        """An option, else what it was in the version before; one that was said to be null is none."""
        if name in self.options.model_fields_set or self.previous is None:
            return getattr(self.options, name)
        return getattr(self.previous, name)

    def terms(self) -> dict[str, Any]:
        """What the job is to be treated by."""
        priority = self._term("priority")
        return {
            "priority": DEFAULT_PRIORITY if priority is None else priority,
            "due_at": self.due_at,
            "budget_usd": self._term("budget_usd"),
            "tags": self._term("tags") or {},
        }

    def place(self) -> dict[str, Any]:
        """Where it is to be rendered, and in how many steps."""
        pool = self.options.pool
        if pool is None and self.previous is not None and self.previous.model == self.storyboard.model:
            pool = self.previous.pool
        return {"pool": pool, "steps": self._steps(), "due_at": self.options.due_at}

    def _steps(self) -> int | None:
        """As asked for; else as in the version before, unless the quality is another, which brings its own."""
        asked = "steps" in self.options.model_fields_set
        if asked or self.previous is None or self.previous.storyboard["quality"] != self.storyboard.quality:
            return self.options.steps
        return self.previous.steps


@dataclass(frozen=True)
class Accepted:
    """What became of an order."""

    job: Job
    takes: Sequence[Take]
    replayed: bool
    """The request came before, and this is its job."""
    warnings: Sequence[Problem] = ()
    """What the film will not show of the storyboard; see FilmPlan."""


def check_due(services: Services, order: Order) -> None:
    """Raises ApiError if the film is wanted in the past."""
    due_at = order.options.due_at
    if due_at is not None and due_at <= services.clock():
        raise refuse([Problem("due_at", "must be in the future", value=f"{due_at:.0f}")])


def plan_order(services: Services, order: Order, storyboard: Storyboard | None = None) -> Any:
    """The order as a Planned; without a storyboard to render instead of its own, for a price alone: pictures at
    addresses are not fetched. Raises StoryboardError, UserError if it cannot be rendered like that."""
    storyboard = storyboard or stand_in(services, order.storyboard)
    return services.admission.plan(storyboard, **order.place(), now=services.clock())


def price_order(services: Services, order: Order, tenant: str) -> Quote:
    """The quote of an order of this tenant; nothing is stored. Raises ApiError, StoryboardError, UserError."""
    check_due(services, order)
    planned = plan_order(services, order)
    found = services.admission.quote(planned, tenant=tenant, due_at=order.due_at, now=services.clock())
    return Quote.model_validate(found)


def accept(
    services: Services,
    poker: Poker,
    caller: Caller,
    order: Order,
    *,
    record: IdempotencyRecord | None = None,
) -> Accepted:
    """Store an order as a job; of a request that came before, return its job.

    Raises ApiError, StoryboardError, UserError; nothing is stored then.
    """
    tenant = tenant_of(caller, order)
    try:
        check_due(services, order)
        check_room(services, tenant)
        planned = plan_order(services, order, fetch_pictures(services, tenant, order.storyboard))
    except (ApiError, UserError):
        # What could not be accepted now may have been before; only then is it worth a look.
        if record is not None and (earlier := services.jobs.find_request(record, now=services.clock())) is not None:
            return Accepted(earlier, services.jobs.takes(earlier.id), replayed=True)
        raise
    now = services.clock()
    job, takes = services.admission.new_job(
        planned, tenant=tenant, kind=order.kind, previous=order.previous, now=now, **order.terms()
    )
    assets = sorted({asset for take in planned.plan.takes for asset in take.assets})
    try:
        stored = services.jobs.insert(job, takes, actor=caller.actor, assets=assets, idempotency=record)
    except MissingAssets as error:
        raise _unsent(order.storyboard, error.missing) from error
    if stored.id != job.id:
        return Accepted(stored, services.jobs.takes(stored.id), replayed=True, warnings=planned.plan.warnings)
    poker.poke()
    return Accepted(stored, takes, replayed=False, warnings=planned.plan.warnings)


def tenant_of(caller: Caller, order: Order) -> str:
    """Whose the job will be. Raises ApiError if it may not be theirs."""
    wanted = order.options.tenant or (order.previous.tenant if order.previous else caller.tenant)
    if wanted != caller.tenant and not caller.is_admin:
        raise ApiError(403, "only an administrator may submit for another tenant", code="admin_only")
    return wanted


def _unsent(storyboard: Storyboard, missing: Sequence[str]) -> ApiError:
    """422 with every picture that must be sent first, once each."""
    first: dict[str, Problem] = {}
    for place, picture in storyboard.pictures():
        if (sha256 := asset_of(picture)) in missing:
            message = "is not there, or not for this tenant: send it first (POST /v1/assets)"
            first.setdefault(str(sha256), Problem(write_path(place), message, value=picture))
    problems = list(first.values())
    return ApiError(422, f"{len(problems)} pictures must be sent first", code="assets_missing", problems=problems)


def check_room(services: Services, tenant: str) -> None:
    """Raises ApiError if the tenant has as many waiting jobs as it may. Requests at the same moment may pass it by
    one each."""
    most = services.config.limits.queued_jobs_per_tenant
    waiting = services.jobs.count(tenant=tenant, statuses=(JobStatus.QUEUED,))[JobStatus.QUEUED]
    if waiting >= most:
        headers = {"Retry-After": str(12 * RETRY_FAULT_S)}
        raise ApiError(429, f"{waiting} jobs are waiting, and {most} may", code="too_many_jobs", headers=headers)


def as_final(job: Job) -> Storyboard:
    """The storyboard of a draft at final quality: the same seeds, so the same film, better. Raises ApiError."""
    storyboard = Storyboard.model_validate(job.storyboard)
    if storyboard.quality == "final" and job.steps is None:
        raise ApiError(409, f"job {job.id} is of final quality already", code="already_final", allowed=[])
    return storyboard.model_copy(update={"quality": "final"})
