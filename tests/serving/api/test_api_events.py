"""A job's event stream: the snapshot first, every change once whatever breaks, one poller however many watch."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.api import feed as feed_module
from serving.api.caller import LOCAL, Caller
from serving.api.errors import ApiError
from serving.api.feed import Feed
from serving.api.routes.events import stream
from serving.errors import StoreUnavailable
from serving.jobs.lifecycle import Action, Lifecycle
from serving.store.database import open_database
from serving.store.jobs import JobStore
from serving.store.records import Job, JobProgress
from testkit.records import NOW, new_job, new_takes
from tests.serving.api.api_double import WAIT_S, ApiDouble, running, wait_until

PERSON = "ada/laptop"


@dataclass(frozen=True)
class Sent:
    """An event as it was sent."""

    kind: str
    id: int | None
    data: dict[str, Any]


def read(lines: Iterator[str]) -> Iterator[Sent]:
    """The events of a stream."""
    fields: dict[str, str] = {}
    for line in lines:
        if line == "" and "data" in fields:
            identity = fields.get("id")
            yield Sent(fields["event"], None if identity is None else int(identity), json.loads(fields["data"]))
            fields = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            assert name not in fields
            fields[name] = value


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiDouble]:
    with running(tmp_path) as double:
        yield double


def watch(api: ApiDouble, job_id: str, headers: Mapping[str, str] | None = None) -> list[Sent]:
    """All that is sent until the stream ends."""
    with api.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        return list(read(answer.iter_lines()))


def test_a_stream_begins_with_the_job_and_ends_when_it_is_over(api: ApiDouble) -> None:
    job_id = api.submit()["id"]
    with api.http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        sent = read(answer.iter_lines())
        first = next(sent)
        assert (first.kind, first.data) == ("snapshot", api.http.get(f"/v1/jobs/{job_id}").json())
        assert first.id is not None
        api.act(job_id, "start")
        started = next(sent)
        assert (started.kind, started.data["kind"], started.data["status"]) == ("change", "start", "in_progress")
        assert started.id is not None
        assert started.id > first.id
        after = next(sent)
        assert (after.kind, after.id, after.data["status"]) == ("progress", None, "in_progress")
        api.act(job_id, "cancel")
        rest = list(sent)
    assert [(event.kind, event.data["status"]) for event in rest] == [
        ("change", "cancelled"),
        ("progress", "cancelled"),
    ]


def test_a_client_that_comes_back_gets_what_it_missed_and_nothing_twice(api: ApiDouble) -> None:
    job_id = api.submit()["id"]
    for action in ("pause", "resume", "start", "pause", "resume", "cancel"):
        api.act(job_id, action)
    log = api.services.jobs.events_after(0, job_id=job_id)
    sent = watch(api, job_id, {"Last-Event-ID": str(log[2].id)})
    assert (sent[0].kind, sent[0].id, sent[0].data["status"]) == ("snapshot", None, "cancelled")
    assert [event.id for event in sent if event.kind == "change"] == [event.id for event in log[3:]]


def test_who_has_seen_the_end_is_told_not_to_come_back(api: ApiDouble) -> None:
    job_id = api.submit()["id"]
    api.act(job_id, "cancel")
    last = api.services.jobs.events_after(0, job_id=job_id)[-1].id
    path = f"/v1/jobs/{job_id}/events"
    assert api.http.get(path, headers={"Last-Event-ID": str(last)}).status_code == 204
    assert [event.kind for event in watch(api, job_id)] == ["snapshot"]


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 19, "9" * 30, "\xb2"])
def test_an_id_that_is_none_is_refused(api: ApiDouble, value: str) -> None:
    path = f"/v1/jobs/{api.submit()['id']}/events"
    assert api.http.get(path, headers=[(b"Last-Event-ID", value.encode("latin-1"))]).status_code == 422


def test_progress_is_told_without_an_id(api: ApiDouble) -> None:
    job_id = api.submit()["id"]
    jobs = api.services.jobs
    with api.http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        sent = read(answer.iter_lines())
        next(sent)
        (held,) = jobs.claim(owner="d", now=time.time(), lease_s=60, limit=1)
        report = JobProgress(job_id, held.lease_token, 12.5, 20, 3, time.time() + 9, at_risk=True, takes=())
        jobs.save_progress([report], now=time.time())
        told = next(event for event in sent if event.data["progress"] == 12.5)
    assert (told.kind, told.id) == ("progress", None)
    assert told.data["at_risk"] is True


def test_many_watchers_are_served_by_one_poller(api: ApiDouble) -> None:
    job_id = api.submit()["id"]
    ends: list[list[Sent]] = []

    def follow() -> None:
        with httpx.stream("GET", f"{api.url}/v1/jobs/{job_id}/events", timeout=3 * WAIT_S) as answer:
            ends.append(list(read(answer.iter_lines())))

    threads = [threading.Thread(target=follow) for _ in range(20)]
    for thread in threads:
        thread.start()
    feed: Feed = api.app.state.feed
    wait_until(lambda: feed.watchers == 20)
    before, began = feed.polls, time.monotonic()
    api.act(job_id, "start")
    api.act(job_id, "cancel")
    for thread in threads:
        thread.join(WAIT_S)
    assert len(ends) == 20
    for sent in ends:
        assert [event.data["kind"] for event in sent if event.kind == "change"] == ["start", "cancel"]
    ticks = (time.monotonic() - began) / api.services.config.poll_s
    assert feed.polls - before <= ticks + 2, "the store is asked once per tick, not once per watcher"
    wait_until(lambda: feed.watchers == 0)
    assert feed._channels == {}


def test_a_tenant_holds_only_so_many_streams(api: ApiDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_TENANT_STREAMS", 1)
    job_id = api.submit()["id"]
    path = f"/v1/jobs/{job_id}/events"
    with api.http.stream("GET", path) as answer:
        lines = answer.iter_lines()  # held: it closes the stream when it is collected
        next(lines)
        second = api.http.get(path)
        assert (second.status_code, second.json()["code"]) == (429, "too_many_streams")
        assert int(second.headers["retry-after"]) > 0
    wait_until(lambda: api.app.state.feed.watchers == 0)
    api.act(job_id, "cancel")
    assert watch(api, job_id)


def test_a_deleted_job_ends_its_stream(api: ApiDouble) -> None:
    job_id = api.submit()["id"]
    with api.http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        sent = read(answer.iter_lines())
        next(sent)
        api.services.jobs.delete(job_id, actor=PERSON, now=time.time())
        assert [event.data["kind"] for event in sent if event.kind == "change"] == ["deleted"]


# ---------------------------------------------------------------------------------------------- without HTTP


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[JobStore, Lifecycle]]:
    database = open_database(f"sqlite:///{tmp_path_factory.mktemp('events') / 'farm.db'}")
    yield JobStore(database), Lifecycle(database)
    database.close()


def submit(jobs: JobStore) -> Job:
    """A job that is accepted."""
    job = new_job()
    return jobs.insert(job, new_takes(job), actor=PERSON)


async def collect(feed: Feed, job: Job, *, after: int | None, at_most: int) -> list[Sent]:
    """What a client gets that goes away after so many events."""
    found: list[Sent] = []
    events = stream(feed, job.id, LOCAL, after=after, for_s=WAIT_S)
    async for event in events:
        data = json.loads(str(event.data))
        found.append(Sent(str(event.event), None if event.id is None else int(str(event.id)), data))
        if len(found) >= at_most:
            break
    await events.aclose()  # type: ignore[attr-defined]
    return found


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.integers(0, 12),
    patience=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    memory=st.integers(1, 6),
    gap_s=st.sampled_from([0.0, 0.003]),
)
def test_what_several_connections_get_together_is_the_log(
    store: tuple[JobStore, Lifecycle],
    monkeypatch: pytest.MonkeyPatch,
    pairs: int,
    patience: list[int],
    memory: int,
    gap_s: float,
) -> None:
    """Whatever the client's patience, the channel's memory, and the moment of each change."""
    monkeypatch.setattr(feed_module, "MAX_CHANNEL_EVENTS", memory)
    jobs, lifecycle = store
    job = submit(jobs)

    def change() -> None:
        for action in [*("pause", "resume") * pairs, "cancel"]:
            lifecycle.apply(job.id, action, reason=action, actor=PERSON, now=NOW)  # type: ignore[arg-type]
            time.sleep(gap_s)

    async def follow() -> list[int]:
        feed, seen, last = Feed(jobs, poll_s=0.001), list[int](), 0
        changing = asyncio.create_task(asyncio.to_thread(change))
        for at_most in [*patience, 1000]:
            sent = await collect(feed, job, after=last, at_most=at_most)
            assert sent[0].kind == "snapshot"
            assert sent[0].id is None
            seen += [event.id for event in sent if event.kind == "change" and event.id is not None]
            last = seen[-1] if seen else 0
        await changing
        seen += [e.id for e in await collect(feed, job, after=last, at_most=1000) if e.kind == "change" and e.id]
        await feed.close()
        return seen

    seen = asyncio.run(follow())
    assert seen == [event.id for event in jobs.events_after(0, job_id=job.id)]


def test_a_new_watcher_misses_nothing_after_its_snapshot(store: tuple[JobStore, Lifecycle]) -> None:
    jobs, lifecycle = store
    job = submit(jobs)

    async def follow() -> list[Sent]:
        feed = Feed(jobs, poll_s=0.001)
        watching = asyncio.create_task(collect(feed, job, after=None, at_most=1000))
        actions: list[Action] = [*(("pause", "resume") * 5), "cancel"]
        for action in actions:
            await asyncio.to_thread(lifecycle.apply, job.id, action, reason=action, actor=PERSON, now=NOW)
        sent = await watching
        await feed.close()
        return sent

    sent = asyncio.run(follow())
    assert sent[0].id is not None
    log = [event.id for event in jobs.events_after(sent[0].id, job_id=job.id)]
    assert [event.id for event in sent if event.kind == "change"] == log
    assert sent[-1].data["status"] == "cancelled"


def test_a_stream_ends_after_its_time_and_a_store_that_is_away_is_waited_out(
    store: tuple[JobStore, Lifecycle], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, lifecycle = store
    job = submit(jobs)
    real, failures = jobs.changed_since, [3]

    def sometimes(revisions: Mapping[str, int]) -> Any:
        if failures[0]:
            failures[0] -= 1
            raise StoreUnavailable("away")
        return real(revisions)

    async def follow() -> tuple[list[str], list[str]]:
        feed = Feed(jobs, poll_s=0.001)
        short = [str(e.event) async for e in stream(feed, job.id, LOCAL, after=None, for_s=0.05)]
        monkeypatch.setattr(jobs, "changed_since", sometimes)
        watching = asyncio.create_task(collect(feed, job, after=None, at_most=1000))
        await asyncio.to_thread(lifecycle.apply, job.id, "cancel", reason="x", actor=PERSON, now=NOW)
        kinds = [event.kind for event in await watching]
        await feed.close()
        return short, kinds

    short, kinds = asyncio.run(follow())
    assert short == ["snapshot"]
    assert kinds[-1] in ("progress", "snapshot")
    assert failures == [0] or kinds == ["snapshot"]


def test_a_job_that_is_not_there_has_no_stream(store: tuple[JobStore, Lifecycle]) -> None:
    async def follow() -> list[Any]:
        feed = Feed(store[0], poll_s=0.001)
        return [event async for event in stream(feed, "job_none", LOCAL, after=None)]

    assert asyncio.run(follow()) == []


TENANTS = [Caller(f"tenant-{number}", "", is_admin=False) for number in range(40)]


def test_however_many_streams_tenants_ask_for_some_are_left_for_others(store: tuple[JobStore, Lifecycle]) -> None:
    feed = Feed(store[0], poll_s=1)
    admin = Caller("admin", "", is_admin=True)
    with contextlib.ExitStack() as seats:

        def take(caller: Caller) -> int:
            """All the streams that the caller is let have."""
            for had in range(feed_module.MAX_STREAMS + 1):
                try:
                    seats.enter_context(feed.seat(caller))
                except ApiError:
                    return had
            raise AssertionError("there was no end")

        had = [take(tenant) for tenant in TENANTS]
        assert had[0] == feed_module.MAX_TENANT_STREAMS
        assert min(had[:5]) > 1, "the fifth may still watch something"
        assert sum(had) <= feed_module.MAX_STREAMS - feed_module.ADMIN_STREAMS
        assert take(admin) >= feed_module.ADMIN_STREAMS
        assert feed.watchers <= feed_module.MAX_STREAMS
    assert feed.watchers == 0


def test_streams_that_are_asked_for_at_once_are_counted_one_by_one(
    api: ApiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_TENANT_STREAMS", 3)
    job_id = api.submit()["id"]
    found: list[int] = []

    def ask() -> None:
        with httpx.stream("GET", f"{api.url}/v1/jobs/{job_id}/events", timeout=WAIT_S) as answer:
            found.append(answer.status_code)
            wait_until(lambda: len(found) == 12)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(found) == [200] * 3 + [429] * 9
