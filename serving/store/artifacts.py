"""Artifacts: checkpoints, latents, frames, films and what else is too large for the job store, by key.

A store is a folder on this machine or an S3-compatible bucket. Every artifact is whole or not there, also after a
killed writer or a power cut; a failing store is tried again for a bounded time. It knows nothing of what it keeps.
"""

import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from cluster.contract.backoff import Backoff
from serving import settings
from serving.errors import ArtifactMissing, ArtifactsUnavailable, UserError
from serving.store.artifact_writers import (
    PARTIALS,
    BucketWriter,
    FolderWriter,
    Source,
    Writer,
    is_abandoned,
    new_partial,
)

ARTIFACT_PATIENCE_S = 30.0
"""Seconds for which an artifact store that fails is tried again before the work that needs it does."""

ARTIFACT_BACKOFF = Backoff(first_s=0.1, cap_s=3.0)
"""Between two tries, less a random part."""

ARTIFACT_REQUEST_S = 30.0
"""Seconds that one request to an object store may take."""

MAX_KEY_CHARS = 500
"""Characters of an artifact's key; object stores allow 1024 bytes with the prefix."""

ABANDONED_PARTIALS_S = 86_400.0
"""Seconds after which an unfinished write to a bucket is taken for one whose writer was killed."""

LOCK_S = 2.0
"""Seconds that the writer of a file gets between making it and locking it."""


if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

log = logging.getLogger(__name__)

KEY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
"""Keys are paths of plain names, so that they mean the same in a folder, a bucket and a URL."""

LOOKUPS_AT_ONCE = 16
"""Requests that ask whether something is there, on their way at once."""

S3_OPTIONS = ("endpoint", "region")
"""What the query of an s3:// URL may hold. Credentials are never a part of it: they come from AWS_* variables."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class ArtifactInfo:
    """One artifact, without its content."""

    key: str
    bytes: int
    modified_at: float
    """Unix seconds."""


Infos = list[ArtifactInfo]  # inside the class below `list` is a method


class Artifacts:
    """An artifact store. Safe to use from several threads and processes at once.

    Every method raises ArtifactsUnavailable when the store has failed for `patience_s` seconds.
    """

    def __init__(self, store: Any, writer: Writer, *, url: str, root: Path | None, patience_s: float) -> None:
        self._store = store
        self._writer = writer
        self._root = root
        self._patience_s = patience_s
        self.url = url
        """What `open` was given."""

    @staticmethod
    def open(url: str, *, patience_s: float = ARTIFACT_PATIENCE_S) -> "Artifacts":
        """The store at a folder (`file:///folder` or a plain path; it is made) or `s3://bucket/prefix`.

        An s3 URL may name `?endpoint=https://host&region=name`. Raises UserError for a URL that means neither.
        """
        parts = urlsplit(url)
        if parts.scheme == "s3":
            store = _open_bucket(parts, url)
            return Artifacts(store, BucketWriter(store), url=url, root=None, patience_s=patience_s)
        root = _make_root(parts, url)
        local = LocalStore(root, automatic_cleanup=True)
        return Artifacts(local, FolderWriter(root), url=url, root=root, patience_s=patience_s)

    def check(self) -> None:
        """Prove that the store can be written and refuses to create what exists. Raises ArtifactsUnavailable."""
        probe = new_partial()
        try:
            self._write(probe, b"longtake", create=True)
            if self._write(probe, b"another", create=True):
                raise ArtifactsUnavailable(
                    f"{self.url} overwrites an object that it was asked to create only where there is none"
                    " (If-None-Match: *); without that two writers cannot be told apart"
                )
        finally:
            self._delete([probe])

    # ------------------------------------------------------------------------------------------------ writing

    def put(self, key: str, data: bytes) -> None:
        """Write an artifact, in place of what may be there."""
        self._write(_checked(key), data, create=False)

    def create(self, key: str, data: bytes) -> bool:
        """Write an artifact if there is none. False, and nothing changed, if one is."""
        return self._write(_checked(key), data, create=True)

    def put_file(self, key: str, path: Path) -> None:
        """`put` of a file's content, in bounded memory."""
        self._write(_checked(key), path, create=False)

    def create_file(self, key: str, path: Path) -> bool:
        """`create` from a file's content, in bounded memory."""
        return self._write(_checked(key), path, create=True)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete artifacts; those that are not there are no error."""
        self._delete([_checked(key) for key in keys])

    def delete_folder(self, prefix: str) -> None:
        """Delete every artifact below a folder."""
        self.delete([info.key for info in self.list(prefix)])

    # ------------------------------------------------------------------------------------------------ reading

    def get(self, key: str) -> bytes:
        """The whole content. Raises ArtifactMissing."""
        return self._trying(key, lambda: bytes(obstore.get(self._store, _checked(key)).bytes()))

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop` or the end. Raises ArtifactMissing, ValueError if there are none."""
        if not 0 <= start < stop:
            raise ValueError(f"a range of bytes needs 0 <= start < stop, not {start}..{stop}")

        def read() -> bytes:
            try:
                return bytes(obstore.get_range(self._store, _checked(key), start=start, end=stop))
            except BaseError:
                if start >= (size := int(obstore.head(self._store, key)["size"])):
                    raise ValueError(f"{key} has {size} bytes; a range cannot start at {start}") from None
                raise

        return self._trying(key, read)

    def parts(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop` or the end, piece by piece, for an artifact that is not rewritten
        meanwhile. Raises ArtifactMissing."""
        end = self.size(key) if stop is None else min(stop, self.size(key))
        for at in range(start, end, settings.ARTIFACT_PART_BYTES):
            yield self.get_range(key, at, min(end, at + settings.ARTIFACT_PART_BYTES))

    def get_to_file(self, key: str, path: Path) -> None:
        """Write the content to a local file, in bounded memory; none is left on failure. Raises ArtifactMissing."""

        def read() -> None:
            result = obstore.get(self._store, _checked(key))
            with path.open("wb") as file:
                for part in result.stream(min_chunk_size=settings.ARTIFACT_PART_BYTES):
                    file.write(part)
            if path.stat().st_size != result.meta["size"]:
                raise OSError(f"{path.stat().st_size} bytes of {result.meta['size']} came")

        try:
            self._trying(key, read)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def exists(self, key: str) -> bool:
        """Whether there is an artifact under the key."""
        try:
            self.size(key)
        except ArtifactMissing:
            return False
        return True

    def existing(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys under which there is an artifact. Asked for several at once: a bucket is far away."""
        with ThreadPoolExecutor(max_workers=LOOKUPS_AT_ONCE) as threads:
            listed = list(keys)
            return {key for key, there in zip(listed, threads.map(self.exists, listed), strict=True) if there}

    def size(self, key: str) -> int:
        """Its size in bytes. Raises ArtifactMissing."""
        return self._trying(key, lambda: int(obstore.head(self._store, _checked(key))["size"]))

    def list(self, prefix: str = "") -> Infos:
        """Every artifact below the folder `prefix`, by key; unfinished writes are not among them."""
        found = self._list(_checked(prefix.rstrip("/")) if prefix else None)
        return [info for info in found if not info.key.startswith(f"{PARTIALS}/")]

    def partials(self) -> Infos:
        """Writes that are not finished, by whoever."""
        return self._list(PARTIALS)

    def sweep_partials(self, *, now: float) -> int:
        """Delete unfinished writes whose writer was killed; returns how many. In a folder that is known, in a bucket
        they must be old. Parts of an upload to S3 that was cut off are not seen here: a bucket has a lifecycle rule
        for those."""
        old_s = ABANDONED_PARTIALS_S if self._root is None else LOCK_S
        abandoned = [
            info.key
            for info in self.partials()
            if info.modified_at < now - old_s and (self._root is None or is_abandoned(self._root / info.key))
        ]
        self._delete(abandoned)
        return len(abandoned)

    # ------------------------------------------------------------------------------------------------ inner

    def _write(self, key: str, source: Source, *, create: bool) -> bool:
        if isinstance(source, Path):
            source.stat()  # a source that is missing is no failure of the store's
        tries = 0

        def write() -> bool:
            nonlocal tries
            tries += 1
            return self._writer.write(key, source, create=create)

        if self._trying(key, write, reads=False):
            return True
        # What is there may be ours: a try that failed may have been done all the same.
        return tries > 1 and self._holds(key, source)

    def _holds(self, key: str, source: Source) -> bool:
        if not isinstance(source, Path):
            return self.get(key) == source
        if self.size(key) != source.stat().st_size:
            return False
        with source.open("rb") as file:
            return all(part == file.read(len(part)) for part in self.parts(key))

    def _delete(self, keys: Sequence[str]) -> None:
        def delete() -> None:
            for key in keys if self._root else ():
                try:
                    obstore.delete(self._store, key)
                except FileNotFoundError:
                    self._refuse_missing_root()
            if keys and not self._root:
                obstore.delete(self._store, keys)

        self._trying(f"{len(keys)} keys", delete, reads=False)

    def _list(self, prefix: str | None) -> Infos:
        def read() -> Infos:
            self._refuse_missing_root()
            found = [meta for batch in obstore.list(self._store, prefix) for meta in batch]
            infos = (ArtifactInfo(meta["path"], meta["size"], meta["last_modified"].timestamp()) for meta in found)
            return sorted(infos, key=lambda info: info.key)

        return self._trying(prefix or "everything", read)

    def _trying(self, what: str, action: Callable[[], Result], *, reads: bool = True) -> Result:
        """What `action` returns, tried again while the store fails. If it `reads`, what is not there is missing."""
        give_up_at = time.monotonic() + self._patience_s
        for wait_s in ARTIFACT_BACKOFF.waits():
            try:
                return action()
            except (BaseError, OSError) as error:
                if reads and isinstance(error, FileNotFoundError) and self._root_is_there():
                    raise ArtifactMissing(f"there is no artifact {what} in {self.url}") from error
                reason = str(error).strip().splitlines()[0]
                if time.monotonic() + wait_s > give_up_at:
                    raise ArtifactsUnavailable(f"the artifact store {self.url} fails: {what}: {reason}") from error
                log.warning("artifact store fails, trying again: %s: %s", what, reason, extra={"action": "retry"})
            # Less a random part, so that many who wait for one store do not all come back at once.
            time.sleep(wait_s * random.uniform(0.5, 1.0))
        raise AssertionError("a backoff has no last wait")

    def _root_is_there(self) -> bool:
        return self._root is None or self._root.is_dir()

    def _refuse_missing_root(self) -> None:
        """A folder that has gone as a whole is a disk that is not mounted, not a store that is empty."""
        if not self._root_is_there():
            raise OSError(f"the folder {self._root} is gone")


def _checked(key: str) -> str:
    if len(key) > MAX_KEY_CHARS or not KEY.fullmatch(key):
        raise ValueError(f"{key[:100]!r} cannot be the key of an artifact")
    return key


def _make_root(parts: SplitResult, url: str) -> Path:
    if parts.scheme not in ("", "file") or parts.query or parts.fragment or (parts.scheme and parts.netloc):
        raise UserError(
            f"artifacts lie in a folder ('file:///folder' or a path) or in 's3://bucket/prefix', not {url!r}"
        )
    path = Path(unquote(parts.path)) if parts.scheme else Path(url).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        return path.resolve(strict=True)
    except (OSError, ValueError) as error:
        raise UserError(f"artifacts cannot lie in {str(path)!r}: {error}") from error


def _open_bucket(parts: SplitResult, url: str) -> S3Store:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not set(options) <= set(S3_OPTIONS) or not parts.netloc or "@" in parts.netloc:
        raise UserError(
            "an S3 store is written 's3://bucket/prefix?endpoint=https://host&region=name', the query only where it is"
            " needed; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    client: ClientConfig = {"timeout": timedelta(seconds=ARTIFACT_REQUEST_S)}
    if options.get("endpoint", "").startswith("http://"):
        client["allow_http"] = True
    config: S3Config = {"copy_if_not_exists": "multipart"}
    if "endpoint" in options:
        config["endpoint"] = options["endpoint"]
    if "region" in options:
        config["region"] = options["region"]
    return S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        config=config,
        client_options=client,
        retry_config={"max_retries": 0},  # we try again ourselves, to know whether a write was tried before
    )
