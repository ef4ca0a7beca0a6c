"""The farm's HTTP API as the cluster uses it: pools and their terms, nodes and drains, as in cluster/contract.

Every request has a timeout and none is retried here, because every caller polls anyway. Answers are
read leniently, since farm and controller are not upgraded in the same moment; what is sent is exact.
"""

import json
import time
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from cluster.contract.pools_and_nodes import DrainRequest, NodeState, PoolState, PoolTerms
from cluster.errors import FarmRefused, FarmUnavailable

MAX_ANSWER_BYTES = 32 << 20
"""Bytes of an answer; ten times what the largest farm has to say."""

MAX_RETRY_AFTER_S = 120.0
"""Seconds; a farm that asks for more patience gets this much."""

MAX_DETAIL_CHARS = 500

_Part = TypeVar("_Part", bound=BaseModel)


class FarmClient:
    """Requests to one farm, in the name of an administrator; `agent` tells its logs who asks. Use it in one thread."""

    def __init__(self, url: str, *, api_key: str | None, timeout_s: float, agent: str = "longtake-cluster") -> None:
        self.url = url
        self._timeout_s = timeout_s
        headers = {"User-Agent": agent} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        # Together they make `timeout_s`.
        timeout = httpx.Timeout(0.75 * timeout_s, connect=0.25 * timeout_s)
        # No proxy and no settings of the environment: the farm is a service beside us.
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives connections back."""
        self._http.close()

    def pools(self) -> tuple[PoolState, ...]:
        """All pools. Raises FarmRefused, FarmUnavailable."""
        return self._list("/v1/pools", PoolState)

    def nodes(self) -> tuple[NodeState, ...]:
        """All nodes of its Ray cluster. Raises FarmRefused, FarmUnavailable."""
        return self._list("/v1/nodes", NodeState)

    def put_terms(self, pool: str, terms: PoolTerms) -> None:
        """Change what may be changed of a pool. Raises FarmRefused, FarmUnavailable."""
        self._send("PUT", f"/v1/pools/{quote(pool, safe='')}/terms", terms)

    def drain(self, node: str, request: DrainRequest) -> None:
        """Empty a node; asked twice it changes nothing but an earlier deadline. Raises FarmRefused, FarmUnavailable."""
        self._send("POST", f"/v1/nodes/{quote(node, safe='')}/drain", request)

    def _list(self, path: str, kind: type[_Part]) -> tuple[_Part, ...]:
        found = self._send("GET", path)
        try:
            return tuple(kind.model_validate(one, extra="ignore") for one in found["data"])
        except (ValidationError, KeyError, TypeError) as error:
            what = str(error).splitlines()[0][:MAX_DETAIL_CHARS]
            raise FarmUnavailable(f"{self.url}{path} does not answer as a farm of this release does: {what}") from error

    def _send(self, method: str, path: str, body: BaseModel | None = None) -> dict[str, Any]:
        json = None if body is None else body.model_dump(mode="json")
        try:
            with self._http.stream(method, path, json=json) as response:
                whole = self._read_bounded(response)
        except httpx.HTTPError as error:
            # Without details that vary, such as ports: the message goes into statuses.
            what = "in time" if isinstance(error, httpx.TimeoutException) else f"({type(error).__name__})"
            raise FarmUnavailable(f"the farm at {self.url} does not answer {what}") from error
        found = _as_json(whole)
        if response.is_error:
            raise _refusal(response, found)
        if not isinstance(found, dict):
            raise FarmUnavailable(f"{self.url} does not answer as a farm does")
        return found

    def _read_bounded(self, response: httpx.Response) -> bytes:
        """The body. httpx's own timeout restarts with every chunk of it."""
        parts, size, began = [], 0, time.monotonic()
        for part in response.iter_bytes():
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                raise FarmUnavailable(f"the farm's answer to {response.request.url.path} is larger than any should be")
            if time.monotonic() - began > self._timeout_s:
                raise FarmUnavailable(f"the farm at {self.url} does not answer in time")
            parts.append(part)
        return b"".join(parts)


def _as_json(whole: bytes) -> object:
    try:
        return json.loads(whole) if whole else {}
    except ValueError:
        return None


def _refusal(response: httpx.Response, found: object) -> FarmRefused | FarmUnavailable:
    """The error that a problem document (RFC 9457) stands for."""
    document = found if isinstance(found, dict) else {}
    fallback = f"the farm answered {response.status_code} {response.reason_phrase}"
    detail = str(document.get("detail") or fallback)[:MAX_DETAIL_CHARS]
    if response.status_code >= 500 or response.status_code in (408, 429):
        return FarmUnavailable(detail, retry_after_s=_retry_after_s(response))
    return FarmRefused(detail, status=response.status_code, code=str(document.get("code") or ""))


def _retry_after_s(response: httpx.Response) -> float | None:
    try:
        return min(MAX_RETRY_AFTER_S, max(0.0, float(response.headers["Retry-After"])))
    except (KeyError, ValueError):
        return None
