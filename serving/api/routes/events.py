"""GET /v1/jobs/{id}/events: what happens to a job, as server-sent events.

The stream begins with `snapshot`, the whole job. Then come `change`, an entry of the job's log under its id, and
`progress`, the whole job again without an id, so one of them is enough to be up to date. A client that comes back with
Last-Event-ID gets every change after it. The stream ends when the job is over; who comes back after that is answered
204.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Header
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.api.answer import Answer
from serving.api.caller import AnyCaller, Caller
from serving.api.errors import ApiError, not_found
from serving.api.feed import Channel, Feed
from serving.api.services import TheFeed, TheServices
from serving.api.wire.jobs import Job, JobEvent
from serving.api.wire.openapi import EVENT_STREAM, failures
from serving.store.records import ENDED, Event
from serving.store.records import Job as JobRecord

STREAM_S = 900.0
"""Seconds after which an event stream ends; clients come back with Last-Event-ID."""

KEEP_ALIVE_S = 15.0
"""Seconds between two comments on a silent event stream."""

STREAM_SEND_S = 30.0
"""Seconds that a client may take to accept a piece of an event stream."""


router = APIRouter(tags=["jobs"])

_MAX_EVENT_ID = 2**62


@router.get(
    "/v1/jobs/{job_id}/events",
    summary="Watch a job",
    response_class=EventSourceResponse,
    responses={200: EVENT_STREAM, 204: {"description": "The job is over and every event was seen."}, **failures(404)},
)
async def watch(
    job_id: str,
    caller: AnyCaller,
    services: TheServices,
    feed: TheFeed,
    last_event_id: Annotated[str | None, Header(description="The id of the last event that was seen.")] = None,
) -> Response:
    """A stream of `snapshot`, `change` and `progress` events; see the description of 200."""
    after = _read_event_id(last_event_id)
    job = await anyio.to_thread.run_sync(lambda: services.jobs.get(job_id, tenant=caller.scope))
    if job is None:
        raise not_found(f"job {job_id}")
    if after is not None and job.status in ENDED and not await feed.read_after(after, job_id):
        return Response(status_code=204)
    return SeatedStream(
        feed,
        caller,
        stream(feed, job_id, caller, after=after),
        ping=KEEP_ALIVE_S,
        ping_message_factory=lambda: ServerSentEvent(comment="still here"),
        send_timeout=STREAM_SEND_S,
        sep="\n",
    )


class SeatedStream(EventSourceResponse):
    """An event stream that is counted from the moment in which it is let in. Raises ApiError if it is not."""

    def __init__(self, feed: Feed, caller: Caller, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._feed = feed
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._feed.seat(self._caller):
            await super().__call__(scope, receive, send)


async def stream(
    feed: Feed, job_id: str, caller: Caller, *, after: int | None, for_s: float = STREAM_S
) -> AsyncIterator[ServerSentEvent]:
    """The events of a job from its snapshot on, until it is over or `for_s` seconds have passed."""
    end = asyncio.get_running_loop().time() + for_s
    async with feed.watch(job_id) as channel:
        if channel is None:
            return
        is_admin = caller.is_admin
        at = channel.last_id if after is None else after
        revision, known = channel.job.revision, channel.last_id
        # A snapshot for a client that has missed something has no id: it must not seem to have seen what it missed.
        yield _pack("snapshot", Job.of(channel.job, channel.takes, is_admin=is_admin), at if after is None else None)
        while True:
            changed, job, takes = channel.changed, channel.job, channel.takes
            async for event in _missed(feed, channel, job_id, at):
                at = event.id
                if at > known:  # what happened before it began to watch comes late for no fault of ours
                    feed.event_sent(event.at)
                yield _pack("change", JobEvent.of(event, is_admin=is_admin), at)
            if job.revision != revision:
                revision = job.revision
                yield _pack("progress", Job.of(job, takes, is_admin=is_admin), None)
            if changed.is_set():
                continue
            if is_over(job):
                return
            try:
                await asyncio.wait_for(changed.wait(), end - asyncio.get_running_loop().time())
            except TimeoutError:
                return


def is_over(job: JobRecord) -> bool:
    """Whether nothing more happens to a job by itself."""
    return job.status in ENDED or job.deleted_at is not None


async def _missed(feed: Feed, channel: Channel, job_id: str, at: int) -> AsyncIterator[Event]:
    """Every event after one that the channel has seen, from its memory or else from the store."""
    while (events := channel.after(at)) is None:
        page = await feed.read_after(at, job_id)
        for event in page:
            at = event.id
            yield event
        if not page:
            at = channel.first_id
    for event in events:
        yield event


def _pack(kind: str, answer: Answer, event_id: int | None) -> ServerSentEvent:
    # ASCII, because some clients take any line separator of Unicode for the end of a line.
    data = json.dumps(answer.model_dump(mode="json"), separators=(",", ":"))
    return ServerSentEvent(data, event=kind, id=None if event_id is None else str(event_id))


def _read_event_id(text: str | None) -> int | None:
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < _MAX_EVENT_ID):
        raise ApiError(422, "Last-Event-ID must be the id of an event", code="invalid_request")
    return int(text)
