"""Idempotency-Key: the same request twice, another under the same key, many at once, and failures that free the key."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serving.errors import StoreUnavailable
from tests.serving.api.api_double import STORYBOARD, WAIT_S, ApiDouble, running

KEY = {"Idempotency-Key": "once"}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiDouble]:
    with running(tmp_path) as double:
        yield double


def test_a_repeated_submit_gives_the_same_job(api: ApiDouble) -> None:
    first = api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}, headers=KEY)
    again = api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert len(api.http.get("/v1/jobs").json()["data"]) == 1


def test_another_body_query_or_path_is_another_request(api: ApiDouble) -> None:
    assert api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}, headers=KEY).status_code == 201
    other = api.http.post("/v1/jobs", json={"storyboard": STORYBOARD, "priority": 1}, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    assert api.http.post("/v1/jobs?x=1", json={"storyboard": STORYBOARD}, headers=KEY).status_code == 422
    assert api.http.post("/v1/quote", json={"storyboard": STORYBOARD}, headers=KEY).status_code == 200


def test_a_hundred_equal_submits_at_once_make_one_job(api: ApiDouble) -> None:
    def submit(_: int) -> tuple[int, str]:
        with httpx.Client(base_url=api.url, timeout=WAIT_S * 3) as http:
            answer = http.post("/v1/jobs", json={"storyboard": STORYBOARD}, headers=KEY)
            return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(16) as threads:
        answers = set(threads.map(submit, range(100)))
    assert {status for status, _ in answers} == {201}
    assert len({job for _, job in answers}) == 1
    assert len(api.http.get("/v1/jobs").json()["data"]) == 1


@pytest.mark.parametrize("action", ["cancel", "pause"])
def test_a_repeated_action_is_done_once_and_answered_alike(api: ApiDouble, action: str) -> None:
    job = api.submit()["id"]
    first = api.http.post(f"/v1/jobs/{job}/{action}", headers=KEY)
    again = api.http.post(f"/v1/jobs/{job}/{action}", headers=KEY)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    without = api.http.post(f"/v1/jobs/{job}/{action}")
    assert without.status_code == 409
    assert [event.kind for event in api.services.jobs.events_after(0, job_id=job)] == ["submitted", action]


def test_an_action_that_was_refused_may_be_tried_again_with_its_key(api: ApiDouble) -> None:
    job = api.submit()["id"]
    assert api.http.post(f"/v1/jobs/{job}/resume", headers=KEY).status_code == 409
    api.http.post(f"/v1/jobs/{job}/pause")
    assert api.http.post(f"/v1/jobs/{job}/resume", headers=KEY).json()["status"] == "queued"


def test_repeated_revisions_finals_and_webhooks_are_made_once(tmp_path: Path) -> None:
    with running(tmp_path, webhooks_allow_private=True) as api:
        job = api.submit()["id"]
        for path, body in (
            (f"/v1/jobs/{job}/revise", {"storyboard": STORYBOARD}),
            (f"/v1/jobs/{job}/finalize", {"priority": 3}),
            ("/v1/webhooks", {"url": "http://127.0.0.1:9/hook"}),
        ):
            first, again = (api.http.post(path, json=body, headers=KEY) for _ in range(2))
            assert (first.status_code, again.status_code) == (201, 201), first.text
            assert first.json()["id"] == again.json()["id"]
        assert len(api.http.get(f"/v1/jobs/{job}/versions").json()["data"]) == 3
        assert len(api.http.get("/v1/webhooks").json()["data"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_cannot_be_one_is_refused(api: ApiDouble, key: str) -> None:
    answer = api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert api.http.get("/v1/jobs").json()["data"] == []


def test_a_refused_submit_keeps_no_key(api: ApiDouble) -> None:
    assert api.http.post("/v1/jobs", json={"storyboard": {}}, headers=KEY).status_code == 422
    assert api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}, headers=KEY).status_code == 201


def test_while_the_store_is_away_nothing_is_accepted(api: ApiDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("the store does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(api.services.jobs, "insert", away)
        answer = api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}, headers=KEY)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
    assert api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}, headers=KEY).status_code == 201
    assert len(api.http.get("/v1/jobs").json()["data"]) == 1


def test_a_repeated_submit_is_answered_though_it_could_not_be_accepted_any_more(tmp_path: Path) -> None:
    now = time.time()
    clock = [now]
    with running(tmp_path, clock=lambda: clock[0], limits={"queued_jobs_per_tenant": 1}) as api:
        body = {"storyboard": STORYBOARD, "due_at": now + 100}
        first = api.http.post("/v1/jobs", json=body, headers=KEY)
        clock[0] = now + 200
        again = api.http.post("/v1/jobs", json=body, headers=KEY)
        assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
        other = api.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "another"})
        assert other.status_code == 422
        assert api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}).status_code == 429
