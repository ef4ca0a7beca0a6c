"""Writes artifacts into a folder or a bucket: each whole or not at all, and there for good once a write has returned.

Unfinished writes lie under PARTIALS, in a folder as in a bucket, so that nothing else ever sees one and leftovers of
a writer that was killed can be found. obstore's LocalStore is not used for writing: it renames without fsync (0.12.1,
seen with strace), so that after a power cut an artifact may be there and empty.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import obstore
from obstore.exceptions import AlreadyExistsError

from serving import settings

PARTIALS = ".partials"
"""Where unfinished writes lie."""

UPLOAD_PARTS_AT_ONCE = 4
"""Parts of an upload in memory."""

Source = bytes | Path
"""What is written: bytes, or a file that is read piece by piece."""


class Writer(Protocol):
    """Writes under keys that are known to be well-formed."""

    def write(self, key: str, source: Source, *, create: bool) -> bool:
        """Write `source` under `key`; with `create` only if nothing is, and False if something is."""
        ...


class FolderWriter:
    """Writes below `root`, which exists. Files and the folders that name them are flushed to the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, key: str, source: Source, *, create: bool) -> bool:
        partial = self._root / new_partial()
        target = self._root / key
        try:
            self._make_folder(partial.parent)
            with partial.open("xb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # for as long as we live: see is_abandoned
                _fill(file, source)
                self._make_folder(target.parent)
                placed = _link(partial, target) if create else _rename(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        # Also where the file was there before us: whoever wrote it may not have come so far yet.
        for folder in (target.parent, *target.parent.parents):
            sync_folder(folder)
            if folder == self._root:
                break
        return placed

    def _make_folder(self, folder: Path) -> None:
        """Make a folder below the root, but never the root: if that is gone, a disk is not mounted."""
        if folder != self._root and not folder.is_dir():
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)


class BucketWriter:
    """Writes into an object store of obstore. Large files go up in parts, a bounded number at once."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def write(self, key: str, source: Source, *, create: bool) -> bool:
        try:
            if (source.stat().st_size if isinstance(source, Path) else len(source)) <= settings.ARTIFACT_PART_BYTES:
                data = source.read_bytes() if isinstance(source, Path) else source
                obstore.put(self._store, key, data, mode="create" if create else "overwrite", use_multipart=False)
            elif create:
                self._create_large(key, source)
            else:
                self._upload(key, source)
        except AlreadyExistsError:
            return False
        return True

    def _create_large(self, key: str, source: Source) -> None:
        """An upload in parts cannot be made conditional by obstore, but a copy within the store can."""
        with contextlib.suppress(FileNotFoundError):
            obstore.head(self._store, key)
            raise AlreadyExistsError(key)
        partial = new_partial()
        try:
            self._upload(partial, source)
            obstore.copy(self._store, partial, key, overwrite=False)
        finally:
            with contextlib.suppress(Exception):  # what is left behind is swept
                obstore.delete(self._store, [partial])

    def _upload(self, key: str, source: Source) -> None:
        obstore.put(
            self._store,
            key,
            source,
            chunk_size=settings.ARTIFACT_PART_BYTES,
            max_concurrency=UPLOAD_PARTS_AT_ONCE,
        )


def new_partial() -> str:
    """A key that no one else uses, for a write that is not finished."""
    return f"{PARTIALS}/{uuid.uuid4().hex}"


def sync_file(descriptor: int) -> None:
    """Put an open file on the disk. macOS flushes the drive's own cache only when asked by F_FULLFSYNC."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_abandoned(partial: Path) -> bool:
    """Whether nobody writes this file any more: the kernel gives a writer's lock back however it dies."""
    try:
        with partial.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked, or gone
        return False
    return True


def _fill(file: BinaryIO, source: Source) -> None:
    if isinstance(source, Path):
        with source.open("rb") as original:
            shutil.copyfileobj(original, file, 1 << 20)
    else:
        file.write(source)
    file.flush()
    sync_file(file.fileno())


def _link(partial: Path, target: Path) -> bool:
    """Give the file its name if nobody has it. A link, since a rename would replace what is there."""
    try:
        os.link(partial, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP):
            raise OSError(error.errno, "this file system has no hard links, which artifacts need") from error
        raise
    return True


def _rename(partial: Path, target: Path) -> bool:
    partial.replace(target)
    return True
