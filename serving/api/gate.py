"""What every request passes before any route: host, key, rate, size. Pure ASGI, so that it costs little.

Where no keys are needed only programs of this machine may ask: the Host must be a loopback name or an address, and a
page of another origin is refused (a browser sends it without asking, and a name that is bound to 127.0.0.1 passes for
ours). Keys come in the Authorization header alone, never in a URL.
"""

import ipaddress
import math
import secrets
from collections.abc import Callable
from urllib.parse import urlsplit

import anyio.to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.caller import LOCAL, Caller
from serving.api.errors import ApiError, answer_error, as_api_error
from serving.config.farm import FarmConfig
from serving.errors import LongtakeError

OPEN_PATHS = ("/", "/healthz", "/readyz", "/openapi.json")
"""What needs no key and is not counted: probes, the description of the API, the studio's page."""

OPEN_FOLDERS = ("/studio/",)
"""Below these paths likewise: the files of the studio's page."""

Identify = Callable[[str], Caller | None]
"""Whose a key is; None where it is nobody's."""


class Gate:
    """Lets a request through to the application with its Caller, or answers it."""

    def __init__(self, app: ASGIApp, *, config: FarmConfig, identify: Identify, clock: Callable[[], float]) -> None:
        self._app = app
        self._config = config
        self._identify = identify
        self._rates = Rates(config.limits.requests_per_minute, clock)

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
        await self._app(scope, _limited(receive, self._config.limits.max_body_bytes), answer)

    async def _admit(self, scope: Scope) -> Caller | None:
        headers = Headers(scope=scope)
        if not self._config.needs_keys:
            check_host(headers, own_host=self._config.host)
        check_length(headers, self._config.limits.max_body_bytes)
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise ApiError(400, "a URL must not contain the character U+0000", code="invalid_url")
        if scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDERS):
            return None
        caller = await self._find_caller(headers) if self._config.needs_keys else LOCAL
        wait_s = self._rates.spend(caller.tenant, caller.requests_per_minute)
        if wait_s > 0:
            retry = {"Retry-After": str(math.ceil(wait_s))}
            raise ApiError(429, "more requests than a minute allows", code="rate_limited", headers=retry)
        return caller

    async def _find_caller(self, headers: Headers) -> Caller:
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        caller = None
        if scheme.lower() == "bearer" and secret.strip():
            caller = await anyio.to_thread.run_sync(self._identify, secret.strip())
        if caller is None:
            detail = "send an API key as 'Authorization: Bearer lt_...'; `longtake keys create` makes one"
            raise ApiError(401, detail, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return caller


class Rates:
    """A bucket of requests for each tenant: a minute's worth at once, filled again evenly. For one event loop."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def spend(self, tenant: str, per_minute: int | None = None) -> float:
        """Count a request. Returns the seconds to wait before it would be let through; 0 where it is."""
        limit, now = per_minute or self._per_minute, self._clock()
        left, at = self._buckets.get(tenant, (float(limit), now))
        left = min(limit, left + max(0.0, now - at) * limit / 60)
        if left < 1:
            self._buckets[tenant] = (left, now)
            return (1 - left) * 60 / limit
        self._buckets[tenant] = (left - 1, now)
        return 0.0


def check_host(headers: Headers, *, own_host: str) -> None:
    """Raises ApiError where the request was meant for another host's name, or comes from a page of another origin."""
    host = headers.get("host", "")
    name = _host_name(host)
    if not (_is_address(name) or name in ("localhost", own_host.lower())):
        detail = "without API keys only requests to a loopback name or an address are answered; turn auth on for others"
        raise ApiError(403, detail, code="wrong_host")
    if _listens_on_loopback_alone(own_host) and _is_address(name) and not ipaddress.ip_address(name).is_loopback:
        raise ApiError(403, "this address is not one that the farm listens on", code="wrong_host")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise ApiError(403, "without API keys pages of other origins are not answered", code="wrong_origin")


def check_length(headers: Headers, most_bytes: int) -> None:
    """Raises ApiError where the body is announced as too large."""
    length = headers.get("content-length", "")
    if length.isdigit() and len(length) < 20 and int(length) <= most_bytes:
        return
    if length:
        raise _too_large(most_bytes)


def _host_name(host: str) -> str:
    """Without the port, without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


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
    """The body as it comes, which ends in 413 where it is longer than allowed, announced or not."""
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
