"""Checks of storyboards for editors: what is wrong is an answer, not an error."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.api.api_double import STORYBOARD, ApiDouble, running
from tests.serving.api.test_api_document import check

YAML = {"Content-Type": "application/yaml"}
WRONG: dict[str, Any] = {**STORYBOARD, "shots": [{"id": "a", "prompt": "", "seconds": -1}], "titel": "x"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiDouble]:
    with running(tmp_path_factory.mktemp("checks")) as double:
        yield double


@pytest.fixture(scope="module")
def job(api: ApiDouble) -> str:
    return str(api.submit()["id"])


@pytest.mark.parametrize("place", ["/v1/check", "/v1/jobs/{job}/check"])
def test_what_is_right_is_priced_as_a_quote_is(api: ApiDouble, job: str, place: str) -> None:
    answer = api.http.post(place.format(job=job), json={"storyboard": STORYBOARD}).raise_for_status().json()
    check("Check", answer)
    assert answer["problems"] == []
    quote = api.http.post("/v1/quote", json={"storyboard": STORYBOARD}).json()
    assert answer["quote"]["takes"] == quote["takes"]


@pytest.mark.parametrize(
    ("place", "twin"), [("/v1/check", "/v1/quote"), ("/v1/jobs/{job}/check", "/v1/jobs/{job}/revise")]
)
@pytest.mark.parametrize(
    "body",
    [
        {"storyboard": WRONG},
        {"storyboard": {**STORYBOARD, "model": "pockett"}},
        {"storyboard": STORYBOARD, "priority": 300},
        {"storyboard": STORYBOARD, "due_at": 1.0},
        {"storyboard": STORYBOARD, "pool": "nowhere"},
        {"storyboard": {}},
        {},
        [],
    ],
)
def test_what_is_wrong_is_said_in_an_answer_with_the_words_of_the_refusal(
    api: ApiDouble, job: str, place: str, twin: str, body: Any
) -> None:
    answer = api.http.post(place.format(job=job), json=body)
    assert answer.status_code == 200
    check("Check", answer.json())
    refusal = api.http.post(twin.format(job=job), json=body)
    assert refusal.status_code == 422
    assert answer.json() == {"object": "check", "quote": None, "problems": refusal.json()["problems"]}


def test_what_cannot_be_read_or_found_is_refused(api: ApiDouble, job: str) -> None:
    json = {"Content-Type": "application/json"}
    assert api.http.post("/v1/check", content=b"{", headers=json).status_code == 400
    assert api.http.post("/v1/check", content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415
    assert api.http.post("/v1/jobs/job_none/check", json={"storyboard": STORYBOARD}).status_code == 404


def test_yaml_is_checked_with_its_lines(api: ApiDouble) -> None:
    text = "version: 1\nshots:\n  - id: a\n    prompt: a ball\n    seconds: -1\n"
    (problem,) = api.http.post("/v1/check", content=text, headers=YAML).json()["problems"]
    assert (problem["path"], problem["line"]) == ("shots[0].seconds", 5)


def test_nobody_checks_for_a_job_of_another_tenant(tmp_path: Path) -> None:
    with running(tmp_path, auth="on") as api:
        a, b = api.key("a"), api.key("b")
        job = api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}, headers=a).json()["id"]
        assert api.http.post(f"/v1/jobs/{job}/check", json={"storyboard": STORYBOARD}, headers=b).status_code == 404
        other = {"storyboard": STORYBOARD, "tenant": "b"}
        assert api.http.post("/v1/check", json=other, headers=a).status_code == 403


def test_a_check_stores_nothing(api: ApiDouble) -> None:
    before = len(api.http.get("/v1/jobs").json()["data"])
    api.http.post("/v1/check", json={"storyboard": STORYBOARD, "due_at": time.time() + 60}).raise_for_status()
    assert len(api.http.get("/v1/jobs").json()["data"]) == before
