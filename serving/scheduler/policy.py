"""Which call goes to which gang. Pure: the same state and time give the same answer. O(log n) for each call placed.

Calls are placed in this order: priority; jobs whose due time presses, earliest first (but for one call in a few, see
MAX_PRESSING_IN_A_ROW); the tenant that was served least for its weight; age. Inside a job takes go in the order of the
film, heads first, until its longest path would otherwise be left to the end. No call that is out is ever taken back:
calls are short, so what was outranked waits for seconds. For the same reason a gang is sent a second call only when
every gang has a first, and shortly before it is done with that: what comes meanwhile is not behind it.
"""

from collections.abc import Iterator, Sequence

from serving.scheduler.queues import GangState, JobState, PoolQueues, PriorityClass, Share, WaitingCall
from serving.scheduler.specs import Assignment
from serving.scheduler.state import FarmState
from serving.settings import DUE_REVIEW_S, SEND_AHEAD_S

EQUAL_CHOICES = 4
"""Shares, or gangs with a free slot, among which one that saves sending prompts is looked for."""

LONG_PATH_FACTOR = 1.5
"""A job's longest path goes first, not the head of its film, once its other work would last its gangs less than this
times as long as the path."""

MAX_PRESSING_IN_A_ROW = 9
"""Calls given to jobs whose due time presses before one goes to a job that has its turn: nobody starves."""


def assign(state: FarmState, now: float) -> list[Assignment]:
    """Give ready calls to gangs with a free slot; what is given is noted in the state."""
    state.pass_time(now)
    return [given for pool in state.pools.values() for given in _assign_pool(state, pool, now)]


def wake_at(state: FarmState, now: float) -> float | None:
    """When to assign again though nothing happens: a retry or a gang's free slot comes due. None: never."""
    times = []
    for pool in state.pools.values():
        if (call := pool.delayed.first()) is not None:
            times.append(pool.delayed.key(call))
        if (ghost := pool.ghosts.first()) is not None:
            times.append(ghost.ends_at)
        if len(pool.open_classes) and (gang := pool.half_idle.first()) is not None:
            times.append(gang.free_at - SEND_AHEAD_S)
        if pool.num_due:
            times.append(pool.reviewed_at + DUE_REVIEW_S)
    return max(now, min(times)) if times else None


def _assign_pool(state: FarmState, pool: PoolQueues, now: float) -> Iterator[Assignment]:
    aside: list[WaitingCall] = []  # the gangs that are free have failed these
    while (of := pool.open_classes.first()) is not None and (free := _free_gangs(pool, now)):
        call, in_turn = _choose_call(of, free)
        gang = _choose_gang(pool, call, free, now)
        if gang is None:
            aside.append(call)
            call.job.withdraw(call)
            call.job.settle()
            continue
        of.pressing_in_a_row = 0 if in_turn else of.pressing_in_a_row + 1
        if in_turn:
            of.virtual_s = max(of.virtual_s, call.job.share.virtual_s)
        yield state.call_given(call, gang, now)
    state.restore_offers(aside)


def _free_gangs(pool: PoolQueues, now: float, most: int = EQUAL_CHOICES) -> list[GangState]:
    """A few of the gangs that may be given a call, best first: idle ones, else those that are done soonest."""
    if len(pool.idle):
        return pool.idle.least(most)
    soonest = pool.half_idle.first()
    if soonest is None or soonest.free_at - now > SEND_AHEAD_S:
        return []
    return [gang for gang in pool.half_idle.least(most) if gang.free_at - now <= SEND_AHEAD_S]


def _choose_call(of: PriorityClass, free: Sequence[GangState]) -> tuple[WaitingCall, bool]:
    """The call of a class that goes next, and whether its job has its ordinary turn."""
    share = of.pressing.first()
    if share is not None and (of.pressing_in_a_row < MAX_PRESSING_IN_A_ROW or not len(of.in_turn)):
        job = share.pressing.first()
        assert job is not None
        return next_call(job), False
    return _choose_in_turn(of, free), True


def _choose_in_turn(of: PriorityClass, free: Sequence[GangState]) -> WaitingCall:
    """The call of the share that was served least; or of one that is less than a call ahead of it, where that saves
    sending prompts to a gang.
    """
    first = of.in_turn.first()
    assert first is not None
    best = _next_of(first)
    if len(of.in_turn) == 1 or _is_held(best, free):
        return best
    for share in of.in_turn.least(EQUAL_CHOICES)[1:]:
        call = _next_of(share)
        ahead_s = (share.virtual_s - first.virtual_s) * share.tenant.spec.weight
        if ahead_s <= call.expected_s and _is_held(call, free):
            return call
    return best


def _next_of(share: Share) -> WaitingCall:
    job = share.in_turn.first()
    assert job is not None
    return next_call(job)


def _is_held(call: WaitingCall, free: Sequence[GangState]) -> bool:
    """Whether one of the gangs holds what the call needs."""
    return any(call.warmth in gang.warm for gang in free)


def next_call(job: JobState) -> WaitingCall:
    """The call of a job that goes next: the head of its film, or its longest path if that would be left over."""
    by_path = job.by_path.first()
    assert by_path is not None, "a job without a ready call is not asked"
    gangs = max(1, min(job.in_flight, job.share.of.pool.ready_gangs))
    if job.work_s <= LONG_PATH_FACTOR * gangs * by_path.path_s:
        return by_path
    by_film = job.by_film.first()
    assert by_film is not None
    return by_film


def _choose_gang(pool: PoolQueues, call: WaitingCall, free: Sequence[GangState], now: float) -> GangState | None:
    """Of the gangs that are free one that holds the take's prompts and expert, else one with the expert, else the best.

    None if every gang that is free has failed the call and some other has not.
    """
    if call.avoid:  # look at enough that one of them has not failed it, if any has not
        free = _free_gangs(pool, now, len(call.avoid) + EQUAL_CHOICES)
    fit = [gang for gang in free if call.call.key not in gang.calls]  # it may still have it, for nobody
    fresh = [gang for gang in fit if gang.id not in call.avoid]
    if fresh or not fit:
        holds_expert = (gang for gang in fresh if any(warmth.expert == call.warmth.expert for warmth in gang.warm))
        return next(
            (gang for gang in fresh if call.warmth in gang.warm), next(holds_expert, fresh[0] if fresh else None)
        )
    avoided = sum(name in pool.gangs and not pool.gangs[name].draining for name in call.avoid)
    return fit[0] if avoided >= pool.ready_gangs else None
