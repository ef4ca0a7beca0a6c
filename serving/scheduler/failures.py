"""What to do about a call that failed: try elsewhere, replace the gang, or give the job up. Pure.

A call is idempotent, so trying again costs only time. What must never happen is that one call empties the farm: a call
under which several gangs died fails its job, with the evidence. And a job whose calls all fail must not have every gang
replaced: a gang is blamed only if others do better. Drains, preemptions and lost hosts are nobody's fault and count
for nothing.
"""

from dataclasses import dataclass, field
from typing import Literal

from cluster.contract.backoff import Backoff

MAX_CALL_TRIES = 4
"""Counted failures of one call after which its job fails."""

POISON_GANGS = 3
"""Gangs that may die or hang under one call before it is taken for what kills them."""

GANG_STRIKES = 3
"""Calls of one class in a row that a gang may fail, where others do not, before it is replaced."""

CALL_BACKOFF = Backoff(first_s=0.2, cap_s=10.0)
"""Before a call that failed is given out again."""


FailureKind = Literal[
    "gang_died", "call_raised", "timed_out", "bad_prediction", "host_lost", "drained", "preempted"
]  # bad_prediction: not finite, or of another shape

NOT_COUNTED: tuple[FailureKind, ...] = ("host_lost", "drained", "preempted")
"""Kinds that say nothing about the call or its gang."""

GANG_LOST: tuple[FailureKind, ...] = ("gang_died", "timed_out")
"""Kinds that cost the gang."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failure of one call, kept as evidence."""

    gang: str
    kind: FailureKind
    detail: str
    at: float


@dataclass(slots=True)
class Trouble:
    """What has gone wrong with one call so far."""

    attempts: list[Attempt] = field(default_factory=list)
    """Counted ones only."""

    @property
    def gangs(self) -> tuple[str, ...]:
        """Gangs that failed it, each once."""
        return tuple(dict.fromkeys(attempt.gang for attempt in self.attempts))

    @property
    def gangs_lost(self) -> set[str]:
        """Gangs that died or hung under it."""
        return {attempt.gang for attempt in self.attempts if attempt.kind in GANG_LOST}


@dataclass(frozen=True, slots=True)
class CallVerdict:
    """What follows from a failure."""

    retry_at: float | None
    """Unix seconds from which the call may be given out again; None if its job fails."""
    replace_gang: bool
    code: str = ""
    """Why the job fails: `poison_call` or `call_failed`."""
    evidence: tuple[Attempt, ...] = ()
    """Every counted attempt."""

    @property
    def poison(self) -> bool:
        """Whether the call kills gangs."""
        return self.code == "poison_call"


def judge(trouble: Trouble, attempt: Attempt, *, gang_to_blame: bool) -> CallVerdict:
    """What follows from `attempt`, which is added to the call's trouble where it counts.

    `gang_to_blame`: GangRecord found that the gang does worse than others.
    """
    if attempt.kind in NOT_COUNTED:
        return CallVerdict(retry_at=attempt.at, replace_gang=False, evidence=tuple(trouble.attempts))
    trouble.attempts.append(attempt)
    evidence = tuple(trouble.attempts)
    replace = gang_to_blame or attempt.kind in GANG_LOST  # nothing but its end frees a gang from a stuck call
    if len(trouble.gangs_lost) >= POISON_GANGS:
        return CallVerdict(None, replace, "poison_call", evidence)
    if len(evidence) >= MAX_CALL_TRIES:
        return CallVerdict(None, replace, "call_failed", evidence)
    return CallVerdict(attempt.at + CALL_BACKOFF.wait_s(len(evidence)), replace, evidence=evidence)


@dataclass(slots=True)
class _Strikes:
    count: int = 0
    """Failures in a row."""
    others_succeeded: bool = False
    """Another gang has done a call of the class since."""


class GangRecord:
    """Which gangs fail which class of calls, since they last did one. A class: calls of one cost key."""

    def __init__(self) -> None:
        self._strikes: dict[str, dict[str, _Strikes]] = {}

    def succeeded(self, call_class: str, gang: str) -> None:
        """The gang has done a call of the class."""
        failing = self._strikes.get(call_class)
        if failing:
            failing.pop(gang, None)
            for strikes in failing.values():
                strikes.others_succeeded = True

    def failed(self, call_class: str, gang: str) -> bool:
        """The gang has failed a call of the class. True if the gang is to blame: it does so repeatedly, and
        others do not.
        """
        failing = self._strikes.setdefault(call_class, {})
        strikes = failing.setdefault(gang, _Strikes())
        strikes.count += 1
        return strikes.count >= GANG_STRIKES and (strikes.others_succeeded or len(failing) == 1)

    def forget(self, gang: str) -> None:
        """The gang is gone."""
        for call_class in [name for name, failing in self._strikes.items() if failing.pop(gang, None) and not failing]:
            del self._strikes[call_class]
