"""Which addresses webhooks may go to: http and https on the public internet, unless the farm allows private ones.

A name is looked up here and the connection made to the very address that was checked, so that a name cannot mean a
public address when it is checked and a private one when it is used.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from serving.api.errors import refuse
from serving.errors import Problem, UserError

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a name."""


class ForbiddenAddress(UserError):
    """An address that a webhook may not go to; the message says why."""


@dataclass(frozen=True)
class Target:
    """Where a request really goes."""

    url: str
    """With the address in place of the name."""
    host: str
    """The Host header: name and port as they were written."""
    name: str
    """What the certificate must be for."""


def resolve(name: str, port: int) -> Sequence[str]:
    """The addresses of a name as this machine sees them. Raises OSError."""
    return [str(info[4][0]) for info in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]


def check_address(url: str, *, allow_private: bool, look_up: Resolve = resolve) -> None:
    """Raises ApiError 422 if a webhook may not go there."""
    try:
        find_target(url, allow_private=allow_private, look_up=look_up)
    except ForbiddenAddress as error:
        raise refuse([Problem("url", str(error))]) from error


def find_target(url: str, *, allow_private: bool, look_up: Resolve = resolve) -> Target:
    """Where a request to `url` may go. Raises ForbiddenAddress, in the same words for a name that nobody knows and for
    one that is private: nobody learns here which names a private network has."""
    parts = _split(url)
    name, port = _host(parts)
    if not allow_private and port not in (80, 443) and (port < 1024 or port in _NOT_FOR_HTTP):
        raise ForbiddenAddress(f"port {port} is not one for webhooks: use 443, 80, or one from 1024 on")
    try:
        addresses = [ipaddress.ip_address(address.partition("%")[0]) for address in look_up(name, port)]
    except (OSError, UnicodeError):
        addresses = []
    if not addresses or not (allow_private or all(_is_public(address) for address in addresses)):
        raise ForbiddenAddress("its host is not known" if allow_private else "its host is not on the public internet")
    address = addresses[0]
    literal = f"[{address}]" if address.version == 6 else str(address)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return Target(f"{parts.scheme}://{literal}:{port}{path}", parts.netloc, name)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises if it is no port
    except ValueError as error:
        raise ForbiddenAddress("it is not a URL") from error
    if parts.scheme not in ("http", "https"):
        raise ForbiddenAddress("it must begin with https:// or http://")
    if "@" in parts.netloc or parts.fragment or not url.isascii() or any(char.isspace() for char in url):
        raise ForbiddenAddress("it must be plain ASCII without user, password and fragment")
    return parts


def _host(parts: SplitResult) -> tuple[str, int]:
    name = (parts.hostname or "").rstrip(".")
    if parts.port == 0:
        raise ForbiddenAddress("0 is not a port")
    if not name or len(name) > 253 or any(not label or len(label) > 63 for label in name.split(".")):
        raise ForbiddenAddress("it names no host")
    return name, parts.port or (443 if parts.scheme == "https" else 80)


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it is reached over the internet. An IPv4 address inside an IPv6 one counts as itself."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if inner:
            return _is_public(inner)
        if address in _NAT64:
            return _is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.is_site_local:
            return False
    elif address in _RELAYS_TO_6TO4:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_RELAYS_TO_6TO4 = ipaddress.IPv4Network("192.88.99.0/24")
"""Deprecated by RFC 7526: nobody is there, or whoever says so."""

_NOT_FOR_HTTP = frozenset({2049, 3306, 5432, 6379, 6667, 11211, 27017})
"""Ports from 1024 on where something else than HTTP listens: NFS, databases, caches, IRC."""
