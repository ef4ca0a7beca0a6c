"""The picture files that a storyboard names, read and checked before anything is loaded or sent.

A path is relative to the storyboard's folder. What a plan, a render and the farm then know a picture by is its sha256.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from serving.cli.client.farm_client import FarmClient, Refused
from serving.cli.film_plan import name_of
from serving.cli.output.terminal import tell
from serving.cli.output.transfer import transfer_bar
from serving.documents.places import find_nearest, show
from serving.errors import Problem, UserError
from serving.settings import expand

if TYPE_CHECKING:
    from serving.storyboard import Storyboard

PIECE_BYTES = 16 << 20
"""Bytes of a picture that are sent at once: what a farm takes unless it is told otherwise."""


def read_pictures(storyboard: "Storyboard", path: Path, *, local: bool) -> "tuple[Storyboard, dict[str, Path]]":
    """The storyboard at `path` with every picture file named by its sha256, and the files by that. With `local` nobody
    else will look for pictures: what is no file here is a mistake, else the farm is asked. Raises UserError with every
    picture that cannot be used."""
    from serving.storyboard import STDIN
    from serving.storyboard.schema import asset_of, is_address

    folder = Path() if path == STDIN else path.parent
    names: dict[str, str] = {}
    files: dict[str, Path] = {}
    problems: dict[str, Problem] = {}
    for place, picture in storyboard.pictures():
        if picture in names or picture in problems:
            continue
        if asset_of(picture) is not None or is_address(picture):
            if local:
                message = "must be the path of a file here: a film that is rendered on this machine reads nothing else"
                problems[picture] = storyboard.lines.problem(place, message, value=show(picture))
            continue
        file = folder / expand(picture)
        try:
            sha256 = _hash_picture(file)
        except _UnusableError as error:
            problems[picture] = storyboard.lines.problem(place, str(error), value=show(picture), nearest=error.nearest)
            continue
        names[picture] = f"sha256:{sha256}"
        files[sha256] = file
    if problems:
        raise UserError("\n".join(f"{name_of(path)}: {problem}" for problem in problems.values()))
    return storyboard.with_pictures(names), files


def load_pictures(files: Mapping[str, Path]) -> dict[str, bytes]:
    """The contents of picture files by sha256. Raises UserError for one that has changed meanwhile."""
    contents = {sha256: file.read_bytes() for sha256, file in files.items()}
    for sha256, content in contents.items():
        if hashlib.sha256(content).hexdigest() != sha256:
            raise UserError(f"{files[sha256]} was changed while it was being read")
    return contents


def send_pictures(client: FarmClient, files: Mapping[str, Path]) -> None:
    """Send the farm the pictures that it does not have; what it has, in part or whole, is not sent again. Raises
    UserError for one that the farm refuses, Fault."""
    waiting = {sha256: client.missing_from(f"/v1/assets/sha256:{sha256}") for sha256 in files}
    missing = {sha256: offset for sha256, offset in waiting.items() if offset is not None}
    if not missing:
        return
    contents = load_pictures({sha256: files[sha256] for sha256 in missing})
    total = sum(len(contents[sha256]) - offset for sha256, offset in missing.items())
    words = f"{len(missing)} picture" + "s" * (len(missing) > 1)
    sent = 0
    with transfer_bar(total) as show:
        for sha256, offset in missing.items():
            try:
                for length in _send(client, sha256, contents[sha256], offset):
                    show(sent := sent + length)
            except Refused as refused:
                raise UserError(f"{files[sha256]}: {refused}") from refused
    tell(f"{words} sent, {total / (1 << 10):.0f} KiB")


def _send(client: FarmClient, sha256: str, content: bytes, offset: int) -> Iterator[int]:
    """Sends what is missing of a picture; the length of each piece, after it was sent."""
    for start in range(offset, len(content), PIECE_BYTES):
        piece = content[start : start + PIECE_BYTES]
        pieces = {"offset": start, "total": len(content)} if len(content) > PIECE_BYTES else {}
        client.upload("/v1/assets", piece, {"id": f"sha256:{sha256}", **pieces})
        yield len(piece)


class _UnusableError(Exception):
    """A picture that cannot be used, in words that follow its place in the storyboard."""

    def __init__(self, message: str, nearest: str | None = None) -> None:
        super().__init__(message)
        self.nearest = nearest


def _hash_picture(file: Path) -> str:
    """The sha256 of a picture that can be decoded."""
    from serving.pictures.reading import MAX_PICTURE_BYTES, PictureError, read_picture

    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_PICTURE_BYTES + 1)
    except FileNotFoundError as error:
        raise _UnusableError(f"there is no such file in {file.parent}", _similar_name(file)) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _UnusableError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        read_picture(content)
    except PictureError as error:
        raise _UnusableError(str(error)) from error
    return hashlib.sha256(content).hexdigest()


def _similar_name(file: Path) -> str | None:
    try:
        return find_nearest(file.name, (other.name for other in file.parent.iterdir()))
    except OSError:
        return None
