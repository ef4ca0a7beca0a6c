"""The OpenAPI document is true: whatever it allows, and what it does not, is answered as it says; no 5xx, no hang."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    use_after_free,
)

from serving.api.app import openapi_document
from testkit.postgres import private_postgres
from tests.serving.api.api_double import WAIT_S, ApiDouble, running

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    use_after_free,
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiDouble]:
    """On Postgres where there is one: it refuses more than SQLite does."""
    options: dict[str, Any] = {"webhooks_allow_private": True, "limits": {"queued_jobs_per_tenant": 1_000_000}}
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            options["store_url"] = stack.enter_context(private_postgres()).create_database()
        yield stack.enter_context(running(tmp_path_factory.mktemp("document"), **options))


DOCUMENT = openapi_document()

OPERATIONS = [
    (method, path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]

schema = schemathesis.openapi.from_dict(DOCUMENT)


@schema.parametrize()
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
def test_every_route_answers_as_documented(api: ApiDouble, case: "schemathesis.Case[Any]") -> None:
    case.call_and_validate(checks=CHECKS, base_url=api.url, timeout=WAIT_S)


def check(name: str, value: Any) -> None:
    """Raises where the value is not exactly what the document says of this schema: nothing missing, nothing more."""
    shape = DOCUMENT["components"]["schemas"][name]
    Draft202012Validator({"components": DOCUMENT["components"], **shape}).validate(value)
    assert set(value) <= set(shape["properties"])
    assert set(shape["required"]) <= set(value)


def test_the_published_document_is_that_of_the_running_api(api: ApiDouble) -> None:
    assert api.http.get("/openapi.json").json() == json.loads(json.dumps(DOCUMENT))
    assert DOCUMENT["openapi"].startswith("3.")


def test_every_operation_says_what_it_does(api: ApiDouble) -> None:
    for method, path, operation in OPERATIONS:
        assert operation["summary"], (method, path)
        assert operation["description"].endswith("."), (method, path)
        assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names)


def test_every_error_has_a_documented_shape() -> None:
    for _, path, operation in OPERATIONS:
        wanted = "OpenAIError" if path.startswith("/v1/videos") else "ProblemDocument"
        for status, response in operation["responses"].items():
            if int(status) >= 400 and path not in ("/readyz",):
                (content,) = response["content"].values()
                assert content["schema"]["$ref"].endswith(f"/{wanted}")


def test_every_reference_leads_somewhere() -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            for item in value.values():
                yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert set(references(DOCUMENT)) <= known


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/quote", "/v1/videos"])
def test_the_examples_of_bodies_are_accepted(api: ApiDouble, path: str) -> None:
    content = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]
    for example in content["application/json"]["examples"].values():
        assert api.http.post(path, json=example["value"]).is_success
    if "application/yaml" in content:
        yaml = content["application/yaml"]["example"]
        assert api.http.post(path, content=yaml, headers={"Content-Type": "application/yaml"}).is_success


# ---------------------------------------------------------------------------------------------- storyboards of any kind

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)

shots = st.fixed_dictionaries(
    {"prompt": st.text(max_size=30) | json_values, "seconds": st.floats(0, 700) | json_values},
    optional={
        "id": st.text(max_size=10) | json_values,
        "transition": st.sampled_from(["cut", "continue", "fade"])
        | st.fixed_dictionaries({"dissolve": st.floats(0, 12)})
        | json_values,
        "seed": st.integers() | json_values,
        "negative": st.text(max_size=10) | json_values,
    },
)

storyboards = st.fixed_dictionaries(
    {"version": st.just(1) | json_values, "shots": st.lists(shots, max_size=4) | json_values},
    optional={
        "title": st.text(max_size=30) | json_values,
        "quality": st.sampled_from(["draft", "standard", "final"]) | json_values,
        "video": st.fixed_dictionaries({"width": st.integers(0, 5000), "height": st.integers(0, 5000)}) | json_values,
        "identity": st.floats(0, 1) | json_values,
        "characters": st.dictionaries(st.text(max_size=5), st.text(max_size=10), max_size=2) | json_values,
    },
)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(storyboard=storyboards | json_values | st.text(max_size=200), path=st.sampled_from(["/v1/jobs", "/v1/quote"]))
def test_any_storyboard_is_accepted_or_refused_with_its_problems(api: ApiDouble, storyboard: Any, path: str) -> None:
    answer = api.http.post(path, json={"storyboard": storyboard})
    if answer.is_success:
        check("Job" if path == "/v1/jobs" else "Quote", answer.json())
    else:
        too_deep = "nested at most" in answer.text  # that is not read at all
        assert answer.status_code == (400 if too_deep else 422), answer.text
        document = answer.json()
        check("ProblemDocument", document)
        assert too_deep or document["problems"]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_accepted_or_refused(api: ApiDouble, content: bytes) -> None:
    for kind in ("application/yaml", "application/json", "multipart/form-data; boundary=x", "text/plain", ""):
        for path in ("/v1/jobs", "/v1/videos", "/v1/webhooks"):
            answer = api.http.post(path, content=content, headers={"Content-Type": kind})
            assert 200 <= answer.status_code < 500, answer.text


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(fields=st.dictionaries(st.sampled_from(["prompt", "seconds", "size", "model", "shots", "seed"]), json_values))
def test_any_video_is_created_or_refused_in_openais_shape(api: ApiDouble, fields: dict[str, Any]) -> None:
    answer = api.http.post("/v1/videos", json=fields)
    check("OpenAIVideo" if answer.is_success else "OpenAIError", answer.json())
    assert answer.status_code in (200, 400)


def test_a_number_without_bound_is_refused(api: ApiDouble) -> None:
    for body in (b'{"storyboard": {"version": 1e999, "shots": []}}', b'{"storyboard": {}, "due_at": 1e999}', b"1e999"):
        answer = api.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text


def test_a_lone_surrogate_is_refused(api: ApiDouble) -> None:
    for body in ('{"storyboard": "\\ud800"}', '{"storyboard": {"\\ud800": 1}}', '{"\\ud800": 1}', '"\\ud800"'):
        for path in ("/v1/jobs", "/v1/videos", "/v1/keys"):
            answer = api.http.post(path, content=body, headers={"Content-Type": "application/json"})
            assert 400 <= answer.status_code < 500, (body, path, answer.text)


@pytest.mark.parametrize("path", ["/v1/jobs/%00", "/v1/jobs/a%2F..%2Fb", "/v1/videos/%ff", "/v1/jobs/" + "x" * 5000])
def test_ids_of_any_kind_are_not_found(api: ApiDouble, path: str) -> None:
    for end in ("", "/events", "/film", "/content"):
        assert api.http.get(path + end).status_code in (400, 404, 414)
    assert isinstance(api.http.delete(path), httpx.Response)


def test_what_stands_in_a_query_is_checked_before_the_store_sees_it(api: ApiDouble) -> None:
    for query in ("after=%00", "family=%00", "tag=a%3D%00", "tenant=%00", "after=%ff", "limit=99999999999999999999"):
        assert api.http.get(f"/v1/jobs?{query}").status_code < 500, query
    for query in ("target=%00", "before=99999999999999999999"):
        assert api.http.get(f"/v1/audit?{query}").status_code < 500, query
    assert api.http.get("/v1/usage?job=%00").json()["code"] == "invalid_url"
    assert api.http.get("/v1/videos?after=%00").status_code < 500
