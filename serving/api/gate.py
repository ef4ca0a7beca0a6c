"""What every request passes before any route: host, key, rate, size. Pure ASGI, so that it costs little.

If no keys are needed only programs of this machine may ask: the Host must be a loopback name or an address, and a
page of another origin is refused (a browser sends it without asking, and a name that is bound to 127.0.0.1 passes for
ours). Keys come in the Authorization header alone, never in a URL, which may carry the signature of a link instead
(links.py); wrong ones are counted by the address that they come from. What Serve's proxy holds before a request comes
here is not bounded here: see docs/http.md.
"""

import hashlib
import ipaddress
import math
import secrets
from collections.abc import Callable
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import anyio.to_thread
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.caller import LOCAL, Caller
from serving.api.errors import ApiError, answer_error, as_api_error
from serving.api.links import is_link
from serving.config.farm import FarmConfig
from serving.errors import LongtakeError

MAX_HEADER_BYTES = 65_536
"""Bytes of a request's line and headers together."""

WRONG_KEYS_PER_MINUTE = 60
"""Wrong keys that one address may send; a key that was right lately is let in all the same."""

KEY_REMEMBERED_S = 60.0
"""Seconds for which a right key is remembered, to be looked up again though its address sends too many wrong ones."""

MAX_BUCKETS = 10_000
"""Addresses or tenants whose requests are counted at the same time; the one counted first is forgotten first."""

OPEN_PATHS = ("/", "/healthz", "/readyz", "/openapi.json")
"""What needs no key and is not counted: probes, the description of the API, the studio's page."""

OPEN_FOLDERS = ("/studio/",)
"""Below these paths likewise: the files of the studio's page."""

PICTURE_PATHS = ("/v1/assets", "/v1/videos")
"""What may be sent pictures."""

Key = TypeVar("Key")
Value = TypeVar("Value")


class Identify(Protocol):
    """Whose a request is, by what the store knows."""

    def by_key(self, secret: str) -> Caller | None:
        """Whose a key is; None if it is nobody's."""

    def by_link(self, method: str, path: str, query: QueryParams) -> Caller | None:
        """Whose key signed the link by which the request comes; None if nobody's did. Raises ApiError 403 if the link
        has expired."""


class Gate:
    """Lets a request through to the application with its Caller, or answers it."""

    def __init__(self, app: ASGIApp, *, config: FarmConfig, identify: Identify, clock: Callable[[], float]) -> None:
        self._app = app
        self._config = config
        self._identify = identify
        self._rates = Rates(config.limits.requests_per_minute, clock)
        self._wrong_keys = Rates(WRONG_KEYS_PER_MINUTE, clock)
        self._right_keys: dict[bytes, float] = {}
        """When each was found last, by its hash and by its id."""
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _with_request_id(send)
        try:
            caller = await self._admit(scope)
        except (ApiError, LongtakeError) as error:
            await answer_error(as_api_error(error), scope["path"])(scope, receive, answer)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, _limited(receive, self._most_bytes(scope)), answer)

    async def _admit(self, scope: Scope) -> Caller | None:
        check_header_size(scope)
        headers = Headers(scope=scope)
        if not self._config.needs_keys:
            check_host(headers, own_host=self._config.host)
        check_length(headers, self._most_bytes(scope))
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise ApiError(400, "a URL must not contain the character U+0000", code="invalid_url")
        if scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDERS):
            return None
        caller = await self._find_caller(scope, headers) if self._config.needs_keys else LOCAL
        wait_s = self._rates.spend(caller.tenant, caller.requests_per_minute)
        if wait_s > 0:
            raise _too_often(wait_s, "more requests than a minute allows")
        return caller

    def _most_bytes(self, scope: Scope) -> int:
        """Bytes that the body of a request may have: more where it may hold a picture."""
        limits, assets = self._config.limits, self._config.assets
        holds_pictures = scope["method"] == "POST" and scope["path"] in PICTURE_PATHS
        return limits.max_body_bytes + assets.upload_bytes if holds_pictures else limits.max_body_bytes

    async def _find_caller(self, scope: Scope, headers: Headers) -> Caller:
        query, peer = QueryParams(scope["query_string"]), peer_of(scope)
        if "authorization" not in headers and is_link(query):
            return await self._check_link(scope, query, peer)
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        caller = None
        if scheme.lower() == "bearer" and secret.strip():
            caller = await self._look_up(secret.strip(), peer)
        if caller is None:
            detail = "send an API key as 'Authorization: Bearer lt_...'; `longtake keys create` makes one"
            raise ApiError(401, detail, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return caller

    async def _look_up(self, secret: str, peer: str) -> Caller | None:
        """Whose a key is. Raises ApiError if too many wrong ones came from this address."""
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        self._check_wrong(digest, peer)
        caller = await anyio.to_thread.run_sync(self._identify.by_key, secret)
        if caller is None:
            self._right_keys.pop(digest, None)
            self._wrong_keys.spend(peer)
        else:
            remember(self._right_keys, digest, self._clock())
            remember(self._right_keys, str(caller.key_id).encode(), self._clock())
        return caller

    async def _check_link(self, scope: Scope, query: QueryParams, peer: str) -> Caller:
        """Whose key signed a link. Raises ApiError if nobody's did, or too many wrong ones came from this address."""
        self._check_wrong(query.get("key", "").encode(), peer)
        caller = await anyio.to_thread.run_sync(self._identify.by_link, scope["method"], scope["path"], query)
        if caller is None:
            self._wrong_keys.spend(peer)
            detail = "this link was not signed for this request: it holds for one file and for GET and HEAD, unchanged"
            raise ApiError(403, detail, code="invalid_link")
        return caller

    def _check_wrong(self, key: bytes, peer: str) -> None:
        """Raises ApiError if too many wrong keys came from this address, and this one was not right lately."""
        is_known = self._clock() - self._right_keys.get(key, -math.inf) < KEY_REMEMBERED_S
        if not is_known and (wait_s := self._wrong_keys.wait_s(peer)) > 0:
            raise _too_often(wait_s, "too many wrong keys or links come from this address")


class Rates:
    """A bucket of requests for each tenant or address: a minute's worth at once, filled again evenly. For one event
    loop."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def spend(self, whose: str, per_minute: int | None = None) -> float:
        """Count a request. Returns the seconds to wait before it would be let through; 0 if it is."""
        limit = per_minute or self._per_minute
        left = self._left(whose, limit)
        remember(self._buckets, whose, (left - 1 if left >= 1 else left, self._clock()))
        return max(0.0, (1 - left) * 60 / limit)

    def wait_s(self, whose: str) -> float:
        """Seconds to wait before a request would be let through; nothing is counted."""
        return max(0.0, (1 - self._left(whose, self._per_minute)) * 60 / self._per_minute)

    def _left(self, whose: str, limit: int) -> float:
        now = self._clock()
        left, at = self._buckets.get(whose, (float(limit), now))
        return min(limit, left + max(0.0, now - at) * limit / 60)


def remember(known: dict[Key, Value], key: Key, value: Value) -> None:
    """Note a value under its key, as the newest of at most MAX_BUCKETS."""
    known.pop(key, None)
    known[key] = value
    if len(known) > MAX_BUCKETS:
        del known[next(iter(known))]


def peer_of(scope: Scope) -> str:
    """The address that a request comes from; of IPv6 the network that one customer has, which holds many."""
    host = str((scope.get("client") or ("",))[0])
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)


def check_header_size(scope: Scope) -> None:
    """Raises ApiError if the request's line and headers are too large."""
    line = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    if line + sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        detail = f"a request's headers may be at most {MAX_HEADER_BYTES} bytes in all"
        raise ApiError(431, detail, code="headers_too_large")


def check_host(headers: Headers, *, own_host: str) -> None:
    """Raises ApiError if the request was meant for another host's name, or comes from a page of another origin."""
    host = headers.get("host", "")
    name, port = _split_host(host)
    if port and not (port.isascii() and port.isdigit()):
        raise ApiError(400, "the port of the Host header must be a number", code="wrong_host")
    if not (_is_address(name) or name in ("localhost", own_host.lower())):
        detail = "without API keys only requests to a loopback name or an address are answered; turn auth on for others"
        raise ApiError(403, detail, code="wrong_host")
    if _listens_on_loopback_alone(own_host) and _is_address(name) and not ipaddress.ip_address(name).is_loopback:
        raise ApiError(403, "this address is not one that the farm listens on", code="wrong_host")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise ApiError(403, "without API keys pages of other origins are not answered", code="wrong_origin")


def check_length(headers: Headers, most_bytes: int) -> None:
    """Raises ApiError if the body is announced as too large."""
    length = headers.get("content-length", "")
    if length.isdigit() and len(length) < 20 and int(length) <= most_bytes:
        return
    if length:
        raise _too_large(most_bytes)


def _split_host(host: str) -> tuple[str, str]:
    """The name, without the brackets of an IPv6 address, and the port, as they are written."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name.lower(), rest.removeprefix(":")
    name, _, port = host.partition(":")
    return name.lower().rstrip("."), port


def _too_often(wait_s: float, detail: str) -> ApiError:
    return ApiError(429, detail, code="rate_limited", headers={"Retry-After": str(math.ceil(wait_s))})


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _listens_on_loopback_alone(own_host: str) -> bool:
    return own_host == "localhost" or (_is_address(own_host) and ipaddress.ip_address(own_host).is_loopback)


def _too_large(most_bytes: int) -> ApiError:
    return ApiError(413, f"a request may be at most {most_bytes} bytes", code="body_too_large")


def _limited(receive: Receive, most_bytes: int) -> Receive:
    """The body as it comes, which ends in 413 if it is longer than allowed, announced or not."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most_bytes:
            raise HTTPException(413, f"a request may be at most {most_bytes} bytes")
        return message

    return limited


def _with_request_id(send: Send) -> Send:
    """Answers carry an id of their own, and are never guessed to be of another type."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = f"req_{secrets.token_hex(12)}"
            headers["X-Content-Type-Options"] = "nosniff"
        await send(message)

    return answer
