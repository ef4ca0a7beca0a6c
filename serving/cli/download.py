"""`longtake download`: a film from the farm to a file, whole or not at all.

It grows under a name that says which film it is; a download that was cut off goes on from there, also in a later run.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import httpx
import typer

from serving.cli.client.farm_client import FarmClient, Json, Refused, farm
from serving.cli.options import AsJson, JobName
from serving.cli.output.film_file import STDOUT, check_film, check_room, open_film
from serving.cli.output.job_text import film_words, status_word
from serving.cli.output.terminal import print_json, print_line, tell
from serving.cli.output.transfer import transfer_bar
from serving.errors import Fault, UserError
from serving.render.manifest import MANIFEST_NAME
from serving.render.scratch import raise_if_full
from serving.settings import CLIENT_PATIENCE_S


def download(
    job: JobName,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The film to write; default: its title, here.")
    ] = None,
    manifest: Annotated[bool, typer.Option("--manifest", help=f"Write {MANIFEST_NAME} beside it too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download a finished film."""
    if out is not None:
        if out == STDOUT and manifest:
            raise UserError(f"--manifest: {MANIFEST_NAME} has no place beside stdout; leave --out - out")
        check_film(out, with_manifest=manifest, as_json=as_json)
    with farm() as client:
        found = client.get(f"/v1/jobs/{client.find_job(job)}")
        if found["film"] is None:
            state = f"{status_word(found['status'])} ({found['progress']:.0f} %)"
            raise UserError(f"{found['id']} has no film yet: it is {state}; `longtake watch {job}` waits for it")
        path = out if out is not None else _free_name(found, manifest=manifest)
        download_film(client, found, path)
        if manifest:
            _fetch_manifest(client, found["links"]["manifest"], path.with_name(MANIFEST_NAME))
    if as_json:
        print_json(found)
    elif path != STDOUT:
        print_line(str(path))


def download_film(client: FarmClient, job: Json, out: Path) -> None:
    """Writes the film of a completed job. Raises Fault if it cannot be downloaded whole."""
    film = job["film"]
    try:
        with open_film(out) as path:
            check_room({path.parent: film.get("bytes") or 0})
            with transfer_bar(film.get("bytes")) as show:
                _fetch(client, job["links"]["film"], path, sha256=film["sha256"], show=show)
    except OSError as error:
        raise_if_full(error, out.parent)
        raise Fault(f"{out}: cannot be written: {error.strerror}") from error
    tell(f"{'the film' if out == STDOUT else out}: {film_words(film)}")


def _free_name(job: Json, *, manifest: bool) -> Path:
    """A name in this folder made from the title, that is not taken. Raises UserError."""
    plain = re.sub(r"[^\w]+", "-", job["title"]).strip("-_")[:60] or "film"
    version = f"-v{job['version']}" if job["version"] > 1 else ""
    path = Path(f"{plain}{version}.mp4")
    if path.exists():
        raise UserError(f"{path} is there already; name another file with --out")
    check_film(path, with_manifest=manifest)
    return path


def _fetch(client: FarmClient, path: str, out: Path, *, sha256: str, show: Callable[[int], object]) -> None:
    part = out.with_name(f".{out.name}.{sha256[:16]}.part")
    patience = client.patience()
    for last_chance in (False, True):
        before = -1
        while (broken := _fetch_rest(client, path, part, show)) is not None:
            have = part.stat().st_size if part.exists() else 0
            if have > before:
                patience.reset()
            before = have
            patience.wait(broken, limit_s=CLIENT_PATIENCE_S)
        if _hash(part) == sha256:
            break
        part.unlink()
        if last_chance:
            raise Fault(f"{out}: what the farm sends is not the film that it names: the hashes differ")
    _put_in_place(part, out)


def _fetch_rest(client: FarmClient, path: str, part: Path, show: Callable[[int], object]) -> Exception | None:
    """Adds to the partial file what is missing of it; returns what broke the connection before the end, if it did."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with client.stream(path, headers) as response, part.open("ab" if response.status_code == 206 else "wb") as file:
            done = file.tell()
            for chunk in response.iter_bytes():
                file.write(chunk)
                done += len(chunk)
                show(done)
    except httpx.TransportError as broken:
        return broken
    except Refused as refused:
        if refused.status != 416:
            raise
    return None  # after 416 it has as many bytes as the film, or more


def _fetch_manifest(client: FarmClient, path: str, out: Path) -> None:
    content = json.dumps(client.get(path), indent=2, ensure_ascii=False) + "\n"
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    part.write_text(content)
    _put_in_place(part, out)


def _put_in_place(part: Path, out: Path) -> None:
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(out)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
