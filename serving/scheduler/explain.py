"""Says in words why a job is where it is, and when it should start and finish. Pure.

Times come from a fluid picture of each pool: all its gangs work as one, higher priorities first, then the jobs whose
due time presses, then all tenants side by side by weight, each with its jobs by age. No job is faster than its longest
path or its cap allow. A few passes over the jobs tell it for all of them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from serving.scheduler.due_times import least_s
from serving.scheduler.queues import JobState, PoolQueues, Share
from serving.scheduler.state import FarmState


@dataclass(frozen=True, slots=True)
class JobEstimate:
    """When a job should start and finish, if nothing else comes."""

    position: int
    """1 is served first. Jobs that are held are not counted."""
    ahead_s: float
    """Gang-seconds of its pool that are served before its first call."""
    starts_at: float | None
    """Unix seconds; when it began, if it has. None if no gang serves its pool."""
    finishes_at: float | None
    at_risk: bool
    """It has a due time and will probably miss it."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a job stands."""

    words: str
    position: int | None
    """1 is next; None while it renders or is held."""
    ahead_gpu_seconds: float
    """Work of its pool that goes before it."""
    starts_at: float | None
    finishes_at: float | None
    """Unix seconds; None if no gang serves its pool, or it is held."""
    at_risk: bool
    reasons: tuple[str, ...]
    """The sentences of `words` but the first: what keeps it, or speeds it up."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "reasons": list(self.reasons)}


def estimate(state: FarmState, now: float) -> dict[str, JobEstimate]:
    """When every job that is not held should start and finish."""
    return {job_id: found for pool in state.pools.values() for job_id, found in _estimate_pool(pool, now)}


def explain(state: FarmState, job_id: str, now: float) -> Explanation | None:
    """Where a job stands; None for one that the scheduler does not have."""
    job = state.jobs.get(job_id)
    if job is None:
        return None
    pool = job.share.of.pool
    found = dict(_estimate_pool(pool, now)).get(job_id)
    if found is None:
        return Explanation(f"It is held: {job.held}.", None, 0.0, None, None, at_risk=job.at_risk, reasons=())
    where = _where(job, found)
    reasons = tuple(_reasons(job, found))
    return Explanation(
        words=" ".join([where, *reasons, *_times(found, now)]),
        position=None if job.in_flight else found.position,
        ahead_gpu_seconds=found.ahead_s * pool.spec.gpus_per_gang,
        starts_at=found.starts_at,
        finishes_at=found.finishes_at,
        at_risk=found.at_risk,
        reasons=reasons,
    )


# ---------------------------------------------------------------------------------------------------- the fluid picture


@dataclass(frozen=True, slots=True)
class _Served:
    """A job in the order of service."""

    job: JobState
    starts_s: float
    """Gang-seconds that the pool has done when it starts."""
    done_s: float
    """Gang-seconds that the pool has done when it is done."""
    own_s: float
    """Gang-seconds of its tenant up to its end."""


def _estimate_pool(pool: PoolQueues, now: float) -> Iterator[tuple[str, JobEstimate]]:
    for index, served in enumerate(_serve(pool)):
        starts_at, finishes_at = _when(pool, served, now)
        job, due_at = served.job, served.job.spec.due_at
        if due_at is not None and finishes_at is not None and not job.at_risk:
            least = least_s(pool, job)
            finishes_at = min(finishes_at, max(due_at, now + least))  # it goes before its turn when that presses
            if job.started_at is None and starts_at is not None:
                starts_at = min(starts_at, finishes_at - least)
        at_risk = due_at is not None and (job.at_risk or finishes_at is None or finishes_at > due_at)
        yield job.spec.id, JobEstimate(index + 1, served.starts_s, starts_at, finishes_at, at_risk)


def _when(pool: PoolQueues, served: _Served, now: float) -> tuple[float | None, float | None]:
    """When it should start and finish."""
    job, gangs = served.job, pool.ready_gangs
    if not gangs:
        return job.started_at, None
    cap = job.share.tenant.spec.max_calls
    own_gangs = gangs if cap is None else max(1, min(cap, gangs))
    begins_s = 0.0
    if job.started_at is None:
        begins_s = max(served.starts_s / gangs, (served.own_s - job.work_s) / own_gangs)
    ends_s = max(served.done_s / gangs, served.own_s / own_gangs, begins_s + least_s(pool, job))
    return now + begins_s if job.started_at is None else job.started_at, now + ends_s


def _serve(pool: PoolQueues) -> list[_Served]:
    """The jobs of a pool in the order of service."""
    order: list[_Served] = []
    done_s = 0.0
    for priority in sorted(pool.classes, reverse=True):
        jobs = [job for job in pool.jobs.values() if job.spec.priority == priority and not job.held]
        pressing = [job for job in jobs if job.pressing]
        for job in sorted(pressing, key=lambda job: (job.start_by, *_age(job))):
            order.append(_Served(job, done_s, done_s + job.work_s, job.work_s))
            done_s += job.work_s
        order += _serve_in_turn([job for job in jobs if not job.pressing], done_s)
        done_s = max((served.done_s for served in order), default=0.0)
    return order


def _serve_in_turn(jobs: Sequence[JobState], begin_s: float) -> list[_Served]:
    """Shares side by side by weight. In virtual time (own work done over weight) all go at the same rate, so the end of
    every job is known there; what the pool has done by then follows from going through the ends in order.
    """
    left = Counter(job.share for job in jobs)
    own: dict[Share, float] = {}
    ends: list[tuple[float, tuple[float, str], float, JobState]] = []
    for job in sorted(jobs, key=_age):
        own[job.share] = own.get(job.share, 0.0) + job.work_s
        ends.append((own[job.share] / job.share.tenant.spec.weight, _age(job), own[job.share], job))
    weight = sum(share.tenant.spec.weight for share in left)
    before = dict.fromkeys(left, begin_s)
    served, virtual_s, done_s = [], 0.0, begin_s
    for end_s, _, own_s, job in sorted(ends, key=lambda entry: entry[:2]):
        done_s += (end_s - virtual_s) * weight
        virtual_s = end_s
        served.append(_Served(job, before[job.share], done_s, own_s))
        before[job.share] = done_s
        left[job.share] -= 1
        if not left[job.share]:
            weight -= job.share.tenant.spec.weight
    return sorted(served, key=lambda one: (one.starts_s, _age(one.job)))


def _age(job: JobState) -> tuple[float, str]:
    return job.spec.created_at, job.spec.id


# ---------------------------------------------------------------------------------------------------- words


def _where(job: JobState, found: JobEstimate) -> str:
    pool = job.share.of.pool
    name, gangs = pool.spec.name, pool.ready_gangs
    if job.in_flight:
        more = f"; {len(job.by_film)} more could run now" if len(job.by_film) else ""
        return f"It is rendering: {_count(job.in_flight, 'call')} with gangs{more}."
    if not gangs:
        return f"It waits for a gang: pool {name} has none ready."
    if found.position == 1:
        return f"It is next in pool {name}, which has {_count(gangs, 'gang')}."
    length = _duration(found.ahead_s / gangs)
    return (
        f"It is number {found.position} in pool {name}: before it {_count(gangs, 'gang')} should be busy for {length}."
    )


def _reasons(job: JobState, found: JobEstimate) -> Iterator[str]:
    spec, share = job.spec, job.share
    jobs = [other for other in share.of.pool.jobs.values() if other is not job and not other.held and other.work_s > 0]
    higher = sum(other.spec.priority > spec.priority for other in jobs)
    if higher:
        verb = "has" if higher == 1 else "have"
        yield f"{_count(higher, 'job')} {verb} a higher priority than its {spec.priority}."
    if job.pressing:
        yield "It goes before its turn, to be done in time."
    elif hurried := sum(other.pressing and other.share.of is share.of for other in jobs):
        yield f"{_count(hurried, 'job')} must hurry to be done in time."
    others = {other.share for other in jobs if other.share.of is share.of} - {share}
    if others:
        weights = sum(other.tenant.spec.weight for other in others) + share.tenant.spec.weight
        part = f"{share.tenant.spec.weight / weights:.0%}"
        yield f"Tenant {spec.tenant} shares the pool with {_count(len(others), 'other tenant')} and has {part} of it."
    yield from _limits(job)
    if found.at_risk:
        yield "It will probably miss its due time."


def _limits(job: JobState) -> Iterator[str]:
    """What keeps it from having more calls out."""
    tenant = job.share.tenant.spec
    if not job.has_room:
        yield f"It has as many calls out as a job may: {job.spec.max_calls}."
    if not job.share.tenant.has_room:
        yield f"Tenant {tenant.name} has as many calls out as it may: {tenant.max_calls}."
    if not job.waiting and not job.in_flight:
        yield "None of its calls is ready yet."
    if retries := len(job.trouble):
        yield f"{_count(retries, 'call')} of it failed and {'is' if retries == 1 else 'are'} tried again."


def _times(found: JobEstimate, now: float) -> Iterator[str]:
    if found.finishes_at is None or found.starts_at is None:
        return
    finish = _duration(found.finishes_at - now)
    if found.starts_at <= now + 1:
        yield f"It should be done in {finish}."
    else:
        yield f"It should start in {_duration(found.starts_at - now)} and be done in {finish}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _duration(seconds: float) -> str:
    """In the unit that a person would use."""
    if seconds < 1:
        return "less than a second"
    if seconds < 90:
        return f"about {_count(round(seconds), 'second')}"
    if seconds < 90 * 60:
        return f"about {_count(round(seconds / 60), 'minute')}"
    if seconds < 48 * 3600:
        return f"about {_count(round(seconds / 3600), 'hour')}"
    return f"about {_count(round(seconds / 86_400), 'day')}"
