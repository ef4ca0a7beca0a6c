"""Who may lead, decided from a Lease and one's own clock.

Pure. As in client-go's leaderelection, no clock of another machine is ever read: a candidate measures from the moment
at which it saw a record itself, a leader from the moment before it sent its renewal. So as long as all clocks run at
the same speed, the leader stops before any other can begin, however slow the network is.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

Json = dict[str, Any]
Decision = Literal["create", "take", "renew", "wait"]


@dataclass(frozen=True)
class Timing:
    """How long things last; all candidates of one Lease should agree. The defaults are client-go's."""

    duration_s: int = 15
    """Seconds without a renewal after which others may take over. Whole seconds, as the API has them."""
    renew_deadline_s: float = 10.0
    """Seconds without a successful renewal after which a leader stops leading. What is left to duration_s is for what
    it had begun: a request that it sent must be answered or given up in that time."""
    retry_s: float = 2.0
    """Seconds between two tries."""

    def __post_init__(self) -> None:
        if not 0 < self.retry_s < self.renew_deadline_s < self.duration_s:
            raise ValueError(f"a lease needs 0 < retry_s < renew_deadline_s < duration_s, not {self}")


@dataclass(frozen=True)
class Record:
    """What a Lease says."""

    holder: str
    """Empty: nobody."""
    duration_s: float
    transitions: int
    """How often the holder has changed."""
    acquired: str | None
    version: str
    """resourceVersion of the Lease. Every write makes a new one, so it alone shows that a holder lives."""


@dataclass(frozen=True)
class Candidacy:
    """What one candidate knows. `me` must be of this process alone: a restarted one is another candidate."""

    me: str
    timing: Timing = Timing()
    seen: Record | None = None
    seen_at: float | None = None
    """When this candidate first saw the record in this version, by its own clock."""
    leads_until: float | None = None
    """By its own clock. None: it does not lead."""
    term: int = 0
    """Of its last leadership: how often the holder had changed by then, so it rises from leader to leader."""

    def leads(self, now: float) -> bool:
        """Whether it leads at this moment, by its own clock."""
        return self.leads_until is not None and now < self.leads_until


def see(known: Candidacy, record: Record | None, now: float) -> Candidacy:
    """After the server said what the Lease is. `now`: after the answer came."""
    if record is not None and known.seen is not None and record.version == known.seen.version:
        return known
    taken = record is None or record.holder != known.me
    return replace(known, seen=record, seen_at=now, leads_until=None if taken else known.leads_until)


def decide(known: Candidacy, now: float) -> Decision:
    """What to do about the Lease that was seen."""
    record = known.seen
    if record is None:
        return "create"
    if record.holder == known.me:
        return "renew"
    assert known.seen_at is not None
    return "take" if not record.holder or now - known.seen_at >= record.duration_s else "wait"


def granted(known: Candidacy, record: Record, *, sent_at: float, now: float) -> Candidacy:
    """After the server stored our record. `sent_at`: before the write was sent; `now`: after the answer came."""
    assert record.holder == known.me
    until = sent_at + known.timing.renew_deadline_s
    return replace(known, seen=record, seen_at=now, leads_until=until, term=record.transitions)


def resigned(known: Candidacy) -> Candidacy:
    """After it gave up leading of its own will."""
    return replace(known, leads_until=None)


def lease_spec(known: Candidacy, decision: Decision, wall_now: float) -> Json:
    """What to write into the Lease. Its times are for people; nothing reads them. `wall_now` in Unix seconds."""
    assert decision != "wait"
    now, record = _micro_time(wall_now), known.seen
    transitions = 0 if record is None else record.transitions + (decision == "take")
    acquired = record.acquired if record is not None and decision == "renew" else None
    return {
        "holderIdentity": known.me,
        "leaseDurationSeconds": known.timing.duration_s,
        "acquireTime": acquired or now,
        "renewTime": now,
        "leaseTransitions": transitions,
    }


def released_spec(record: Record, wall_now: float) -> Json:
    """What to write to give up a Lease, so that others need not wait for it to run out."""
    now = _micro_time(wall_now)
    return {
        "holderIdentity": "",
        "leaseDurationSeconds": 1,
        "acquireTime": now,
        "renewTime": now,
        "leaseTransitions": record.transitions,
    }


def record_of(lease: Json, timing: Timing) -> Record:
    """What a Lease says. One that names no duration gets ours."""
    spec = lease.get("spec") or {}
    return Record(
        holder=str(spec.get("holderIdentity") or ""),
        duration_s=float(spec.get("leaseDurationSeconds") or timing.duration_s),
        transitions=int(spec.get("leaseTransitions") or 0),
        acquired=spec.get("acquireTime"),
        version=str(lease["metadata"]["resourceVersion"]),
    )


def _micro_time(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
