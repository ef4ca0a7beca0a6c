"""The errors that one room of serving raises and another handles. One that stays in its room stands there.

LongtakeError
+-- UserError            the user's mistake: exit code 2, nothing was changed
|   +-- StoryboardError  one or more problems in a storyboard, all at once
|   +-- NotFound         a job, or anything else, that is not there or not theirs
|   +-- WrongState       an action that the job's status does not allow
|   +-- IdempotencyConflict  an Idempotency-Key that was used for another request
|   +-- IdempotencyBusy  an Idempotency-Key whose first request is not answered yet
|   +-- ModelError       a model that is unknown, unreachable or unfit
+-- Fault                something of ours or the machine's failed: exit code 1
    +-- ArtifactMissing      what should be in the artifact store is not
    +-- ArtifactsUnavailable the artifact store failed for longer than we try
    +-- OutOfSpace           a disk that is written to is full
    +-- StoreUnavailable     the database does not answer; a later try may succeed
    +-- Fenced               what was held has been taken over by someone newer
    +-- HostLost             a timeline host's process is gone
    +-- NotHeld              a timeline host does not hold the take it was asked about
    +-- StaleToken           an order from a Director that has been replaced
    +-- GangDied             the process that predicted a call is gone
    +-- GangBroken           a rank of the gang is gone or silent; it must be formed anew
    +-- UnknownInputs        a call is of a take whose inputs the gang does not hold
"""

import re
from dataclasses import dataclass


class LongtakeError(Exception):
    """Base of all errors that Longtake raises on purpose."""


class UserError(LongtakeError):
    """A mistake of the user's; the message says what is allowed."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong in what a user sent."""

    path: str
    """Where, as the user would write it: `shots[2].seconds`; empty for the whole document."""
    message: str
    """What is wrong and what is allowed, one sentence."""
    value: str | None = None
    """The offending value, shortened for display."""
    nearest: str | None = None
    """What the user probably meant."""
    line: int | None = None
    """Line in the file, from 1."""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        path = f"{self.path}: " if self.path else ""
        value = f" (got {self.value})" if self.value is not None else ""
        nearest = f"; did you mean {self.nearest!r}?" if self.nearest is not None else ""
        return f"{where}{path}{self.message}{value}{nearest}"


class StoryboardError(UserError):
    """A storyboard that cannot be rendered as it stands."""

    def __init__(self, problems: list[Problem]) -> None:
        assert problems
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class ModelError(UserError):
    """A model that is unknown, cannot be reached, or cannot do what was asked."""


class NotFound(UserError):
    """Something that is not there, or belongs to somebody else."""


class WrongState(UserError):
    """An action that the job's status does not allow; the message and `allowed` name those that it does."""

    def __init__(self, message: str, allowed: tuple[str, ...] = ()) -> None:
        self.allowed = allowed
        super().__init__(message)


class IdempotencyConflict(UserError):
    """An Idempotency-Key that came before with another body."""


class IdempotencyBusy(UserError):
    """An Idempotency-Key whose first request is still being answered; a later try gets that answer."""


class Fault(LongtakeError):
    """A failure that is not the user's: a process died too often, a file could not be written."""


class ArtifactMissing(Fault):
    """An artifact that does not exist, or no longer."""


class ArtifactsUnavailable(Fault):
    """The artifact store failed for as long as we try, or cannot do what we need of it."""


class OutOfSpace(Fault):
    """A disk is full: that of a film, or of the folder for work in progress."""


class StoreUnavailable(Fault):
    """The database does not answer, or is too busy. Of the transaction nothing was kept, unless its very end failed."""


class Fenced(Fault):
    """Work of a holder that has been replaced: a higher token than its own has been seen. It must stop."""


class HostLost(Fault):
    """The process of a timeline host is gone, and with it what it held since the last checkpoints."""


class NotHeld(Fault):
    """A timeline host was asked about a take that it does not hold: it was restarted."""


class StaleToken(Fault):
    """An order from a Director that has lost its lease to another."""


class GangDied(Fault):
    """The process that predicted a call is gone."""


class GangBroken(Fault):
    """Another rank of the gang is gone, or did not answer in time. It must be formed anew."""


class UnknownInputs(Fault):
    """A call is of a take whose inputs this gang was not given, or has let go."""


def hide_secrets(url: str) -> str:
    """A URL as it may be printed: without user, password and query."""
    if "//" not in url:
        return "***" if re.search(r"[@=]", url) else url
    without_user = re.sub(r"//.*@", "//***@", url, flags=re.DOTALL)
    without_user = re.sub(r"(//[^/]*):(?!\d*(/|$))[^/]*", r"\1:***", without_user)  # no port: a password, cut short
    return re.sub(r"\?.*", "?***", without_user, flags=re.DOTALL)


def hide_urls(message: str) -> str:
    """A library's message as it may be printed: without the secrets of URLs in it, and without passwords."""
    hidden = re.sub(r"\S+://\S+", lambda found: hide_secrets(found[0]), message)
    return re.sub(r"(?i)\b(password|passwd|secret|token)\s*[=:]\s*\S+", r"\1=***", hidden)
