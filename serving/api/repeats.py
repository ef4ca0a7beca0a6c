"""Requests that come twice: what a request is known by, and how a repeated one gets the first one's answer.

A request that makes a job hands its record to the store, which writes it in the job's own transaction. The others go
through `answer_once`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from starlette.responses import JSONResponse, Response

from serving.api.answer import Answer, respond
from serving.api.caller import AnyCaller
from serving.api.errors import ApiError
from serving.api.services import Services
from serving.settings import MAX_IDEMPOTENCY_KEY_CHARS
from serving.store.idempotency import StoredAnswer
from serving.store.records import IdempotencyRecord

REPLAYED = {"Idempotent-Replayed": "true"}
"""Header of an answer that was given before."""

_Key = Annotated[
    str | None,
    Header(
        description="A repeated request with the same key and body has the same answer and acts once.",
        max_length=MAX_IDEMPOTENCY_KEY_CHARS,
    ),
]


@dataclass(frozen=True)
class Incoming:
    """A request as it came."""

    body: bytes
    content_type: str
    query: tuple[tuple[str, str], ...]
    record: IdempotencyRecord | None
    """What it is known by, if it has a key."""


async def read_incoming(request: Request, caller: AnyCaller, idempotency_key: _Key = None) -> Incoming:
    """The whole request, bounded by the gate."""
    body = await request.body()
    query = tuple(request.query_params.multi_items())
    route = f"{request.method} {request.url.path}"
    record = name_request(caller.tenant, route, idempotency_key, f"{query!r}\n".encode() + body)
    return Incoming(body, request.headers.get("content-type", ""), query, record)


def name_request(tenant: str, route: str, key: str | None, content: bytes) -> IdempotencyRecord | None:
    """What a request is known by; None if it has no key. Raises ApiError for a key that cannot be one."""
    if key is None:
        return None
    if not (key.isascii() and key.isprintable() and 0 < len(key) <= MAX_IDEMPOTENCY_KEY_CHARS):
        detail = f"Idempotency-Key must be 1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable ASCII characters"
        raise ApiError(422, detail, code="invalid_idempotency_key")
    return IdempotencyRecord(tenant, route, key, hashlib.sha256(content).hexdigest())


TheRequest = Annotated[Incoming, Depends(read_incoming)]


def answer_once(
    services: Services, record: IdempotencyRecord | None, act: Callable[[], Answer], *, status: int = 200
) -> Response:
    """What `act` answers, or what it answered to the same request before; then without secrets, which are not kept.

    Whatever `act` raises means that nothing was done, so the key is free again.
    """
    if record is None:
        return respond(act(), status)
    stored = services.idempotency.begin(record, now=services.clock())
    if stored is not None:
        return JSONResponse(stored.body, stored.status_code, headers=REPLAYED)
    try:
        answer = act()
    except BaseException:
        services.idempotency.forget(record)
        raise
    body = answer.model_dump(mode="json", by_alias=True)
    kept = {**body, "secret": None} if "secret" in body else body
    services.idempotency.finish(record, StoredAnswer(status, kept), now=services.clock())
    return respond(answer, status)
