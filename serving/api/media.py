"""Answers with an artifact's bytes: ranges (RFC 9110), ETag, If-None-Match, If-Range, HEAD. Bounded memory.

A small artifact is read before the answer begins, so that one which is rewritten meanwhile (the preview of a take) is
whole all the same. A large one that is rewritten while it is sent ends the answer early, so that nobody takes two
halves of different files for one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from serving.api.errors import ApiError, not_found
from serving.settings import ARTIFACT_PART_BYTES
from serving.store.artifacts import ArtifactInfo, Artifacts

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True)
class Media:
    """What is sent: an artifact, under a name that a browser saves it by."""

    key: str
    content_type: str
    name: str


MAX_READS = 5
"""Times that a small artifact is read because it was rewritten between the look at its size and the reading."""


def send_media(request: Request, artifacts: Artifacts, media: Media, *, reads: int = MAX_READS) -> Response:
    """The artifact, or the part of it that was asked for. Raises ApiError 404, 416."""
    info = _look_up(artifacts, media.key)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": _etag(info),
        "Cache-Control": "private, no-cache",
        "Referrer-Policy": "no-referrer",  # the URL may be a signed link
        "Content-Disposition": f'inline; filename="{media.name}"',
    }
    if is_known(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    span = _requested_range(request, info, headers["ETag"])
    start, stop = span or (0, info.bytes)
    headers["Content-Length"] = str(stop - start)
    if span:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{info.bytes}"
    status = 206 if span else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media.content_type)
    if span is None and info.bytes <= ARTIFACT_PART_BYTES:
        content = artifacts.get(info.key)
        if len(content) != info.bytes and reads > 1:
            return send_media(request, artifacts, media, reads=reads - 1)
        return Response(
            content, headers={**headers, "Content-Length": str(len(content))}, media_type=media.content_type
        )
    parts = _parts(artifacts, info, start, stop)
    return StreamingResponse(parts, status, headers=headers, media_type=media.content_type)


def file_name(title: str, extension: str) -> str:
    """A name for a download: the title's plain letters and digits."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-")[:60]
    return f"{plain or 'film'}.{extension}"


def is_known(condition: str | None, etag: str) -> bool:
    """Whether If-None-Match names this version: weak comparison."""
    if condition is None:
        return False
    return condition.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in condition.split(",")]


def _look_up(artifacts: Artifacts, key: str) -> ArtifactInfo:
    """The artifact without its content."""
    folder = key.rpartition("/")[0]
    for info in artifacts.list(folder):
        if info.key == key:
            return info
    raise not_found("such file yet, or no longer")


def _etag(info: ArtifactInfo) -> str:
    return f'"{info.bytes:x}-{int(info.modified_at * 1e6):x}"'


def _requested_range(request: Request, info: ArtifactInfo, etag: str) -> tuple[int, int] | None:
    """The bytes asked for as (start, stop); None for all of them, also where the range is of a form not served."""
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if_range = request.headers.get("if-range")
    if match is None or match[0] == "bytes=-" or (if_range is not None and if_range.strip() != etag):
        return None
    first, last = match[1], match[2]
    if first:
        if last and int(last) < int(first):
            return None  # RFC 9110, 14.1.1: invalid, to be ignored
        start, stop = int(first), min(info.bytes, int(last) + 1) if last else info.bytes
    else:
        start, stop = max(0, info.bytes - int(last)), info.bytes
    if start >= stop:
        headers = {"Content-Range": f"bytes */{info.bytes}"}
        detail = f"the file has {info.bytes} bytes"
        raise ApiError(416, detail, code="range_not_satisfiable", headers=headers)
    return start, stop


def _parts(artifacts: Artifacts, info: ArtifactInfo, start: int, stop: int) -> Iterator[bytes]:
    for at in range(start, stop, ARTIFACT_PART_BYTES):
        if at > start and _look_up(artifacts, info.key) != info:
            raise RuntimeError(f"{info.key} was rewritten while it was sent")
        yield artifacts.get_range(info.key, at, min(stop, at + ARTIFACT_PART_BYTES))
