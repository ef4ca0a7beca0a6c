"""The studio: a page for browsers, served as the files of serving/web. Needs no key, since the files hold no secret.

What the page shows it asks the API for, with a key that its user gives it. Files are read for each request, so that an
edit shows without a restart.
"""

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.api.errors import not_found
from serving.api.media import is_known

MAX_STUDIO_FILE_BYTES = 1 << 20
"""Bytes of one file of the studio's page."""


router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parents[2] / "web"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".yaml": "application/yaml",
    ".woff2": "font/woff2",
}
"""What is served at all, by the ending of its name."""

HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        "connect-src 'self'; font-src 'self'; form-action 'none'; frame-ancestors 'none'; "
        "base-uri 'none'; manifest-src 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
"""The page may load its own files and talk to its own farm, and nobody else may frame it."""


@router.api_route("/", methods=["GET", "HEAD"])
def page(request: Request) -> Response:
    """The page itself."""
    return _send(request, "index.html")


@router.api_route("/studio/{path:path}", methods=["GET", "HEAD"])
def page_file(path: str, request: Request) -> Response:
    """A file of the page."""
    return _send(request, path)


def find_file(folder: Path, path: str) -> Path | None:
    """The file that a path names, if it is one that is served: of a known type, in the folder, not hidden."""
    parts = path.split("/")
    if any(not part or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        return None
    found = folder.joinpath(*parts).resolve()
    try:
        fits = found.is_file() and found.stat().st_size <= MAX_STUDIO_FILE_BYTES
    except OSError:  # a name too long for the file system
        return None
    return found if fits and found.suffix in TYPES and found.is_relative_to(folder.resolve()) else None


def _send(request: Request, path: str) -> Response:
    found = find_file(FOLDER, path)
    if found is None:
        raise not_found("such file in the studio")
    content = found.read_bytes()
    headers = {**HEADERS, "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}
    if is_known(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=TYPES[found.suffix])
