"""What a client does where the network or the farm fails: again, once, and for a bounded time."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.cli.client.event_stream import follow
from serving.cli.client.farm_client import CLIENT_CONNECT_S, CLIENT_RETRY_S, FarmClient, Refused
from serving.cli.download import download_film
from serving.errors import Fault, UserError
from serving.settings import CLIENT_PATIENCE_S

Answer = httpx.Response | Exception


class Clock:
    """Time that passes only if somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


class Farm:
    """Answers requests in turn, the last answer forever, and remembers them."""

    def __init__(self, *answers: Answer | Callable[[httpx.Request], Answer]) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.clock = Clock()
        self.client = FarmClient(
            "http://farm",
            api_key="lt_secret",
            transport=httpx.MockTransport(self._answer),
            sleep=self.clock.sleep,
            now=lambda: self.clock.now,
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        found = answer if isinstance(answer, httpx.Response | Exception) else answer(request)
        if isinstance(found, Exception):
            raise found
        return httpx.Response(found.status_code, headers=found.headers, stream=found.stream)


def job(status: str, progress: float) -> dict[str, Any]:
    return {"id": "job_1", "status": status, "progress": progress}


def sse(*events: tuple[str, str, Any]) -> bytes:
    """Events as the API writes them, each (id, kind, value)."""
    lines = []
    for name, kind, value in events:
        lines += [f"id: {name}"] if name else []
        lines += [f"event: {kind}", f"data: {json.dumps(value)}", "", ""]
    return "\n".join(lines).replace("\n\n\n", "\n\n").encode()


def stream(**body: Any) -> httpx.Response:
    """An answer that is a stream of events."""
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, **body)


class Broken(httpx.SyncByteStream):
    """A body that ends before its end."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        raise httpx.ReadError("reset by peer")


def test_a_retried_post_carries_the_same_key_and_the_next_one_another() -> None:
    farm = Farm(
        httpx.ReadTimeout("slow"),
        httpx.Response(503, headers={"Retry-After": "2"}),
        httpx.Response(429, headers={"Retry-After": "x"}),
        httpx.Response(201, json={"id": "job_1"}),
    )
    assert farm.client.post("/v1/jobs", {"a": 1}) == {"id": "job_1"}
    farm.client.post("/v1/jobs", {"a": 1})
    keys = [request.headers["idempotency-key"] for request in farm.requests]
    assert len(set(keys[:4])) == 1
    assert keys[4] != keys[0]
    assert farm.clock.slept == [0.1, 2.0, 0.4]
    assert {request.headers["authorization"] for request in farm.requests} == {"Bearer lt_secret"}


@pytest.mark.parametrize(
    ("error", "limit_s", "words"),
    [
        (httpx.ConnectError("refused"), CLIENT_CONNECT_S, "no farm answers at http://farm"),
        (httpx.ReadTimeout("timed out"), CLIENT_RETRY_S, "does not answer: timed out"),
    ],
)
def test_a_farm_that_stays_away_is_given_up_after_a_bounded_time(error: Exception, limit_s: float, words: str) -> None:
    farm = Farm(error)
    with pytest.raises(Fault, match=words):
        farm.client.get("/v1/jobs")
    assert limit_s / 2 < farm.clock.now <= limit_s


def test_a_farm_that_was_there_before_is_waited_for_longer() -> None:
    farm = Farm(httpx.Response(200, json={}), httpx.ConnectError("refused"))
    farm.client.get("/v1/jobs")
    with pytest.raises(Fault):
        farm.client.get("/v1/jobs")
    assert CLIENT_CONNECT_S < farm.clock.now <= CLIENT_RETRY_S


def test_an_endless_retry_after_is_not_waited_for() -> None:
    answer = httpx.Response(429, headers={"Retry-After": "3600"}, json={"detail": "1000 jobs are waiting"})
    farm = Farm(answer)
    with pytest.raises(Refused, match="1000 jobs are waiting"):
        farm.client.post("/v1/jobs", {})
    assert farm.clock.slept == []


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (httpx.Response(500, json={"detail": "an error that nobody expected"}), Fault, "nobody expected"),
        (httpx.Response(404, text="<html>"), Refused, "answered 404 Not Found"),
        (httpx.Response(409, json={"detail": "job_1 is paused"}), Refused, "job_1 is paused"),
        (httpx.Response(422, json={"problems": [{"path": "a", "message": "b", "line": 3}]}), Refused, "line 3: a: b"),
        (httpx.Response(200, text="<html>"), Fault, "does not answer as a farm does"),
        (httpx.Response(200, json=[]), Fault, "does not answer as a farm does"),
    ],
)
def test_refusals_and_faults_are_told_apart(answer: httpx.Response, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        Farm(answer).client.get("/v1/jobs")


def test_following_goes_on_where_the_stream_broke() -> None:
    begun = sse(
        ("7", "snapshot", job("queued", 0)), ("8", "change", {"id": 8}), ("", "progress", job("in_progress", 9))
    )
    ended = sse(
        ("", "snapshot", job("in_progress", 9)), ("9", "change", {"id": 9}), ("", "progress", job("completed", 100))
    )
    farm = Farm(
        stream(stream=Broken(begun + b"event: progress\ndata: {")),
        httpx.Response(200, json=job("in_progress", 9)),
        httpx.Response(503),
        httpx.Response(200, json=job("in_progress", 9)),
        stream(content=ended),
    )
    followed = list(follow(farm.client, "job_1"))
    assert [value.get("progress", value["id"]) for _, value in followed] == [0, 8, 9, 9, 100]
    assert [request.headers.get("last-event-id") for request in farm.requests if "events" in request.url.path] == [
        None, "8", "8",
    ]  # fmt: skip


def test_a_job_that_is_over_is_followed_to_its_end_though_no_stream_tells_of_it() -> None:
    farm = Farm(httpx.Response(204), httpx.Response(200, json=job("completed", 100)))
    assert list(follow(farm.client, "job_1")) == [("job", job("completed", 100))]


def test_streams_that_end_at_once_are_not_asked_for_without_end() -> None:
    farm = Farm(
        lambda request: (
            httpx.Response(200, json=job("queued", 0)) if "events" not in request.url.path else httpx.Response(204)
        )
    )
    with pytest.raises(Fault, match="stream of events is empty"):
        list(follow(farm.client, "job_1"))
    assert len(farm.requests) < 200
    assert farm.clock.now <= CLIENT_PATIENCE_S


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["snapshot", "progress"]), st.text(max_size=9))))
def test_jobs_are_read_as_they_were_written(events: list[tuple[str, str]]) -> None:
    told = [
        (str(n), kind, {"id": "job_1", "status": "queued", "reason": text, "n": n})
        for n, (kind, text) in enumerate(events)
    ]
    last = ("", "progress", job("completed", 100))
    farm = Farm(stream(content=b": still here\n\n" + sse(*told) + b": still here\n\n" + sse(last)))
    assert [value for _, value in follow(farm.client, "job_1")] == [value for _, _, value in (*told, last)]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"])
def test_a_farm_on_this_machine_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for proxy in ("http://proxy.example:3128", "socks5://proxy.example:1080"):
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        FarmClient(url).close()
        assert not FarmClient(url)._http._mounts


@pytest.mark.parametrize("proxy", ["socks5://proxy.example:1080", "ftp://proxy.example"])
def test_a_proxy_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(UserError, match=r"http://farm: the environment names a proxy .* NO_PROXY"):
        FarmClient("http://farm")


def test_a_download_that_is_cut_off_goes_on_from_there(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4
    asked: list[str | None] = []

    def piece(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("range"))
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        end = min(len(content), start + 400)
        status = 206 if start else 200
        if end < len(content):
            return httpx.Response(status, stream=Broken(content[start:end]))
        return httpx.Response(status, content=content[start:])

    film = {"sha256": hashlib.sha256(content).hexdigest(), "frames": 1, "seconds": 1.0, "bytes": len(content)}
    farm = Farm(piece)
    download_film(farm.client, {"film": film, "links": {"film": "/film"}}, tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").read_bytes() == content
    assert asked == [None, "bytes=400-", "bytes=800-"]
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_download_from_a_farm_that_stays_away_keeps_what_it_has_and_no_film(tmp_path: Path) -> None:
    farm = Farm(httpx.Response(200, stream=Broken(b"begun")), httpx.ConnectError("refused"))
    film = {"sha256": "ab" * 32, "frames": 1, "seconds": 1.0, "bytes": 100}
    with pytest.raises(Fault, match="no farm answers"):
        download_film(farm.client, {"film": film, "links": {"film": "/film"}}, tmp_path / "film.mp4")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"begun"]
