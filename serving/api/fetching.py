"""Fetches pictures that storyboards name by their address: from hosts that farm.yaml allows, and nowhere else.

HTTPS alone, on the public internet, at the very address that was checked (addresses.py), without redirects, bounded in
bytes and time.
"""

import hashlib
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx

from serving.api.addresses import ForbiddenAddress, Resolve, find_target, resolve
from serving.api.assets import keep_asset
from serving.api.errors import ApiError, refuse
from serving.api.services import Services
from serving.documents.places import Place, show, write_path
from serving.errors import Problem
from serving.pictures.reading import MAX_PICTURE_BYTES
from serving.storyboard import Storyboard
from serving.storyboard.schema import is_address

FETCH_S = 20.0
"""Seconds that one picture may take."""

MAX_FETCHED = 16
"""Pictures of one storyboard that are fetched; more are to be sent as assets."""


class FetchError(ValueError):
    """A picture that cannot be fetched; the message says why."""


def fetch_pictures(
    services: Services,
    tenant: str,
    storyboard: Storyboard,
    *,
    look_up: Resolve = resolve,
    transport: httpx.BaseTransport | None = None,
) -> Storyboard:
    """The storyboard with each address replaced by an asset of the tenant. Raises ApiError 422 with everything that
    cannot be fetched."""
    found = _addresses(services, storyboard)
    names: dict[str, str] = {}
    problems: list[Problem] = []
    for address, place in found.items():
        try:
            content = fetch(address, look_up=look_up, transport=transport)
            names[address] = f"sha256:{keep_asset(services, tenant, content).asset.sha256}"
        except FetchError as error:
            problems.append(_problem(place, address, str(error)))
        except ApiError as error:
            problems.append(_problem(place, address, error.problems[0].message if error.problems else error.detail))
    if problems:
        raise refuse(problems)
    return storyboard.with_pictures(names)


def stand_in(services: Services, storyboard: Storyboard) -> Storyboard:
    """The storyboard with each address replaced by something that can be priced; nothing is fetched. Raises ApiError
    422 for those that would not be."""
    names = {a: f"sha256:{hashlib.sha256(a.encode()).hexdigest()}" for a in _addresses(services, storyboard)}
    return storyboard.with_pictures(names)


def fetch(address: str, *, look_up: Resolve = resolve, transport: httpx.BaseTransport | None = None) -> bytes:
    """The bytes at an address. Raises FetchError."""
    until = time.monotonic() + FETCH_S
    try:
        target = find_target(address, allow_private=False, look_up=look_up)
        client = httpx.Client(transport=transport, trust_env=False, timeout=FETCH_S / 2, follow_redirects=False)
        extensions = {"sni_hostname": target.name}
        with client, client.stream("GET", target.url, headers={"Host": target.host}, extensions=extensions) as response:
            if response.status_code != httpx.codes.OK:
                raise FetchError(f"it answers {response.status_code} instead of a picture")
            content = b""
            for part in response.iter_bytes():
                content += part
                if len(content) > MAX_PICTURE_BYTES:
                    raise FetchError(f"it is larger than {MAX_PICTURE_BYTES} bytes")
                if time.monotonic() > until:
                    raise FetchError(f"it did not come within {FETCH_S:g} seconds")
            return content
    except ForbiddenAddress as error:
        raise FetchError(str(error)) from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise FetchError("it cannot be reached") from error


def _addresses(services: Services, storyboard: Storyboard) -> dict[str, Place]:
    """Every address among the pictures, with its first place. Raises ApiError 422 for those that are not allowed."""
    found: dict[str, Place] = {}
    for place, picture in storyboard.pictures():
        if is_address(picture):
            found.setdefault(picture, place)
    hosts = services.config.assets.allow_hosts
    problems = [
        _problem(place, address, _what_is_allowed(hosts))
        for address, place in found.items()
        if not _is_allowed(address, hosts)
    ]
    if len(found) > MAX_FETCHED:
        problems.append(Problem("shots", f"name {len(found)} addresses; at most {MAX_FETCHED} are fetched"))
    if problems:
        raise refuse(problems)
    return found


def _is_allowed(address: str, hosts: Sequence[str]) -> bool:
    try:
        parts = urlsplit(address)
        name = (parts.hostname or "").rstrip(".")
    except ValueError:
        return False
    return parts.scheme == "https" and any(
        name == host or (host.startswith("*.") and name.endswith(host[1:])) for host in hosts
    )


def _what_is_allowed(hosts: Sequence[str]) -> str:
    if not hosts:
        return "is an address, and this farm fetches none: send the picture itself (POST /v1/assets)"
    return f"must be an https:// address at {', '.join(hosts)}, from where this farm fetches pictures, or an asset"


def _problem(place: Place, address: str, message: str) -> Problem:
    return Problem(write_path(place), message, value=show(address))
