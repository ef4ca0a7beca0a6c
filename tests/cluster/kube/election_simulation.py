"""Several candidates for one Lease in simulated time: slow and lost messages, pauses, crashes, resignations.

The network is worse than a real one: a request that its sender gave up long ago may still arrive and be carried out.
Candidates decide by cluster.kube.lease alone; each has a clock of its own, set differently, that runs at the true
speed.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from cluster.kube import lease
from cluster.kube.lease import Candidacy, Record, Timing, decide, lease_spec, record_of, released_spec, resigned, see
from testkit.json_object import Json

TIMING = Timing(duration_s=15, renew_deadline_s=10.0, retry_s=2.0)
REQUEST_TIMEOUT_S = 5.0

Grant = Callable[..., Candidacy]


@dataclass(frozen=True)
class Weather:
    """How bad things are."""

    slow_s: float = 0.01
    """Most seconds that a message takes as a rule."""
    very_slow: float = 0.0
    """Share of messages that take up to 30 s."""
    lost: float = 0.0
    """Share of messages that never arrive."""
    pause: float = 0.0
    """Share of steps before which a candidate stands still for up to 20 s."""
    crash: float = 0.0
    """Share of rounds in which a candidate dies; another one is started in its place later."""
    resign: float = 0.0
    """Share of rounds in which a candidate gives up and restarts."""


FINE = Weather()


@dataclass
class Lease:
    """The API server's part."""

    spec: Json | None = None
    version: int = 0

    def get(self) -> Json | None:
        return None if self.spec is None else {"metadata": {"resourceVersion": str(self.version)}, "spec": self.spec}

    def put(self, spec: Json, seen: Record | None) -> Json | None:
        """None: refused, because it is not as it was seen any more."""
        if (None if seen is None else seen.version) != (None if self.spec is None else str(self.version)):
            return None
        self.spec, self.version = dict(spec), self.version + 1
        return self.get()


@dataclass
class Seat:
    """One candidate, as long as it lives."""

    known: Candidacy
    clock_offset_s: float
    alive: bool = True


@dataclass
class Simulation:
    """Runs candidates and watches them. `grant` may be replaced by a wrong one, to see that it is found out."""

    random: Random
    candidates: int
    weather: Weather
    grant: Grant = lease.granted
    timing: Timing = TIMING
    now: float = 0.0
    lease: Lease = field(default_factory=Lease)
    seats: list[Seat] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    """Moments at which two led, in words."""
    terms: list[tuple[int, str]] = field(default_factory=list)
    """Every leadership won: term and leader."""
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: Any = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        for _ in range(self.candidates):
            self.join()

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        self.now = until

    def leaders(self) -> list[str]:
        return [seat.known.me for seat in self.seats if seat.alive and seat.known.leads(self._clock(seat))]

    def join(self) -> None:
        seat = Seat(Candidacy(f"c{next(self._count)}", self.timing), self.random.uniform(-1e6, 1e6))
        self.seats.append(seat)
        self._at(self.random.uniform(0.0, 3.0), lambda: self._look(seat))

    def crash(self, seat: Seat) -> None:
        seat.alive = False

    def resign(self, seat: Seat) -> None:
        """Stop leading, give the Lease back, and end."""
        seat.known = resigned(seat.known)
        seat.alive = False
        self._send(lambda: self._release(seat.known.me), lambda answer: None)

    def _release(self, me: str) -> None:
        """As a candidate does that has nothing else under way: by the Lease as it is then."""
        lease = self.lease.get()
        record = None if lease is None else record_of(lease, self.timing)
        if record is not None and record.holder == me:
            self.lease.put(released_spec(record, self.now), record)

    # ------------------------------------------------------------------------------------------------ one candidate

    def _clock(self, seat: Seat) -> float:
        return self.now + seat.clock_offset_s

    def _look(self, seat: Seat) -> None:
        if not seat.alive:
            return
        if self.random.random() < self.weather.crash:
            self.crash(seat)
            self._at(self.random.uniform(0.0, 60.0), self.join)
        elif self.random.random() < self.weather.resign:
            self.resign(seat)
            self._at(self.random.uniform(0.0, 10.0), self.join)
        else:
            self._ask(seat, self.lease.get, lambda answer: self._decide(seat, answer))

    def _decide(self, seat: Seat, lease: Json | None) -> None:
        record = None if lease is None else record_of(lease, self.timing)
        seat.known = see(seat.known, record, self._clock(seat))
        decision = decide(seat.known, self._clock(seat))
        if decision == "wait":
            self._rest(seat)
            return
        spec, seen, sent_at = lease_spec(seat.known, decision, self.now), seat.known.seen, self._clock(seat)
        self._ask(seat, lambda: self.lease.put(spec, seen), lambda answer: self._hear(seat, answer, sent_at))

    def _hear(self, seat: Seat, stored: Json | None, sent_at: float) -> None:
        if stored is not None:
            record = record_of(stored, self.timing)
            seat.known = self.grant(seat.known, record, sent_at=sent_at, now=self._clock(seat))
            self._watch_out(seat)
        self._rest(seat)

    def _watch_out(self, seat: Seat) -> None:
        """Leaderships begin and grow only here, so two at once are seen here or never."""
        if not seat.known.leads(self._clock(seat)):
            return
        self.terms.append((seat.known.term, seat.known.me))
        if (leaders := self.leaders()) != [seat.known.me]:
            self.doubles.append(f"at {self.now:.2f} s: {leaders}")

    def _rest(self, seat: Seat) -> None:
        self._at(self.timing.retry_s * self.random.uniform(0.8, 1.2), lambda: self._look(seat))

    # ------------------------------------------------------------------------------------------------ the network

    def _ask(self, seat: Seat, do: Callable[[], Json | None], hear: Callable[[Json | None], None]) -> None:
        """Send a request; its answer is heard, after a pause perhaps, unless the sender gave up before it came."""
        state = {"open": True}

        def answered(answer: Json | None) -> None:
            if state["open"] and seat.alive:
                state["open"] = False
                self._at(self._pause_s(), lambda: hear(answer) if seat.alive else None)

        def give_up() -> None:
            if state["open"] and seat.alive:
                state["open"] = False
                self._rest(seat)

        self._at(REQUEST_TIMEOUT_S, give_up)
        self._at(self._pause_s(), lambda: self._send(do, answered))

    def _send(self, do: Callable[[], Json | None], answered: Callable[[Json | None], None]) -> None:
        if self.random.random() >= self.weather.lost:
            self._at(self._travel_s(), lambda: self._arrive(do, answered))

    def _arrive(self, do: Callable[[], Json | None], answered: Callable[[Json | None], None]) -> None:
        answer = do()
        if self.random.random() >= self.weather.lost:
            self._at(self._travel_s(), lambda: answered(answer))

    def _travel_s(self) -> float:
        slow = self.random.random() < self.weather.very_slow
        return self.random.uniform(0.0, 30.0 if slow else self.weather.slow_s)

    def _pause_s(self) -> float:
        return self.random.uniform(0.0, 20.0) if self.random.random() < self.weather.pause else 0.0

    def _at(self, delay_s: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._count), happen))
