"""Where a film and what lies beside it are written: tried before any work is done, and never over a user's own file.

"-" as the name of a film stands for stdout.
"""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from serving.errors import OutOfSpace, UserError
from serving.render.manifest import MANIFEST_NAME, is_manifest
from serving.render.scratch import is_disk_full

STDOUT = Path("-")

_MAX_NAME_BYTES = 232
"""Bytes of the longest name that a usual disk takes for a film: 255, less what the name of an unfinished film adds."""


def check_film(out: Path, *, reads: Sequence[Path] = (), with_manifest: bool = False, as_json: bool = False) -> None:
    """Raises UserError if a film could not be written to `out`, and its manifest beside it, or if that would replace
    one of the files that are read; OutOfSpace for a disk that is full."""
    if out == STDOUT:
        if as_json:
            raise UserError("--json: does not go with --out -, which sends the film itself to stdout")
        if sys.stdout.isatty():
            raise UserError("--out: stdout is a terminal; send the film to a file or a program")
        return
    if out.suffix.lower() != ".mp4":
        raise UserError(f"--out: the film's name must end with .mp4 (got {str(out)!r})")
    with _errors_told("--out", out.parent):
        if out.is_dir():
            raise UserError(f"--out: {out} is a folder; name a file in it")
        if not out.parent.is_dir():
            raise UserError(f"--out: there is no folder {out.parent}")
        _keep_files(out, reads=reads, with_manifest=with_manifest)
        _make_and_remove(out.with_name(f".{out.name}.{os.getpid():016d}.part"))


def check_latents_folder(folder: Path, files: Sequence[str]) -> None:
    """Raises UserError if `files`, names of files with latents, could not be written into `folder`, which need not be
    there yet, or would replace files that hold something else."""
    from serving.render.local.kept_latents import holds_latents

    option, there = "--keep-latents", folder
    with _errors_told(option, folder):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{option}: {folder} is a file, not a folder")
        if not folder.exists():
            there = folder.parent
        if not there.is_dir():
            raise UserError(f"{option}: there is no folder {there}")
        for path in (folder / name for name in files):
            if path.exists() and not holds_latents(path):
                raise UserError(f"{option}: {path} is there and does not hold a take's latents; use another folder")
        _make_and_remove(there / f".longtake-{os.getpid()}.part")


def check_room(needed: Mapping[Path, int]) -> None:
    """Raises OutOfSpace if a disk has less room than the bytes that are needed in these folders."""
    by_disk: dict[int, tuple[Path, int]] = {}
    for folder, num_bytes in needed.items():
        there = folder if folder.is_dir() else folder.parent
        first, total = by_disk.get(there.stat().st_dev, (there, 0))
        by_disk[there.stat().st_dev] = first, total + num_bytes
    for folder, num_bytes in by_disk.values():
        free = shutil.disk_usage(folder).free
        if free < num_bytes:
            raise OutOfSpace(f"no room on {folder}: {_mib(num_bytes)} are needed, {_mib(free)} are free")


@contextmanager
def open_film(out: Path) -> Iterator[Path]:
    """The file to write the film to: `out` itself, or a temporary one that goes to stdout when it is complete."""
    if out != STDOUT:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
        path = Path(folder) / "film.mp4"
        yield path
        with path.open("rb") as film:
            shutil.copyfileobj(film, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _keep_files(out: Path, *, reads: Sequence[Path], with_manifest: bool) -> None:
    manifest = out.with_name(MANIFEST_NAME)
    for path in reads:
        if _is_same(path, out):
            raise UserError(f"--out: {out} is what the film is made from; name another file")
        if with_manifest and _is_same(path, manifest):
            raise UserError(f"--out: the manifest {manifest} would replace the storyboard; use another folder")
    if with_manifest and manifest.exists() and not is_manifest(manifest):
        raise UserError(f"--out: {manifest} is there and is not a film's manifest; use another folder")


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return False


def _make_and_remove(path: Path) -> None:
    """Whether a file can be made, no check of modes and mounts can say."""
    with path.open("xb"):
        pass
    path.unlink()


@contextmanager
def _errors_told(option: str, folder: Path) -> Iterator[None]:
    """Raises the system's errors as UserError, or OutOfSpace."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{option}: the name is too long; most disks take {_MAX_NAME_BYTES} bytes") from error
        if is_disk_full(error):
            raise OutOfSpace(f"no room on {folder}: {error.strerror}") from error
        raise UserError(f"{option}: nothing can be written in {folder}: {error.strerror}") from error


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):,.1f} MiB"
