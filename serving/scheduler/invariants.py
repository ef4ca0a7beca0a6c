"""What must be true of the scheduler's books at any moment, looked up one by one. For tests and simulations."""

from collections.abc import Mapping

from serving.scheduler.queues import Flight, GangState, JobState, PoolQueues, Share, TenantState
from serving.scheduler.specs import CallKey


def check(
    pools: Mapping[str, PoolQueues],
    gangs: Mapping[str, GangState],
    jobs: Mapping[str, JobState],
    tenants: Mapping[str, TenantState],
    calls: Mapping[CallKey, Flight],
) -> None:
    """Raises AssertionError for the first thing that is not."""
    _check_calls(gangs, jobs, calls)
    for job in jobs.values():
        _check_job(job, pools)
    for tenant in tenants.values():
        _check_tenant(tenant, jobs)
    for pool in pools.values():
        _check_pool(pool, gangs, jobs)


def _check_calls(gangs: Mapping[str, GangState], jobs: Mapping[str, JobState], calls: Mapping[CallKey, Flight]) -> None:
    held = [flight for gang in gangs.values() for flight in gang.calls.values() if not flight.ghost]
    assert len(held) == len({flight.call.key for flight in held}), "a call is with two gangs"
    assert {flight.call.key: flight for flight in held} == calls, "calls that are out and calls that gangs have differ"
    of_jobs = {key: flight for job in jobs.values() for key, flight in job.flights.items()}
    assert of_jobs == calls, "calls that are out and calls of jobs differ"
    for gang in gangs.values():
        assert all(flight.gang == gang.id for flight in gang.calls.values())
        assert len(gang.calls) <= gang.pool.spec.slots, f"gang {gang.id} has more calls than slots"


def _check_job(job: JobState, pools: Mapping[str, PoolQueues]) -> None:
    spec = job.spec
    assert job.work_s >= 0
    assert not job.waiting.keys() & job.flights.keys(), f"a call of job {spec.id} waits and is out at once"
    assert spec.max_calls is None or job.in_flight <= spec.max_calls, f"job {spec.id} is over its cap"
    offered = {call for call in job.waiting.values() if not call.delayed}
    assert set(job.by_film) == offered, f"ready calls of job {spec.id} are lost or stale"
    assert set(job.by_path) == offered
    assert all(call in pools[spec.pool].delayed for call in job.waiting.values() if call.delayed)
    share = job.share
    assert (share.tenant.spec.name, share.of.priority) == (spec.tenant, spec.priority)
    assert share.of is pools[spec.pool].classes[spec.priority]
    may_run = bool(offered) and not job.held and job.has_room
    assert (job in share.pressing) == (may_run and job.pressing), f"job {spec.id} stands in the wrong place"
    assert (job in share.in_turn) == (may_run and not job.pressing), f"job {spec.id} stands in the wrong place"
    order = (spec.created_at, spec.id)
    assert job not in share.pressing or share.pressing.key(job) == (job.start_by, *order)
    assert job not in share.in_turn or share.in_turn.key(job) == order


def _check_tenant(tenant: TenantState, jobs: Mapping[str, JobState]) -> None:
    name = tenant.spec.name
    in_flight = sum(job.in_flight for job in jobs.values() if job.spec.tenant == name)
    assert tenant.in_flight == in_flight, f"tenant {name} counts {tenant.in_flight} calls and has {in_flight}"
    assert tenant.spec.max_calls is None or in_flight <= tenant.spec.max_calls, f"tenant {name} is over its cap"
    for share in tenant.shares:
        assert share.of.shares[name] is share


def _check_pool(pool: PoolQueues, gangs: Mapping[str, GangState], jobs: Mapping[str, JobState]) -> None:
    name = pool.spec.name
    assert pool.gangs == {gang.id: gang for gang in gangs.values() if gang.pool is pool}
    assert pool.jobs == {job.spec.id: job for job in jobs.values() if job.spec.pool == name}
    ready = [gang for gang in pool.gangs.values() if not gang.draining]
    assert pool.ready_gangs == len(ready)
    assert set(pool.idle) == {gang for gang in ready if not gang.calls}
    assert set(pool.half_idle) == {gang for gang in ready if 0 < len(gang.calls) < pool.spec.slots}
    assert pool.num_due == sum(job.spec.due_at is not None for job in pool.jobs.values())
    assert all(call.job.waiting.get(call.call.key) is call for call in pool.delayed), "a call of nobody waits"
    assert set(pool.ghosts) == {out for gang in pool.gangs.values() for out in gang.calls.values() if out.ghost}
    for of in pool.classes.values():
        shares = list(of.shares.values())
        assert sum(share.jobs for share in shares) == sum(job.share.of is of for job in pool.jobs.values()) > 0
        assert set(of.pressing) == {share for share in shares if len(share.pressing) and share.tenant.has_room}
        assert set(of.in_turn) == {share for share in shares if len(share.in_turn) and share.tenant.has_room}
        assert (of in pool.open_classes) == bool(len(of.pressing) or len(of.in_turn))
        assert all(_is_ranked_truly(share) for share in shares)


def _is_ranked_truly(share: Share) -> bool:
    of = share.of
    by_turn = share not in of.in_turn or of.in_turn.key(share) == (share.virtual_s, share.tenant.spec.name)
    return by_turn and (share not in of.pressing or of.pressing.key(share) == share.pressing.first_key())
