"""A job's events as they come: server-sent events, with a new connection if the last one ended too soon."""

import json
from collections.abc import Iterator

import httpx
from httpx_sse import EventSource, ServerSentEvent

from serving.cli.client.farm_client import FarmClient, Json
from serving.settings import CLIENT_PATIENCE_S
from serving.store.records import ENDED


def follow(client: FarmClient, job_id: str) -> Iterator[tuple[str, Json]]:
    """What happens to a job until it is over: ("job", the whole job) and ("event", an entry of its log).

    The first is the job as it is, and so is the last. Raises Refused, and Fault if the farm is away for too long.
    """
    last_id: str | None = None
    patience = client.patience()
    job: Json | None = None
    while True:
        heard = False
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        try:
            with client.stream(f"/v1/jobs/{job_id}/events", headers) as response:
                for event in _events(response):
                    patience.reset()
                    heard = True
                    last_id = event.id or last_id
                    value: Json = json.loads(event.data)
                    if event.event == "change":
                        yield "event", value
                    elif value != job:
                        job = value
                        yield "job", job
        except httpx.TransportError as error:
            patience.wait(error, limit_s=CLIENT_PATIENCE_S)
        if job is None or job["status"] not in ENDED:
            now = client.get(f"/v1/jobs/{job_id}")  # the stream may have ended before it told of the end
            if now != job:
                job = now
                yield "job", job
        if job["status"] in ENDED:
            return
        if not heard:
            patience.wait(httpx.RemoteProtocolError("its stream of events is empty"), limit_s=CLIENT_PATIENCE_S)


def _events(response: httpx.Response) -> Iterator[ServerSentEvent]:
    """The events of a stream. One without data only keeps the stream alive, and 204 is a stream without events."""
    if response.status_code == httpx.codes.NO_CONTENT:
        return
    for event in EventSource(response).iter_sse():
        if event.data:
            yield event
