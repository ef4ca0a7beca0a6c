"""Every error that serving raises on purpose.

LongtakeError
+-- UserError            the user's mistake: exit code 2, nothing was changed
|   +-- StoryboardError  one or more problems in a storyboard, all at once
|   +-- ModelError       a model that is unknown, unreachable or unfit
+-- Fault                something of ours or the machine's failed: exit code 1
"""

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


class Fault(LongtakeError):
    """A failure that is not the user's: a process died too often, a file could not be written."""
