"""/v1/jobs over HTTP, on the real store: submit, list, look, steer, and every way to be refused."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.api.app import openapi_document
from tests.serving.api.api_double import STORYBOARD, ApiDouble, running, wait_until

PROBLEM = "application/problem+json"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiDouble]:
    with running(tmp_path) as double:
        yield double


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["code"] == code
    return document


def test_a_submitted_job_is_stored_and_the_director_is_told(api: ApiDouble) -> None:
    answer = api.http.post(
        "/v1/jobs", json={"storyboard": STORYBOARD, "priority": 70, "tags": {"project": "demo"}, "budget_usd": 2}
    )
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert (job["status"], job["priority"], job["tags"], job["version"]) == ("queued", 70, {"project": "demo"}, 1)
    assert [take["key"] for take in job["takes"]] == ["red", "blue"]
    assert job["cost"] == {"gpu_seconds": 0.0, "wasted_gpu_seconds": 0.0, "usd": 0.0}
    assert api.http.get(job["links"]["self"]).json() == job
    assert api.services.jobs.get(job["id"]) is not None
    wait_until(lambda: api.live.pokes > 0)


def test_a_job_is_accepted_while_the_director_is_away(api: ApiDouble) -> None:
    api.live.away = True
    assert api.submit()["status"] == "queued"
    assert api.http.get("/readyz").json() == {"status": "ok", "checks": {"store": "ok", "artifacts": "ok"}}
    assert api.http.get("/v1/pools").json()["data"][0]["live"] is None
    refused(api.http.get("/metrics"), 503, "unavailable")


def test_yaml_is_taken_as_text_and_as_a_body_of_its_own(api: ApiDouble) -> None:
    yaml = "version: 1\ntitle: A ball\nshots:\n  - {id: ball, prompt: a ball, seconds: 1}\n"
    as_text = api.http.post("/v1/jobs", json={"storyboard": yaml})
    query = "/v1/jobs?priority=9&tag=a=b=c&tag=d=&budget_usd=1.5"
    as_body = api.http.post(query, content=yaml, headers={"Content-Type": "application/yaml"})
    assert (as_text.status_code, as_body.status_code) == (201, 201)
    assert as_body.json()["tags"] == {"a": "b=c", "d": ""}
    assert (as_body.json()["priority"], as_body.json()["budget_usd"]) == (9, 1.5)
    stored = [api.services.jobs.get(answer.json()["id"]) for answer in (as_text, as_body)]
    assert stored[0] is not None
    assert stored[1] is not None
    assert stored[0].storyboard == stored[1].storyboard


def test_a_wrong_storyboard_is_refused_with_every_problem_and_its_line(api: ApiDouble) -> None:
    yaml = "version: 1\nshots:\n  - id: a\n    promt: a ball\n    seconds: -1\n"
    answer = api.http.post("/v1/jobs", content=yaml, headers={"Content-Type": "application/yaml"})
    problems = refused(answer, 422, "invalid_request")["problems"]
    assert [(problem["path"], problem["line"]) for problem in problems] == [
        ("shots[0].promt", 4),
        ("shots[0].seconds", 5),
    ]
    assert problems[0]["nearest"] == "prompt"
    assert problems[1]["value"] == "-1"
    assert api.http.get("/v1/jobs").json()["data"] == []


def test_a_model_that_no_pool_serves_is_refused_with_those_that_are(api: ApiDouble) -> None:
    answer = api.http.post("/v1/jobs", json={"storyboard": {**STORYBOARD, "model": "Wan-AI/Wan2.1-T2V-14B-Diffusers"}})
    (problem,) = refused(answer, 422, "invalid_request")["problems"]
    assert problem["path"] == "model"
    assert "pocket" in problem["message"]
    assert problem["line"] is None, "an object has no lines"


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"priority": 101}, "priority"),
        ({"priority": 5.5}, "priority"),
        ({"budget_usd": -1}, "budget_usd"),
        ({"due_at": 1000}, "due_at"),
        ({"steps": 0}, "steps"),
        ({"pool": "fast"}, "pool"),
        ({"prioritty": 5}, "prioritty"),
        ({"tags": {"a b": "c"}}, "tags['a b']"),
        ({"tags": {"a": "\0"}}, "tags.a"),
    ],
)
def test_a_wrong_option_is_named(api: ApiDouble, options: dict[str, Any], path: str) -> None:
    answer = api.http.post("/v1/jobs", json={"storyboard": STORYBOARD, **options})
    problems = refused(answer, 422, "invalid_request")["problems"]
    assert [problem["path"] for problem in problems] == [path]


def test_a_text_with_nul_is_refused_because_no_database_keeps_it(api: ApiDouble) -> None:
    answer = api.http.post("/v1/jobs", json={"storyboard": {**STORYBOARD, "title": "a\0b"}})
    assert refused(answer, 422, "invalid_request")["problems"][0]["path"] == "title"


@pytest.mark.parametrize("body", [b"{", b"", b'{"storyboard": NaN}', b"[" * 100_000, b"\xff\xfe"])
def test_what_is_not_json_cannot_be_read(api: ApiDouble, body: bytes) -> None:
    answer = api.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    refused(answer, 400, "invalid_json")


def test_a_body_of_another_kind_is_not_taken(api: ApiDouble) -> None:
    refused(api.http.post("/v1/jobs", content=b"x", headers={"Content-Type": "text/csv"}), 415, "unknown_content_type")


def test_unknown_routes_and_wrong_methods_are_problems_too(api: ApiDouble) -> None:
    refused(api.http.get("/v1/nothing"), 404, "no_such_route")
    answer = api.http.put("/v1/jobs")
    refused(answer, 405, "wrong_method")
    assert answer.headers["allow"] == "GET, POST", "all of them, not those of the first route alone"
    assert api.http.post("/v1/jobs/job_none").headers["allow"] == "DELETE, GET, PATCH"
    assert api.http.post("/v1/jobs/job_none/film").headers["allow"] == "GET, HEAD"
    refused(api.http.get("/v1/jobs/job_none"), 404, "not_found")
    refused(api.http.get("/v1/jobs?limit=0"), 422, "invalid_request")
    refused(api.http.get("/v1/jobs?status=done"), 422, "invalid_request")


WRONG = [
    ("POST", "/v1/jobs", {"storyboard": STORYBOARD, "priority": True}, "priority", "whole number from 0 to 100"),
    ("POST", "/v1/jobs", {"storyboard": STORYBOARD, "budget_usd": True}, "budget_usd", "US dollars"),
    ("POST", "/v1/jobs", {"storyboard": STORYBOARD, "steps": True}, "steps", "whole number"),
    ("POST", "/v1/jobs", {"storyboard": STORYBOARD, "due_at": True}, "due_at", "number"),
    ("POST", "/v1/jobs", {"storyboard": STORYBOARD, "tenant": "a b"}, "tenant", "a name of at most 64"),
    ("POST", "/v1/jobs", {"storyboard": 5}, "storyboard", "object, or as YAML text"),
    ("POST", "/v1/videos", {"prompt": "x", "seconds": True}, "seconds", "number of seconds"),
    ("POST", "/v1/videos", {"prompt": "x", "seconds": "a"}, "seconds", "number of seconds"),
    ("POST", "/v1/videos", {"prompt": "x", "seed": True}, "seed", "whole number"),
    ("POST", "/v1/videos", {"prompt": "x", "size": "big"}, "size", "width x height"),
    ("POST", "/v1/keys", {"tenant": "a b"}, "tenant", "a name of at most 64"),
    ("POST", "/v1/keys", {"tenant": "a", "name": "a\nb"}, "name", "one line"),
    ("POST", "/v1/keys", {"tenant": "a", "name": "\u202egnp.exe"}, "name", "one line"),
    ("PUT", "/v1/tenants/a", {"weight": True}, "weight", "number"),
    ("PUT", "/v1/tenants/a", {"max_concurrent_jobs": True}, "max_concurrent_jobs", "whole number"),
    ("PUT", "/v1/pools/default/terms", {"max_gangs": True}, "max_gangs", "whole number"),
]


@pytest.mark.parametrize(("method", "path", "body", "field", "words"), WRONG)
def test_what_is_wrong_with_a_body_is_said_in_a_persons_words(
    api: ApiDouble, method: str, path: str, body: dict[str, Any], field: str, words: str
) -> None:
    answer = api.http.request(method, path, json=body)
    if path == "/v1/videos":
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    else:
        assert [one["path"] for one in refused(answer, 422, "invalid_request")["problems"]] == [field]
    assert words in answer.text
    for jargon in ("constrained", "pattern", "regex", "^[", "input should", "validation", "str_"):
        assert jargon not in answer.text.lower()


def with_body() -> list[tuple[str, str]]:
    """The routes that take JSON, by the document, with ids that are there or need not be."""
    ids = {"job_id": "job_none", "name": "default", "node_id": "x", "key_id": "x", "webhook_id": "x", "video_id": "x"}
    return [
        (method, path.format(**ids) if "{" in path else path)
        for path, operations in openapi_document()["paths"].items()
        for method, operation in operations.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    ]


@pytest.mark.parametrize(("method", "path"), with_body())
def test_a_key_that_stands_twice_in_a_body_is_refused_in_a_files_words(api: ApiDouble, method: str, path: str) -> None:
    if "job_none" in path:
        path = path.replace("job_none", api.submit()["id"])
    body = b'{"a": 1, "reason": "x", "a": 2}'
    answer = api.http.request(method, path, content=body, headers={"Content-Type": "application/json"})
    allowed = (200,) if path.endswith("/check") else (400, 422)  # a check answers with the problems
    assert answer.status_code in allowed, (path, answer.text)
    assert "this key stands here a second time" in answer.text


def test_a_key_that_stands_twice_in_a_storyboard_has_its_path(api: ApiDouble) -> None:
    body = b'{"storyboard": {"version": 1, "title": "a", "title": "b", "shots": []}, "priority": 1}'
    answer = api.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    problem = refused(answer, 422, "invalid_request")["problems"][0]
    assert (problem["path"], problem["line"]) == ("title", None)
    assert "a second time" in problem["message"]


@pytest.mark.parametrize("query", ["priority=1&priority=2", "tag=a%3D1&tag=a%3D2"])
def test_what_is_given_twice_in_a_query_is_refused(api: ApiDouble, query: str) -> None:
    yaml = "version: 1\nshots:\n  - {id: ball, prompt: a ball, seconds: 1}\n"
    answer = api.http.post(f"/v1/jobs?{query}", content=yaml, headers={"Content-Type": "application/yaml"})
    assert "a second time" in refused(answer, 422, "invalid_request")["problems"][0]["message"]
    if "tag" in query:
        refused(api.http.get(f"/v1/jobs?{query}"), 422, "invalid_request")


def test_a_due_time_is_unix_seconds_or_a_time_with_its_zone(api: ApiDouble) -> None:
    wanted = 1_900_000_000
    times = [wanted, float(wanted), "2030-03-17T17:46:40Z", "2030-03-17T18:46:40+01:00", "2030-03-17t17:46:40.000z"]
    for due_at in times:
        assert api.submit(due_at=due_at)["due_at"] == wanted, due_at
    path = f"/v1/jobs/{api.submit()['id']}"
    assert api.http.patch(path, json={"due_at": times[2]}).json()["due_at"] == wanted
    yaml = {"Content-Type": "application/yaml"}
    body = "version: 1\nshots:\n  - {id: ball, prompt: a ball, seconds: 1}\n"
    assert api.http.post(f"/v1/jobs?due_at={times[2]}", content=body, headers=yaml).json()["due_at"] == wanted
    assert api.http.get("/v1/usage", params={"since": str(times[2]), "until": str(wanted)}).status_code == 200


@pytest.mark.parametrize(
    ("due_at", "words"),
    [
        (1_900_000_000_000, "milliseconds of 1900000000"),
        ("2030-03-17T17:46:40", "with its zone"),
        ("2030-03-17", "with its zone"),
        ("tomorrow", "with its zone"),
        ("2030-02-30T17:46:40Z", "a time that there is"),
        ("2020-03-17T17:46:40Z", "in the future"),
        (float("1e300"), "milliseconds"),
    ],
)
def test_a_due_time_that_cannot_be_meant_is_refused_with_what_is(api: ApiDouble, due_at: Any, words: str) -> None:
    answer = api.http.post("/v1/jobs", json={"storyboard": STORYBOARD, "due_at": due_at})
    (problem,) = refused(answer, 422, "invalid_request")["problems"]
    assert problem["path"] == "due_at"
    assert words in problem["message"]


def test_pages_hold_every_job_once_newest_first(api: ApiDouble) -> None:
    submitted = [api.submit()["id"] for _ in range(5)]
    seen: list[str] = []
    page: dict[str, Any] = {"has_more": True, "last_id": None}
    while page["has_more"]:
        after = {"after": page["last_id"]} if page["last_id"] else {}
        page = api.http.get("/v1/jobs", params={"limit": 2, **after}).json()
        seen += [job["id"] for job in page["data"]]
    assert sorted(seen, reverse=True) == seen
    assert sorted(seen) == sorted(submitted)


def test_jobs_are_found_by_status_tag_and_family(api: ApiDouble) -> None:
    one, other = api.submit(tags={"p": "x"}), api.submit(tags={"p": "y"})
    api.http.post(f"/v1/jobs/{other['id']}/pause")

    def found(**query: Any) -> list[str]:
        return [job["id"] for job in api.http.get("/v1/jobs", params=query).json()["data"]]

    assert found(status="paused") == [other["id"]]
    assert found(status=["paused", "queued"]) == [other["id"], one["id"]]
    assert found(tag="p=x") == [one["id"]]
    assert found(family=one["id"]) == [one["id"]]
    refused(api.http.get("/v1/jobs?tag=nothing"), 422, "invalid_request")


def test_a_job_is_paused_resumed_cancelled_and_retried(api: ApiDouble) -> None:
    path = f"/v1/jobs/{api.submit()['id']}"
    steps = [("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued")]
    for action, status in steps:
        answer = api.http.post(f"{path}/{action}", json={"reason": f"because of {action}"})
        assert (answer.status_code, answer.json()["status"]) == (200, status)
        assert answer.json()["reason"] == f"because of {action}"


def test_what_the_status_does_not_allow_is_refused_with_what_it_does(api: ApiDouble) -> None:
    job = api.submit()
    document = refused(api.http.post(f"/v1/jobs/{job['id']}/resume"), 409, "wrong_state")
    assert document["allowed"] == ["pause", "cancel"]
    refused(api.http.delete(f"/v1/jobs/{job['id']}"), 409, "wrong_state")
    refused(api.http.post("/v1/jobs/job_none/pause"), 404, "not_found")


def test_terms_are_changed_and_taken_away(api: ApiDouble) -> None:
    path = f"/v1/jobs/{api.submit(budget_usd=1, priority=10)['id']}"
    due = int(time.time()) + 1000
    job = api.http.patch(path, json={"priority": 90, "due_at": due}).json()
    assert (job["priority"], job["due_at"], job["budget_usd"]) == (90, due, 1)
    assert api.http.patch(path, json={"budget_usd": None}).json()["budget_usd"] is None
    refused(api.http.patch(path, json={}), 422, "invalid_request")
    refused(api.http.patch(path, json={"priority": None}), 422, "invalid_request")
    refused(api.http.patch(path, json={"due_at": 5}), 422, "invalid_request")
    api.http.post(f"{path}/cancel")
    assert refused(api.http.patch(path, json={"priority": 1}), 409, "wrong_state")["allowed"] == ["retry"]


def test_a_deleted_job_is_gone(api: ApiDouble) -> None:
    path = f"/v1/jobs/{api.submit()['id']}"
    api.http.post(f"{path}/cancel")
    assert api.http.delete(path).json()["deleted"] is True
    refused(api.http.get(path), 404, "not_found")
    assert api.http.get("/v1/jobs").json()["data"] == []


def test_a_job_is_explained_by_the_director_or_by_its_own_status(api: ApiDouble) -> None:
    job = api.submit()
    path = f"/v1/jobs/{job['id']}/explain"
    assert "queued" in api.http.get(path).json()["words"]
    api.live.said[job["id"]] = {
        "words": "It is next.",
        "reasons": ["There is one gang."],
        "position": 1,
        "ahead_gpu_seconds": 2.5,
        "starts_at": 1000.7,
        "finishes_at": None,
        "at_risk": False,
    }
    said = api.http.get(path).json()
    assert (said["words"], said["position"], said["starts_at"]) == ("It is next.", 1, 1000)
    api.live.away = True
    refused(api.http.get(path), 503, "unavailable")
    api.http.post(f"/v1/jobs/{job['id']}/cancel")
    assert "cancelled" in api.http.get(path).json()["words"], "what is over needs no Director"


def test_a_quote_stores_nothing(api: ApiDouble) -> None:
    quote = api.http.post("/v1/quote", json={"storyboard": STORYBOARD}).json()
    assert quote["object"] == "quote"
    assert quote["frames"] == 2 * 16
    assert [take["key"] for take in quote["takes"]] == ["red", "blue"]
    assert quote["calls"] == sum(take["calls"] for take in quote["takes"]) > 0
    assert api.http.get("/v1/jobs").json()["data"] == []


def test_what_a_film_will_not_show_is_warned_of_when_it_is_quoted_and_accepted(api: ApiDouble) -> None:
    lost = {"prompt": "a red ball " + "moving right " * 40, "seconds": 1}
    body = {"storyboard": {"version": 1, "shots": [lost], "style": "day"}}
    quoted, made = (api.http.post(path, json=body).json()["warnings"] for path in ("/v1/quote", "/v1/jobs"))
    assert quoted == made
    [warning] = made
    assert warning["path"] == "shots[0].prompt"
    assert "the model reads 32 tokens" in warning["message"]
    assert "warnings" not in api.submit()


def test_a_tenant_has_only_so_many_jobs_waiting(tmp_path: Path) -> None:
    with running(tmp_path, limits={"queued_jobs_per_tenant": 2}) as api:
        first = api.submit()
        api.submit()
        answer = api.http.post("/v1/jobs", json={"storyboard": STORYBOARD})
        refused(answer, 429, "too_many_jobs")
        assert int(answer.headers["retry-after"]) > 0
        api.http.post(f"/v1/jobs/{first['id']}/cancel")
        api.submit()


def test_the_farm_says_what_it_serves(api: ApiDouble) -> None:
    (model,) = api.http.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["pools"]) == ("pocket", "model", ["default"])
    assert api.http.get("/v1/pools").json()["data"][0]["live"]["gangs_ready"] == 2
    assert api.http.get("/healthz").json()["status"] == "ok"
    assert api.http.get("/metrics").text == "longtake_jobs 1\n"
