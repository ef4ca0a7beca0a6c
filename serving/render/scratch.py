"""Disks that are full: how writers' errors are told from others, and the folder for work in progress lying on one."""

import errno
from pathlib import Path

from serving.errors import OutOfSpace

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A full disk, a spent quota, and a limit on the size of files."""


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of a writer, Python's or PyAV's, says that there is no room."""
    return getattr(error, "errno", None) in _NO_ROOM


def raise_if_full(error: BaseException, scratch: Path) -> None:
    """Raises OutOfSpace if that is what an error of a writer says; else does nothing."""
    if is_disk_full(error):
        raise OutOfSpace(f"{scratch} is full: {error}") from error
