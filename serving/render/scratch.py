"""The folder of a machine for work in progress, which may lie on a disk that is full."""

import errno
from pathlib import Path

from serving.errors import OutOfSpace


def raise_if_full(error: BaseException, scratch: Path) -> None:
    """Raise OutOfSpace where that is what an error of a writer (Python's or PyAV's) says; else nothing."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        raise OutOfSpace(f"{scratch} is full: {error}") from error
