"""The scheduler's books: who waits where, in what order. Pure; state.py changes them, policy.py reads them.

    PoolQueues --priority--> PriorityClass --tenant--> Share --> JobState --> WaitingCall
        |
        +--> GangState --> Flight

A thing stands in the ranking above it exactly while it could be given a call: a job that has one ready, is not held and
has room below its cap; a share with such a job whose tenant has room; a class with such a share. So the next call is
found by taking the first at each level, whatever the number of jobs.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from serving.scheduler.failures import Trouble
from serving.scheduler.ranking import Ranking
from serving.scheduler.specs import CallKey, JobSpec, PoolSpec, ReadyCall, TenantSpec


class Warmth(NamedTuple):
    """What a gang holds after a call, and can use again for others of the same take and expert."""

    job_id: str
    take_key: str
    expert: int


@dataclass(eq=False, slots=True)
class WaitingCall:
    """A ready call that no gang has."""

    call: ReadyCall
    job: "JobState"
    film_order: tuple[Any, ...]
    """Earlier takes first, in a take its head first."""
    warmth: Warmth
    expected_s: float
    """Seconds that it should take, as known when it became ready."""
    path_s: float
    """Seconds that its take needs at least from here on."""
    since: float
    avoid: tuple[str, ...] = ()
    """Gangs that failed it."""
    delayed: bool = False
    """It waits to be tried again."""


@dataclass(eq=False, slots=True)
class Flight:
    """A call that a gang has."""

    waiting: WaitingCall
    gang: str
    since: float
    expected_s: float
    ends_at: float
    """When it should be done."""
    deadline_at: float
    share: "Share"
    """Which was charged for it."""
    ghost: bool = False
    """Nobody waits for it any more; it only keeps its gang busy."""

    @property
    def call(self) -> ReadyCall:
        return self.waiting.call


@dataclass(eq=False, slots=True)
class GangState:
    """A gang and the calls that it has, oldest first."""

    id: str
    pool: "PoolQueues"
    calls: dict[CallKey, Flight] = field(default_factory=dict)
    draining: bool = False
    free_at: float = 0.0
    """When the calls that it has should be done."""
    patience_until: float = 0.0
    """Until then it may still be busy with calls that nobody waits for."""
    loaded: set[int] = field(default_factory=set)
    """Experts that it has done a call with."""
    warm: dict[Warmth, None] = field(default_factory=dict)
    """Least used first."""


@dataclass(eq=False, slots=True)
class TenantState:
    """A tenant over all pools."""

    spec: TenantSpec
    in_flight: int = 0
    shares: list["Share"] = field(default_factory=list)
    room_since: float = float("-inf")
    """When it last had room again for a call below its cap."""

    @property
    def room(self) -> int | None:
        """Calls that it may have out beside those that it has; None for any number."""
        return None if self.spec.max_calls is None else max(0, self.spec.max_calls - self.in_flight)

    @property
    def has_room(self) -> bool:
        return self.room != 0


@dataclass(eq=False)
class JobState:
    """A job, its ready calls and those that are out."""

    spec: JobSpec
    share: "Share"
    work_s: float
    """Gang-seconds still to do."""
    held: str = ""
    """Why it gets nothing; empty if it may."""
    takes: dict[str, int] = field(default_factory=dict)
    """Order of its takes as they were first told of."""
    waiting: dict[CallKey, WaitingCall] = field(default_factory=dict)
    by_film: Ranking[WaitingCall] = field(default_factory=Ranking)
    """Calls that could run now, as a viewer would like them."""
    by_path: Ranking[WaitingCall] = field(default_factory=Ranking)
    """The same calls, longest path first."""
    flights: dict[CallKey, Flight] = field(default_factory=dict)
    trouble: dict[CallKey, Trouble] = field(default_factory=dict)
    pressing: bool = False
    """It goes before its turn, to be done in time."""
    start_by: float = 0.0
    """When it must start at the latest, if it has a due time: who presses is served in the order of that."""
    at_risk: bool = False
    """It cannot be done in time, so far as is known."""
    started_at: float | None = None
    """When its first call was given out."""
    room_since: float = float("-inf")
    """When it last had room again for a call below its cap."""
    stands_in: Ranking["JobState"] | None = None
    """The ranking of its share that it stands in."""

    @property
    def in_flight(self) -> int:
        return len(self.flights)

    @property
    def room(self) -> int | None:
        """Calls that it may have out beside those that it has, as far as its own cap goes; None for any number."""
        return None if self.spec.max_calls is None else max(0, self.spec.max_calls - len(self.flights))

    @property
    def has_room(self) -> bool:
        return self.room != 0

    @property
    def least_path_s(self) -> float:
        """Seconds that it still takes at least, on any number of gangs."""
        told = self.spec.path_s * self.work_s / self.spec.work_s if self.spec.work_s else 0.0
        first = self.by_path.first()
        known = max((flight.waiting.path_s for flight in self.flights.values()), default=0.0)
        return max(told, known, first.path_s if first is not None else 0.0)

    @property
    def calls_left(self) -> int:
        """Calls of the longest path that is known, one after another; 0 if none is."""
        first = self.by_path.first()
        if first is not None:
            return first.call.calls_left
        return max((flight.waiting.call.calls_left for flight in self.flights.values()), default=0)

    def offer(self, call: WaitingCall) -> None:
        """The call may run now."""
        self.by_film.put(call, call.film_order)
        self.by_path.put(call, (-call.path_s, call.film_order))

    def withdraw(self, call: WaitingCall) -> None:
        """The call may not run now."""
        self.by_film.discard(call)
        self.by_path.discard(call)

    def settle(self) -> None:
        """Stand where it belongs, and with it its share and class."""
        share, belongs = self.share, None
        if len(self.by_film) and not self.held and self.has_room:
            belongs = share.pressing if self.pressing else share.in_turn
        if belongs is self.stands_in:
            return
        if self.stands_in is not None:
            self.stands_in.discard(self)
        if belongs is not None:
            order = (self.spec.created_at, self.spec.id)
            belongs.put(self, (self.start_by, *order) if self.pressing else order)
        self.stands_in = belongs
        share.settle()

    def step_aside(self) -> None:
        """Stand nowhere, to settle again under other terms."""
        if self.stands_in is not None:
            self.stands_in.discard(self)
            self.stands_in = None
            self.share.settle()


@dataclass(eq=False, slots=True)
class Share:
    """What one tenant has of one priority class of a pool."""

    tenant: TenantState
    of: "PriorityClass"
    virtual_s: float = 0.0
    """Gang-seconds served over weight. Start-time fair queueing: the least goes first."""
    jobs: int = 0
    pressing: Ranking[JobState] = field(default_factory=Ranking)
    in_turn: Ranking[JobState] = field(default_factory=Ranking)

    def settle(self) -> None:
        of, room = self.of, self.tenant.has_room
        if room and len(self.in_turn):
            if self not in of.in_turn:  # it comes from having nothing to do: no credit for that
                self.virtual_s = max(self.virtual_s, of.virtual_s)
            of.in_turn.put(self, (self.virtual_s, self.tenant.spec.name))
        else:
            of.in_turn.discard(self)
        if room and len(self.pressing):
            of.pressing.put(self, self.pressing.first_key())
        else:
            of.pressing.discard(self)
        of.settle()

    def charge(self, gang_seconds: float) -> None:
        """Count service, or take some of it back."""
        self.virtual_s += gang_seconds / self.tenant.spec.weight
        if self in self.of.in_turn:
            self.of.in_turn.put(self, (self.virtual_s, self.tenant.spec.name))


@dataclass(eq=False, slots=True)
class PriorityClass:
    """Jobs of one pool and priority."""

    pool: "PoolQueues"
    priority: int
    virtual_s: float = 0.0
    """How far the share was that was served last in its turn."""
    shares: dict[str, Share] = field(default_factory=dict)
    pressing: Ranking[Share] = field(default_factory=Ranking)
    in_turn: Ranking[Share] = field(default_factory=Ranking)
    pressing_in_a_row: int = 0
    """Calls given to pressing jobs since one that had its turn."""

    def settle(self) -> None:
        if len(self.pressing) or len(self.in_turn):
            self.pool.open_classes.put(self, -self.priority)
        else:
            self.pool.open_classes.discard(self)


@dataclass(eq=False)
class PoolQueues:
    """A pool, its gangs and its jobs."""

    spec: PoolSpec
    jobs: dict[str, JobState] = field(default_factory=dict)
    classes: dict[int, PriorityClass] = field(default_factory=dict)
    open_classes: Ranking[PriorityClass] = field(default_factory=Ranking)
    delayed: Ranking[WaitingCall] = field(default_factory=Ranking)
    """Calls by when they may be tried again."""
    ghosts: Ranking[Flight] = field(default_factory=Ranking)
    """Calls that nobody waits for, by when they should be over."""
    gangs: dict[str, GangState] = field(default_factory=dict)
    ready_gangs: int = 0
    """Gangs that do not drain."""
    idle: Ranking[GangState] = field(default_factory=Ranking)
    """Ready gangs without a call, the one that worked last first: what is idle for long may be let go."""
    half_idle: Ranking[GangState] = field(default_factory=Ranking)
    """Ready gangs with a call and a free slot, the one that should be done soonest first."""
    num_idled: int = 0
    """Times that a gang became idle, for their order."""
    num_due: int = 0
    """Jobs with a due time."""
    reviewed_at: float = float("-inf")
    """When due times were last looked at."""

    def share_of(self, tenant: TenantState, priority: int) -> Share:
        """A tenant's share of a priority class, made if it is missing."""
        of = self.classes.setdefault(priority, PriorityClass(self, priority))
        share = of.shares.get(tenant.spec.name)
        if share is None:
            share = of.shares[tenant.spec.name] = Share(tenant, of, of.virtual_s)
            tenant.shares.append(share)
        return share

    def settle_gang(self, gang: GangState) -> None:
        """Stand where a gang belongs by the calls that it has."""
        free = not gang.draining and gang.id in self.gangs
        if free and not gang.calls:
            if gang not in self.idle:
                self.num_idled += 1
                self.idle.put(gang, -self.num_idled)
        else:
            self.idle.discard(gang)
        if free and 0 < len(gang.calls) < self.spec.slots:
            self.half_idle.put(gang, (gang.free_at, gang.id))
        else:
            self.half_idle.discard(gang)
