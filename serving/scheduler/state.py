"""What the scheduler knows: pools, gangs, jobs and their ready calls, kept by events. No clock, no I/O.

The Director tells it what happened; policy.py reads it to decide what happens next, due_times.py whose due time
presses. How things stand in order is in queues.py. Every count that it keeps is a sum of things that it holds, and
`check_invariants` says so. Unknown names in events are ignored: what they name has gone meanwhile.
"""

from collections.abc import Iterable, Sequence
from math import inf

from serving.scheduler.cost_model import CostModel
from serving.scheduler.due_times import review
from serving.scheduler.failures import Attempt, CallVerdict, FailureKind, GangRecord, Trouble, judge
from serving.scheduler.invariants import check
from serving.scheduler.queues import Flight, GangState, JobState, PoolQueues, TenantState, WaitingCall, Warmth
from serving.scheduler.specs import (
    Assignment,
    CallKey,
    DueWork,
    JobSpec,
    PoolLoad,
    PoolSpec,
    ReadyCall,
    TenantSpec,
)
from serving.settings import DUE_REVIEW_S

MIN_DEADLINE_S = 10.0
"""Seconds that a call is always given; less would take a busy machine for a stuck gang."""

DEADLINE_FACTOR = 8.0
"""Times its expected length after which a call is taken for stuck."""

FIRST_CALL_S = 120.0
"""Seconds added for calls whose cost was never measured, and for a gang's first call of each expert: the model may have
to be loaded first."""

WARM_TAKES = 64
"""Takes whose prompts a gang is believed to hold; the least used is forgotten first."""


__all__ = [
    "Assignment",
    "CallKey",
    "FarmState",
    "Flight",
    "GangState",
    "JobSpec",
    "JobState",
    "PoolLoad",
    "PoolQueues",
    "PoolSpec",
    "ReadyCall",
    "TenantSpec",
]


class FarmState:
    """The whole farm as the scheduler sees it."""

    def __init__(self, costs: CostModel) -> None:
        self.costs = costs
        self.pools: dict[str, PoolQueues] = {}
        self.gangs: dict[str, GangState] = {}
        self.jobs: dict[str, JobState] = {}
        self.tenants: dict[str, TenantState] = {}
        self.calls: dict[CallKey, Flight] = {}
        """Calls that are out and that somebody waits for."""
        self._record = GangRecord()
        self._now = float("-inf")
        """The latest time that it was told."""

    # ------------------------------------------------------------------------------------------------ who is there

    def put_pool(self, spec: PoolSpec) -> None:
        """A new pool, or new terms for one that is there."""
        if spec.name not in self.pools:
            self.pools[spec.name] = PoolQueues(spec)
        pool = self.pools[spec.name]
        pool.spec = spec
        for gang in pool.gangs.values():
            pool.settle_gang(gang)

    def put_tenant(self, spec: TenantSpec) -> None:
        """A new tenant, or new terms for one that is there."""
        if spec.name not in self.tenants:
            self.tenants[spec.name] = TenantState(spec)
        tenant = self.tenants[spec.name]
        tenant.spec = spec
        for share in tenant.shares:
            share.settle()

    def put_job(self, spec: JobSpec) -> None:
        """A new job, or new terms for one that is there: all but its pool may change.

        Raises ValueError for a pool that is unknown, or not the job's.
        """
        job = self.jobs.get(spec.id)
        if spec.pool not in self.pools or (job is not None and job.spec.pool != spec.pool):
            raise ValueError(f"job {spec.id} cannot be put into pool {spec.pool}")
        if spec.tenant not in self.tenants:
            self.put_tenant(TenantSpec(spec.tenant))
        if job is None:
            self._add_job(spec)
            return
        pool, before = self.pools[spec.pool], job.spec
        job.step_aside()
        pool.num_due += (spec.due_at is not None) - (before.due_at is not None)
        if (spec.due_at, spec.priority) != (before.due_at, before.priority):
            job.pressing, pool.reviewed_at = False, float("-inf")
            job.at_risk = job.at_risk and spec.due_at is not None
        if (spec.tenant, spec.priority) != (before.tenant, before.priority):
            self._leave_share(job)
            self.tenants[before.tenant].in_flight -= job.in_flight
            self.tenants[spec.tenant].in_flight += job.in_flight
            self._settle_tenant(self.tenants[before.tenant])
            self._settle_tenant(self.tenants[spec.tenant])
            job.share = pool.share_of(self.tenants[spec.tenant], spec.priority)
            job.share.jobs += 1
        job.spec, job.work_s = spec, spec.work_s
        job.settle()

    def hold_job(self, job_id: str, why: str) -> None:
        """Give it nothing more until it is freed; calls that are out come back as usual."""
        if (job := self.jobs.get(job_id)) is not None:
            job.held = why
            job.settle()

    def free_job(self, job_id: str) -> None:
        """Give it calls again."""
        self.hold_job(job_id, "")

    def drop_job(self, job_id: str) -> None:
        """Forget it; its calls that are out only keep their gangs busy."""
        if (job := self.jobs.get(job_id)) is None:
            return
        self._forget(job, list(job.waiting.values()), list(job.flights.values()))
        pool = self.pools[job.spec.pool]
        pool.num_due -= job.spec.due_at is not None
        self._leave_share(job)
        del self.jobs[job_id], pool.jobs[job_id]

    def gang_joined(self, gang: str, pool: str) -> None:
        """It is there, or still there."""
        if gang not in self.gangs and pool in self.pools:
            of = self.pools[pool]
            self.gangs[gang] = of.gangs[gang] = GangState(gang, of)
            of.ready_gangs += 1
            of.settle_gang(self.gangs[gang])

    def gang_draining(self, gang: str) -> None:
        """Give it no more calls."""
        if (state := self.gangs.get(gang)) is not None and not state.draining:
            state.draining = True
            state.pool.ready_gangs -= 1
            state.pool.settle_gang(state)

    def gang_left(self, gang: str, now: float) -> list[CallKey]:
        """It is gone: its calls may be given out again. Returns them, the one that it was working on first.

        If it died under a call, tell call_failed of that one first: what is left counts against nobody.
        """
        self._tell(now)
        if (state := self.gangs.get(gang)) is None:
            return []
        self.gang_draining(gang)
        self._record.forget(gang)
        flights = list(state.calls.values())
        for flight in flights:
            self._land(flight)
            if not flight.ghost:
                self._wait(flight.waiting, now)
        del self.gangs[gang], state.pool.gangs[gang]
        return [flight.call.key for flight in flights if not flight.ghost]

    # ------------------------------------------------------------------------------------------------ calls

    def calls_ready(self, job_id: str, calls: Sequence[ReadyCall], now: float) -> None:
        """Calls that may be given out. Those that wait or are out already change nothing; one that was finished and is
        told of again is given out again.
        """
        self._tell(now)
        if (job := self.jobs.get(job_id)) is None:
            return
        for call in calls:
            if call.key not in job.waiting and call.key not in job.flights:
                seen = job.takes.setdefault(call.key.take_key, len(job.takes))
                order = (call.take_index, seen, call.start, call.key.step, call.key.chunk)
                expected = self.costs.seconds(job.spec.cost_key, latents=call.latents, evaluations=call.evaluations)
                waiting = WaitingCall(
                    call=call,
                    job=job,
                    film_order=order,
                    warmth=Warmth(job_id, call.key.take_key, call.expert),
                    expected_s=expected,
                    path_s=expected * call.calls_left,
                    since=now,
                )
                if (trouble := job.trouble.get(call.key)) is not None:
                    waiting.avoid = trouble.gangs
                job.waiting[call.key] = waiting
                job.offer(waiting)
        job.settle()

    def forget_take(self, job_id: str, take_key: str) -> None:
        """Its timeline is gone; its calls will be told of again. Those that are out only keep their gangs busy."""
        if (job := self.jobs.get(job_id)) is not None:
            waiting = [call for key, call in job.waiting.items() if key.take_key == take_key]
            self._forget(job, waiting, [out for key, out in job.flights.items() if key.take_key == take_key])

    def rest_take(self, job_id: str, take_key: str) -> None:
        """Give out nothing more of it: its timeline is about to move. Calls that are out end as usual; those that wait
        will be told of again."""
        if (job := self.jobs.get(job_id)) is not None:
            self._forget(job, [call for key, call in job.waiting.items() if key.take_key == take_key], [])

    def has_calls_out(self, job_id: str, take_key: str) -> bool:
        """Whether a gang has a call of this take that somebody waits for."""
        job = self.jobs.get(job_id)
        return job is not None and any(key.take_key == take_key for key in job.flights)

    def call_given(self, waiting: WaitingCall, gang: GangState, now: float) -> Assignment:
        """Note that a waiting call goes to a gang; policy.py decides which."""
        job, call, pool = waiting.job, waiting.call, gang.pool
        expected = self.costs.seconds(job.spec.cost_key, latents=call.latents, evaluations=call.evaluations)
        flight = Flight(
            waiting=waiting,
            gang=gang.id,
            since=now,
            expected_s=expected,
            ends_at=max(now, gang.free_at) + expected,
            deadline_at=self._deadline_at(gang, expected, known=self._is_known(call, gang), now=now),
            share=job.share,
        )
        del job.waiting[call.key]
        job.withdraw(waiting)
        self.calls[call.key] = job.flights[call.key] = flight
        if job.started_at is None:
            job.started_at = now
        tenant = job.share.tenant
        tenant.in_flight += 1
        job.share.charge(expected)
        if tenant.spec.max_calls is not None and tenant.in_flight == tenant.spec.max_calls:
            self._settle_tenant(tenant)
        job.settle()
        gang.calls[call.key], gang.free_at = flight, flight.ends_at
        pool.settle_gang(gang)
        gang.warm.pop(waiting.warmth, None)
        gang.warm[waiting.warmth] = None
        if len(gang.warm) > WARM_TAKES:
            del gang.warm[next(iter(gang.warm))]
        # The difference of two times since 1970 is rounded, and may fall short of what was added.
        deadline_s = max(MIN_DEADLINE_S, expected, flight.deadline_at - now)
        return Assignment(call.key, gang.id, expected, deadline_s)

    def call_finished(self, key: CallKey, gang: str, seconds: float) -> bool:
        """It is done; `seconds` is what the gang worked, without the wait in its slot. False if nothing was known of
        it: it was taken back before.
        """
        flight = self._land_from(key, gang)
        if flight is None or flight.ghost:
            return False
        job, cost_key = flight.waiting.job, flight.waiting.job.spec.cost_key
        job.work_s = max(0.0, job.work_s - flight.expected_s)
        job.trouble.pop(key, None)
        self.gangs[gang].loaded.add(flight.call.expert)
        flight.share.charge(seconds - flight.expected_s)
        self._record.succeeded(cost_key, gang)
        call = flight.call
        self.costs.observe(cost_key, latents=call.latents, evaluations=call.evaluations, seconds=seconds)
        return True

    def call_failed(self, key: CallKey, gang: str, kind: FailureKind, detail: str, now: float) -> CallVerdict | None:
        """It failed: what follows. None if nothing was known of it: it was taken back before.

        A gang that must be replaced is given nothing more; a job that fails is held until it is dropped.
        """
        self._tell(now)
        flight = self._land_from(key, gang)
        if flight is None or flight.ghost:
            return None
        job = flight.waiting.job
        flight.share.charge(-flight.expected_s)  # what fails is not service
        counted = kind not in ("host_lost", "drained", "preempted")
        to_blame = counted and self._record.failed(job.spec.cost_key, gang)
        trouble = job.trouble.setdefault(key, Trouble()) if counted else job.trouble.get(key, Trouble())
        verdict = judge(trouble, Attempt(gang, kind, detail, now), gang_to_blame=to_blame)
        if verdict.replace_gang:
            self.gang_draining(gang)
        if verdict.retry_at is None:
            self.hold_job(job.spec.id, f"it fails: a call of take {key.take_key} failed {len(verdict.evidence)} times")
        else:
            flight.waiting.avoid = trouble.gangs
            self._wait(flight.waiting, now, retry_at=verdict.retry_at)
        return verdict

    def call_moot(self, key: CallKey, gang: str) -> None:
        """It is not needed any more: somebody else did it, or its timeline has gone on without it."""
        flight = self._land_from(key, gang)
        if flight is not None and not flight.ghost:
            flight.share.charge(-flight.expected_s)

    # ------------------------------------------------------------------------------------------------ time

    def pass_time(self, now: float) -> None:
        """Do what is due by now: calls whose wait is over are ready again, due times are looked at."""
        self._tell(now)
        for pool in self.pools.values():
            while (call := pool.delayed.first()) is not None and pool.delayed.key(call) <= now:
                pool.delayed.discard(call)
                call.delayed = False
                call.job.offer(call)
                call.job.settle()
            while (ghost := pool.ghosts.first()) is not None and ghost.ends_at <= now:
                self._land(ghost)
            if pool.num_due and now - pool.reviewed_at >= DUE_REVIEW_S:
                review(pool, now)

    def restore_offers(self, calls: Iterable[WaitingCall]) -> None:
        """Put calls back that were withdrawn while gangs for others were looked for."""
        for call in calls:
            call.job.offer(call)
            call.job.settle()

    # ------------------------------------------------------------------------------------------------ questions

    def num_gangs(self, pool: str) -> int:
        """Gangs of a pool that are given calls."""
        return self.pools[pool].ready_gangs if pool in self.pools else 0

    def load(self, pool: str, now: float) -> PoolLoad:
        """The calls of a pool and the gangs for them. Looks at every job of the pool."""
        of = self.pools[pool]
        by_tenant: dict[str, list[JobState]] = {}
        for job in of.jobs.values():
            if len(job.by_film) and not job.held and job.has_room and job.share.tenant.has_room:
                by_tenant.setdefault(job.spec.tenant, []).append(job)
        ready = sum(
            _least(sum(_least(len(job.by_film), job.room) for job in jobs), self.tenants[name].room)
            for name, jobs in by_tenant.items()
        )
        waits = [
            max(call.since, job.room_since, job.share.tenant.room_since)
            for jobs in by_tenant.values()
            for job in jobs
            for call in job.by_film
        ]
        return PoolLoad(
            backlog_gpu_s=of.spec.gpus_per_gang * sum(job.work_s for job in of.jobs.values() if not job.held),
            calls_ready=ready,
            calls_running=sum(len(gang.calls) for gang in of.gangs.values()),
            gangs_ready=of.ready_gangs,
            gangs_draining=len(of.gangs) - of.ready_gangs,
            gangs_idle=len(of.idle),
            oldest_wait_s=max(0.0, now - min(waits, default=now)),
        )

    def backlog_s(self, pool: str, *, within_s: float) -> float:
        """Gang-seconds of the calls that are not done; of a job or tenant with a cap no more than the calls that it may
        have out can do within so many seconds. The rest waits for the cap, and more gangs would not help it."""
        by_tenant: dict[str, float] = {}
        for job in self.pools[pool].jobs.values():
            if not job.held:
                most_s = inf if job.spec.max_calls is None else job.spec.max_calls * within_s
                by_tenant[job.spec.tenant] = by_tenant.get(job.spec.tenant, 0.0) + min(job.work_s, most_s)
        caps = {name: self.tenants[name].spec.max_calls for name in by_tenant}
        return sum(
            work_s if (cap := caps[name]) is None else min(work_s, cap * within_s) for name, work_s in by_tenant.items()
        )

    def due_work(self, pool: str) -> list[DueWork]:
        """What a pool's jobs with a due time still need, those that are held not counted."""
        return [
            DueWork(job.spec.due_at, job.work_s, job.least_path_s)
            for job in self.pools[pool].jobs.values()
            if job.spec.due_at is not None and not job.held and job.work_s > 0
        ]

    def check_invariants(self) -> None:
        """Raises AssertionError if the counts do not fit what they count. Looks at everything."""
        check(self.pools, self.gangs, self.jobs, self.tenants, self.calls)

    # ------------------------------------------------------------------------------------------------ inner

    def _tell(self, now: float) -> None:
        self._now = max(self._now, now)

    def _add_job(self, spec: JobSpec) -> None:
        pool = self.pools[spec.pool]
        share = pool.share_of(self.tenants[spec.tenant], spec.priority)
        share.jobs += 1
        self.jobs[spec.id] = pool.jobs[spec.id] = JobState(spec, share, spec.work_s)
        if spec.due_at is not None:
            pool.num_due += 1
            pool.reviewed_at = float("-inf")

    def _leave_share(self, job: JobState) -> None:
        """Leave the share, and its class with the last job: what was served in it then means nothing any more."""
        job.step_aside()
        share = job.share
        share.jobs -= 1
        of = share.of
        if not any(other.jobs for other in of.shares.values()):
            for other in of.shares.values():
                other.tenant.shares.remove(other)
            del of.pool.classes[of.priority]

    def _settle_tenant(self, tenant: TenantState) -> None:
        for share in tenant.shares:
            share.settle()

    def _is_known(self, call: ReadyCall, gang: GangState) -> bool:
        """Whether such calls were measured, and this gang has done one: an expert is loaded with its first call."""
        return call.expert in gang.loaded and self.costs.is_measured(self.jobs[call.key.job_id].spec.cost_key)

    def _deadline_at(self, gang: GangState, expected: float, *, known: bool, now: float) -> float:
        """The call may take long, and so may those before it."""
        before = max((flight.deadline_at for flight in gang.calls.values()), default=now)
        own = max(MIN_DEADLINE_S, DEADLINE_FACTOR * expected) + (0.0 if known else FIRST_CALL_S)
        return max(now, before, gang.patience_until) + own

    def _wait(self, waiting: WaitingCall, now: float, *, retry_at: float = 0.0) -> None:
        """A call that was out waits again."""
        job = waiting.job
        job.waiting[waiting.call.key] = waiting
        waiting.since = now
        if retry_at > now:
            waiting.delayed = True
            self.pools[job.spec.pool].delayed.put(waiting, retry_at)
        else:
            job.offer(waiting)
        job.settle()

    def _land_from(self, key: CallKey, gang: str) -> Flight | None:
        state = self.gangs.get(gang)
        flight = state.calls.get(key) if state is not None else None
        if flight is not None:
            self._land(flight)
        return flight

    def _land(self, flight: Flight) -> None:
        """The gang has it no more, and nobody waits for it."""
        self._let_go(flight)
        gang = self.gangs[flight.gang]
        del gang.calls[flight.call.key]
        gang.pool.ghosts.discard(flight)
        gang.free_at = self._now + sum(other.expected_s for other in gang.calls.values())
        gang.pool.settle_gang(gang)

    def _let_go(self, flight: Flight) -> None:
        """Nobody waits for it any more."""
        if flight.ghost:
            return
        job, key = flight.waiting.job, flight.call.key
        tenant = job.share.tenant
        if not job.has_room:
            job.room_since = self._now
        if not tenant.has_room:
            tenant.room_since = self._now
        del self.calls[key], job.flights[key]
        tenant.in_flight -= 1
        if tenant.spec.max_calls is not None and tenant.in_flight == tenant.spec.max_calls - 1:
            self._settle_tenant(tenant)
        job.settle()

    def _forget(self, job: JobState, waiting: list[WaitingCall], flights: list[Flight]) -> None:
        for call in waiting:
            del job.waiting[call.call.key]
            job.withdraw(call)
            self.pools[job.spec.pool].delayed.discard(call)
        for flight in flights:
            self._let_go(flight)
            flight.ghost = True
            gang = self.gangs[flight.gang]
            gang.patience_until = max(gang.patience_until, flight.deadline_at)
            gang.pool.ghosts.put(flight, flight.ends_at)
        job.settle()


def _least(count: int, most: int | None) -> int:
    return count if most is None else min(count, most)
