"""Which due times press, and which cannot be kept. Pure.

As many jobs as possible should be in time. Jobs are taken in, earliest due first; whenever the last one taken in could
not be in time behind the others, the one with the most work left is let go (Moore and Hodgson 1968, for one machine as
fast as the pool, but no job faster than its longest path and cap allow). A job that is let go is at risk: it has its
ordinary turn, and is looked at again next time.

Of the others, a job presses from its latest start on: that which leaves enough time to every job due after it and to
the known work of higher priorities, with a margin. Until then it has its ordinary turn too, so that due times cost
nobody more than they must. Those that press go in the order of their latest starts: one that is bound by its path
cannot wait for another that is due earlier and could still use the whole pool.
"""

import heapq
from collections.abc import Sequence

from serving.scheduler.queues import JobState, PoolQueues
from serving.scheduler.specs import DueWork
from serving.settings import SEND_AHEAD_S

DUE_CAPACITY = 0.85
"""Part of a pool's gangs that due times may count on; the rest is for retries, losses and the turns of others."""

DUE_MARGIN = 1.25
"""Times as long as it should take at least that a job is given before its due time; also SEND_AHEAD_S for each step,
for the wait in a gang's slot, and DUE_LEAD_S."""

DUE_LEAD_S = 60.0
"""Seconds; see DUE_MARGIN. A job that would be late by no more still goes before its turn."""


def least_s(pool: PoolQueues, job: JobState) -> float:
    """Seconds that a job takes at least, if every gang of its pool that it may use worked for it."""
    limits = (pool.ready_gangs, job.spec.max_calls, job.share.tenant.spec.max_calls)
    gangs = max(1, min(limit for limit in limits if limit is not None))
    return max(job.least_path_s, job.work_s / gangs)


def gangs_for(due: Sequence[DueWork], *, most: int, now: float) -> tuple[float, float | None]:
    """Gangs that are needed from now on for every due time that `most` gangs could keep, and the seconds to spare of
    the tightest of those; 0 and None if there is none. The same rule as above, for gangs that need not be there."""
    kept: list[DueWork] = []
    total_s = 0.0
    for one in sorted(due, key=lambda work: work.due_at):
        if now + one.path_s > one.due_at or one.due_at <= now:
            continue
        kept.append(one)
        total_s += one.work_s
        if total_s > most * (one.due_at - now):
            largest = max(kept, key=lambda work: work.work_s)
            kept.remove(largest)
            total_s -= largest.work_s
    needed = rate = 0.0
    for one in kept:
        needed += one.work_s
        rate = max(rate, needed / (one.due_at - now))
    return rate, min((one.due_at - now - max(one.path_s, one.work_s / max(1, most)) for one in kept), default=None)


def review(pool: PoolQueues, now: float) -> None:
    """Find which jobs press and which are at risk, class by class: higher priorities go before."""
    pool.reviewed_at = now
    rate = DUE_CAPACITY * pool.ready_gangs
    if not rate:
        return
    by_priority: dict[int, list[JobState]] = {}
    for job in pool.jobs.values():
        if not job.held and job.work_s > 0:
            by_priority.setdefault(job.spec.priority, []).append(job)
    lowest = min(job.spec.priority for job in pool.jobs.values() if job.spec.due_at is not None)
    before: list[JobState] = []
    for priority in sorted(by_priority, reverse=True):
        if priority < lowest:
            return
        due = [job for job in by_priority[priority] if job.spec.due_at is not None]
        if due:
            _review_class(pool, due, before=before, rate=rate, now=now)
        before += by_priority[priority]


def _review_class(pool: PoolQueues, jobs: list[JobState], *, before: list[JobState], rate: float, now: float) -> None:
    jobs.sort(key=lambda job: (job.spec.due_at, job.spec.created_at, job.spec.id))
    least = {job: least_s(pool, job) for job in jobs}
    service, higher = _Service(), _Service()
    for job in before:
        least_before = least_s(pool, job)
        service.add(job, least_before)
        higher.add(job, least_before)
    # Until a job is due, higher priorities leave it less time; it must start that much sooner among its own.
    ahead_s = {job: higher.by(max(0.0, _due(job) - now)) / rate for job in jobs}
    kept = _admit(jobs, least, service=service, rate=rate, now=now)
    next_start = float("inf")
    for job in reversed(jobs):
        due_at = _due(job)
        pressing, start_by = False, due_at - DUE_MARGIN * least[job] - job.calls_left * SEND_AHEAD_S - DUE_LEAD_S
        job.at_risk = job not in kept or now + least[job] > due_at
        if job in kept:
            next_start = min(due_at, next_start) - DUE_MARGIN * job.work_s / rate
            pressing = job.pressing or now >= min(next_start - DUE_LEAD_S, start_by) - ahead_s[job]
        if (pressing, start_by) != (job.pressing, job.start_by):
            job.step_aside()
            job.pressing, job.start_by = pressing, start_by
            job.settle()


def _admit(
    jobs: list[JobState], least: dict[JobState, float], *, service: "_Service", rate: float, now: float
) -> set[JobState]:
    """The jobs that can be in time, of `jobs` by due time."""
    kept: set[JobState] = set()
    most_work: list[tuple[float, int, JobState]] = []
    for index, job in enumerate(jobs):
        time_s = _due(job) - now
        if least[job] > time_s + DUE_LEAD_S:  # a little late is still better than very late
            continue
        service.add(job, least[job])
        kept.add(job)
        heapq.heappush(most_work, (-job.work_s, index, job))
        if time_s > 0 and service.by(time_s) > rate * time_s:
            let_go = heapq.heappop(most_work)[2]
            service.remove(let_go, least[let_go])
            kept.remove(let_go)
    return kept


class _Service:
    """Gang-seconds that jobs can have been served by a time, if each gets all that it can use from now on: a job is
    done no sooner than the least time that it takes, whatever the pool. Asked for later and later times.
    """

    def __init__(self) -> None:
        self._done_s = 0.0
        self._rate = 0.0
        """Gangs that the jobs use which are not done."""
        self._open: list[tuple[float, int, float]] = []
        self._time_s = 0.0

    def add(self, job: JobState, least: float) -> None:
        if least <= self._time_s:
            self._done_s += job.work_s
        else:
            self._rate += job.work_s / least
            heapq.heappush(self._open, (least, id(job), job.work_s))

    def remove(self, job: JobState, least: float) -> None:
        if least <= self._time_s:
            self._done_s -= job.work_s
        else:
            self._rate -= job.work_s / least
            self._open.remove((least, id(job), job.work_s))
            heapq.heapify(self._open)

    def by(self, time_s: float) -> float:
        self._time_s = max(self._time_s, time_s)
        while self._open and self._open[0][0] <= time_s:
            least, _, work_s = heapq.heappop(self._open)
            self._rate -= work_s / least
            self._done_s += work_s
        return self._done_s + self._rate * time_s


def _due(job: JobState) -> float:
    assert job.spec.due_at is not None
    return job.spec.due_at
