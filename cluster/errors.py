"""Every error that the cluster's own code raises on purpose, those of the Kubernetes layer (kube/errors.py) apart.

ClusterError
+-- UserMistake        a wrong option, setting or name: exit code 2, nothing was changed
+-- FarmRefused        the farm answered that it will not: asking again changes nothing
+-- FarmUnavailable    the farm does not answer, or not as a farm does: a later try may succeed
"""

import difflib
from collections.abc import Iterable


class ClusterError(Exception):
    """Base of the errors that are raised on purpose."""


class UserMistake(ClusterError):
    """The user's mistake; the message names the wrong value and what is allowed."""


class FarmRefused(ClusterError):
    """The farm understood a request and refused it. `code` is for programs, the message for people."""

    def __init__(self, detail: str, *, status: int, code: str = "") -> None:
        self.status = status
        self.code = code
        super().__init__(detail)


class FarmUnavailable(ClusterError):
    """The farm did not answer in time, failed, or is none. `retry_after_s` is what it asked for, if it did."""

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(detail)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant; None if nothing is similar."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: a near one, or all that there are."""
    names = sorted(known)
    close = nearest(name, names)
    if close is not None:
        return f"; did you mean {close!r}?"
    return (
        f"; there are {', '.join(names[:10])}{' and more' if len(names) > 10 else ''}" if names else "; there are none"
    )
