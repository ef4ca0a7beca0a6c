"""Who may ask: keys, tenants, roles, rates, sizes, hosts, origins, and the audit log."""

import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.datastructures import Headers

from serving.api import gate
from serving.api.app import create_api
from serving.api.errors import ApiError
from serving.api.gate import MAX_HEADER_BYTES, WRONG_KEYS_PER_MINUTE, Rates, check_host, peer_of
from serving.store.keys import ApiKey
from tests.serving.api.api_double import STORYBOARD, WAIT_S, ApiDouble, running


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiDouble]:
    with running(tmp_path, auth="on") as double:
        yield double


@pytest.fixture
def open_api(tmp_path: Path) -> Iterator[ApiDouble]:
    with running(tmp_path) as double:
        yield double


def submit(api: ApiDouble, headers: dict[str, str], **options: object) -> str:
    answer = api.http.post("/v1/jobs", json={"storyboard": STORYBOARD, **options}, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_without_a_key_only_health_and_the_document_are_answered(api: ApiDouble) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert api.http.get(path).status_code == 200
    for path in ("/v1/jobs", "/v1/videos", "/metrics", "/v1/keys", "/v1/nothing"):
        answer = api.http.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert api.http.get("/v1/videos").json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(("share_takes", "is_shown"), [("auto", False), ("farm", True)])
def test_a_quote_shows_takes_of_another_tenant_only_if_the_farm_shares_them(
    tmp_path: Path, share_takes: str, *, is_shown: bool
) -> None:
    with running(tmp_path, auth="on", share_takes=share_takes) as api:
        ada, bob = api.key("ada"), api.key("bob")
        have_rendered(api, submit(api, bob))

        def quoted(headers: dict[str, str], **options: str) -> set[bool]:
            quote = api.http.post("/v1/quote", json={"storyboard": STORYBOARD, **options}, headers=headers).json()
            revised = f"/v1/jobs/{submit(api, headers, **options)}/revise?dry_run=true"
            again = api.http.post(revised, json={"storyboard": STORYBOARD, **options}, headers=headers).json()
            assert quote["takes"] == again["takes"]
            return {take["cached"] for take in quote["takes"]}

        assert quoted(bob) == {True}
        assert quoted(ada) == {is_shown}
        assert quoted(api.key("admin"), tenant="bob") == {True}, "an administrator is quoted as the tenant would be"


def have_rendered(api: ApiDouble, job_id: str) -> None:
    """Have the frames of a job's takes among the artifacts."""
    numerics = {"device": "a test"}
    api.services.jobs.learn("numerics", "default", numerics, now=time.time())
    job, admission = api.services.jobs.get(job_id), api.services.admission
    assert job is not None
    for key in admission.content_keys(admission.plan_job(job), numerics, tenant=job.tenant):
        api.services.artifacts.put(f"takes/{key}/frames.mkv", b"frames")


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer x", "Basic YTpi", f"Bearer lt_{'0' * 22}_{'x' * 43}", "Bearer \xff"]
)
def test_what_is_no_valid_key_is_refused(api: ApiDouble, value: str) -> None:
    answer = api.http.get("/v1/jobs", headers=[(b"Authorization", value.encode("latin-1"))])
    assert answer.status_code == 401
    assert answer.json()["code"] == "invalid_api_key"


def test_a_key_in_the_url_is_no_key(api: ApiDouble) -> None:
    secret = api.key("studio")["Authorization"].removeprefix("Bearer ")
    assert api.http.get("/v1/jobs", params={"api_key": secret, "key": secret}).status_code == 401


def test_a_tenant_sees_and_touches_only_its_own(api: ApiDouble) -> None:
    ours, theirs = api.key("studio"), api.key("agency")
    job = submit(api, ours)
    api.complete(job)
    path = f"/v1/jobs/{job}"
    reads = ["", "/explain", "/events", "/versions", "/film", "/manifest", "/takes/red/head", "/thumbnail"]
    for end in reads:
        assert api.http.get(f"{path}{end}", headers=theirs).status_code == 404, end
    for action in ("cancel", "pause", "resume", "retry", "finalize"):
        assert api.http.post(f"{path}/{action}", headers=theirs).status_code == 404
    body = {"storyboard": STORYBOARD}
    assert api.http.post(f"{path}/revise", json=body, headers=theirs).status_code == 404
    assert api.http.patch(path, json={"priority": 1}, headers=theirs).status_code == 404
    assert api.http.delete(path, headers=theirs).status_code == 404
    assert api.http.get("/v1/usage", params={"job": job}, headers=theirs).status_code == 404
    assert api.http.get("/v1/jobs", headers=theirs).json()["data"] == []
    assert api.http.get("/v1/jobs", params={"tenant": "studio"}, headers=theirs).json()["data"] == []
    missing = api.http.get("/v1/jobs/job_none", headers=theirs).json()
    foreign = api.http.get(path, headers=theirs).json()
    assert {**missing, "detail": ""} == {**foreign, "detail": ""}, "nobody can tell another's job from none"
    assert api.http.get(path, headers=ours).status_code == 200


def test_an_administrator_sees_all_and_submits_for_others(api: ApiDouble) -> None:
    admin, tenant = api.key("admin"), api.key("studio")
    job = submit(api, admin, tenant="studio")
    assert api.http.get(f"/v1/jobs/{job}", headers=tenant).json()["tenant"] == "studio"
    other = submit(api, api.key("agency"))
    assert api.http.post(f"/v1/jobs/{other}/pause", headers=admin).status_code == 200
    assert len(api.http.get("/v1/jobs", headers=admin).json()["data"]) == 2
    assert len(api.http.get("/v1/jobs", params={"tenant": "agency"}, headers=admin).json()["data"]) == 1
    refused = api.http.post("/v1/jobs", json={"storyboard": STORYBOARD, "tenant": "agency"}, headers=tenant)
    assert (refused.status_code, refused.json()["code"]) == (403, "admin_only")


def test_keys_are_made_listed_and_revoked_by_administrators_alone(api: ApiDouble) -> None:
    admin = api.key("admin")
    answer = api.http.post("/v1/keys", json={"tenant": "studio", "name": "ci"}, headers=admin)
    assert answer.status_code == 201
    made = answer.json()
    own = {"Authorization": f"Bearer {made['secret']}"}
    assert api.http.get("/v1/jobs", headers=own).status_code == 200
    for path in ("/v1/keys", "/v1/tenants", "/metrics"):
        assert api.http.get(path, headers=own).status_code == 403
    assert api.http.post("/v1/keys", json={"tenant": "studio"}, headers=own).status_code == 403
    listed = api.http.get("/v1/keys", params={"tenant": "studio"}, headers=admin)
    assert [key["id"] for key in listed.json()["data"]] == [made["id"]]
    assert made["secret"] not in listed.text
    revoked = api.http.delete(f"/v1/keys/{made['id']}", headers=admin)
    assert revoked.json()["revoked_at"] is not None
    assert api.http.get("/v1/jobs", headers=own).status_code == 401
    assert api.http.delete("/v1/keys/key_none", headers=admin).status_code == 404


def test_a_repeated_request_for_a_key_makes_no_second_and_shows_no_secret(api: ApiDouble) -> None:
    admin = api.key("admin")
    headers = {**admin, "Idempotency-Key": "k"}
    first = api.http.post("/v1/keys", json={"tenant": "studio"}, headers=headers).json()
    again = api.http.post("/v1/keys", json={"tenant": "studio"}, headers=headers).json()
    assert again == {**first, "secret": None}
    assert len(api.http.get("/v1/keys?tenant=studio", headers=admin).json()["data"]) == 1


def test_secrets_are_neither_logged_nor_stored(
    api: ApiDouble, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = api.http.post("/v1/keys", json={"tenant": "studio"}, headers=api.key("admin")).json()["secret"]
    api.http.get("/v1/jobs", headers={"Authorization": f"Bearer {secret}"})
    chance = secret.rpartition("_")[2]
    ours = [record for record in caplog.records if record.name.startswith(("serving", "uvicorn"))]
    assert not any(chance in record.getMessage() for record in ours)
    files = [path.read_bytes() for path in tmp_path.glob("farm.db*")]
    assert files
    assert not any(chance.encode() in content for content in files)


def test_a_tenant_is_told_to_wait_when_it_asks_too_often(tmp_path: Path) -> None:
    with running(tmp_path, auth="on", limits={"requests_per_minute": 5}) as api:
        headers, others = api.key("studio"), api.key("agency")
        codes = [api.http.get("/v1/jobs", headers=headers).status_code for _ in range(6)]
        assert codes == [200] * 5 + [429]
        answer = api.http.get("/v1/videos", headers=headers)
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 12
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert api.http.get("/v1/jobs", headers=others).status_code == 200
        assert api.http.get("/healthz").status_code == 200


def test_a_tenants_own_rate_comes_before_the_farms(api: ApiDouble) -> None:
    admin, headers = api.key("admin"), api.key("studio")
    body = {"weight": 2.0, "requests_per_minute": 2}
    answer = api.http.put("/v1/tenants/studio", json=body, headers=admin)
    assert (answer.status_code, answer.json()["requests_per_minute"]) == (200, 2)
    assert api.http.get("/v1/tenants", headers=admin).json()["data"] == [answer.json()]
    fresh = create_api(api.services)
    assert fresh is not api.app
    codes = [api.http.get("/v1/jobs", headers=headers).status_code for _ in range(3)]
    assert codes.count(429) <= 1, "what was set is seen a little later at most"
    assert api.http.put("/v1/tenants/studio", json={"weight": 0}, headers=admin).status_code == 422


def test_a_bucket_fills_again_evenly() -> None:
    now = 100.0
    rates = Rates(60, lambda: now)
    assert [rates.spend("a") for _ in range(60)] == [0.0] * 60
    assert rates.spend("a") == pytest.approx(1.0)
    assert rates.spend("b") == 0.0
    now += 2.5
    assert [rates.spend("a") > 0 for _ in range(3)] == [False, False, True]
    now -= 1000
    assert rates.spend("a") > 0, "a clock that goes back gives nothing away"


def test_a_body_may_only_be_so_large_whether_announced_or_not(tmp_path: Path) -> None:
    with running(tmp_path, limits={"max_body_bytes": 5000}, assets={"upload_bytes": 1 << 16}) as api:
        announced = api.http.post("/v1/jobs", content=b"x" * 5001, headers={"Content-Type": "application/yaml"})
        chunks = (b"x" * 1000 for _ in range(6))
        chunked = api.http.post("/v1/jobs", content=chunks, headers={"Content-Type": "application/yaml"})
        form = api.http.post("/v1/videos", files={"prompt": (None, "x" * 71_000)})  # it may hold a picture
        generated = api.http.post(
            "/v1/videos", content=(b"x" * 9999 for _ in range(9)), headers={"Content-Type": "application/json"}
        )
        assert [answer.status_code for answer in (announced, chunked, form, generated)] == [413] * 4
        assert announced.json()["code"] == chunked.json()["code"] == "body_too_large"
        assert form.json()["error"]["code"] == "body_too_large"
        assert api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}).status_code == 201


def test_headers_beyond_a_bound_are_refused(tmp_path: Path) -> None:
    with running(tmp_path, auth="on") as api:
        many = {f"x-{number}": "x" * 1000 for number in range(MAX_HEADER_BYTES // 1000 + 1)}
        for headers in ({"x": "x" * MAX_HEADER_BYTES}, many):
            answer = api.http.get("/healthz", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (431, "headers_too_large")
        assert api.http.get("/healthz", headers={"x": "x" * (MAX_HEADER_BYTES // 2)}).status_code == 200


def test_wrong_keys_are_counted_by_address_and_right_ones_are_let_in_all_the_same(
    api: ApiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = api.key("studio")
    assert api.http.get("/v1/jobs", headers=right).status_code == 200
    asked: list[str] = []
    real = api.services.keys.find

    def find(secret: str) -> ApiKey | None:
        asked.append(secret)
        return real(secret)

    monkeypatch.setattr(api.services.keys, "find", find)
    wrong = [{"Authorization": f"Bearer lt_{number:022}_{'x' * 43}"} for number in range(WRONG_KEYS_PER_MINUTE + 20)]
    answers = [api.http.get("/v1/jobs", headers=headers) for headers in wrong]
    codes = [answer.status_code for answer in answers]
    assert codes[:WRONG_KEYS_PER_MINUTE] == [401] * WRONG_KEYS_PER_MINUTE
    assert codes.count(429) >= 10
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert len(asked) == codes.count(401), "what is refused is not looked up"
    assert api.http.get("/v1/jobs", headers=right).status_code == 200


@pytest.mark.parametrize(
    ("client", "peer"),
    [
        (("10.0.0.1", 5), "10.0.0.1"),
        (("2001:db8:1:2:3::4", 5), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5), "fe80::/64"),
        (None, ""),
    ],
)
def test_a_peer_is_an_address_or_the_network_of_one_customer(client: object, peer: str) -> None:
    assert peer_of({"type": "http", "client": client}) == peer


def test_what_is_counted_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MAX_BUCKETS", 3)
    rates = Rates(1, lambda: 0.0)
    for number in range(10):
        rates.spend(str(number))
    assert len(rates._buckets) == 3
    assert rates.wait_s("9") > 0
    assert rates.wait_s("0") == 0


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 30, "\xb2"])
def test_a_length_that_is_none_is_not_believed(open_api: ApiDouble, length: str) -> None:
    """Sent by hand: no client would."""
    parts = urlsplit(open_api.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=WAIT_S) as connection:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode("latin-1"))
        status = connection.recv(1000).split(b" ")[1]
    assert status.startswith(b"4")


@pytest.mark.parametrize(
    ("host", "own_host", "answered"),
    [
        ("127.0.0.1:8000", "127.0.0.1", True),
        ("localhost:8000", "127.0.0.1", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("[::1]:8000", "::1", True),
        ("127.0.0.2", "localhost", True),
        ("evil.example:8000", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("192.168.0.5:8000", "127.0.0.1", False),
        ("192.168.0.5:8000", "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
        ("farm.lan:8000", "farm.lan", True),
        ("", "127.0.0.1", False),
        ("127.0.0.1:x.evil.example", "127.0.0.1", False),
        ("[::1]:x", "::1", False),
    ],
)
def test_without_keys_a_name_that_may_be_bound_to_us_is_not_answered(host: str, own_host: str, answered: bool) -> None:
    refusal = contextlib.nullcontext() if answered else pytest.raises(ApiError, match=r"loopback|listens|port")
    with refusal:
        check_host(Headers({"host": host}), own_host=own_host)


def test_without_keys_pages_of_other_origins_are_not_answered(open_api: ApiDouble) -> None:
    job = open_api.submit()["id"]
    own = f"http://{urlsplit(open_api.url).netloc}"
    for origin in ("https://evil.example", "null", own.replace("127.0.0.1", "localhost")):
        answer = open_api.http.post(f"/v1/jobs/{job}/cancel", headers={"Origin": origin})
        assert (answer.status_code, answer.json()["code"]) == (403, "wrong_origin")
        assert "access-control-allow-origin" not in answer.headers
    assert open_api.http.post(f"/v1/jobs/{job}/cancel", headers={"Origin": own}).status_code == 200
    assert open_api.http.get("/v1/jobs", headers={"Host": "evil.example"}).json()["code"] == "wrong_host"


def test_with_keys_any_host_name_is_answered(api: ApiDouble) -> None:
    assert api.http.get("/v1/jobs", headers={**api.key("studio"), "Host": "farm.example"}).status_code == 200


def test_a_farm_without_keys_says_so_when_it_starts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path):
        assert any("no API keys" in record.getMessage() for record in caplog.records)


def test_every_answer_has_an_id_and_is_not_guessed_at(open_api: ApiDouble) -> None:
    answers = [open_api.http.get(path) for path in ("/healthz", "/v1/nothing", "/v1/jobs")]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 3
    assert {answer.headers["x-content-type-options"] for answer in answers} == {"nosniff"}


def test_the_audit_log_says_who_did_what(api: ApiDouble) -> None:
    admin, tenant = api.key("admin"), api.key("studio")
    job = submit(api, tenant)
    api.http.post(f"/v1/jobs/{job}/pause", headers=admin)
    api.http.post("/v1/keys", json={"tenant": "agency", "name": "x"}, headers=admin)
    own = api.http.get("/v1/audit", headers=tenant).json()["data"]
    assert [(entry["actor"], entry["action"]) for entry in own] == [("admin/test", "pause"), ("studio/test", "submit")]
    every = api.http.get("/v1/audit", params={"limit": 2}, headers=admin).json()
    assert [entry["action"] for entry in every["data"]] == ["create_key", "pause"]
    rest = api.http.get("/v1/audit", params={"before": every["last_id"]}, headers=admin).json()
    assert [entry["action"] for entry in rest["data"]] == ["submit"]
    assert (every["has_more"], rest["has_more"]) == (True, False)


def test_usage_is_a_tenants_own_and_all_for_administrators(api: ApiDouble) -> None:
    from serving.store.records import LedgerEntry

    jobs = {tenant: submit(api, api.key(tenant)) for tenant in ("studio", "agency")}
    for tenant, job in jobs.items():
        values = {"pool": "default", "take": "red", "shot": "red", "useful_s": 1.5, "wasted_s": 0.5, "usd": 0.01}
        api.services.ledger.add([LedgerEntry(job_id=job, tenant=tenant, at=time.time(), **values)])  # type: ignore[arg-type]
    own = api.http.get("/v1/usage", headers=api.key("studio")).json()["data"]
    assert own == [{"tenant": "studio", "gpu_seconds": 1.5, "wasted_gpu_seconds": 0.5, "usd": 0.01}]
    every = api.http.get("/v1/usage", headers=api.key("admin")).json()["data"]
    assert [row["tenant"] for row in every] == ["agency", "studio"]
    shots = api.http.get("/v1/usage", params={"job": jobs["studio"]}, headers=api.key("studio")).json()["data"]
    assert shots == [{"take": "red", "shot": "red", "gpu_seconds": 1.5, "wasted_gpu_seconds": 0.5, "usd": 0.01}]
    later = api.http.get("/v1/usage", params={"since": time.time() + 100}, headers=api.key("studio")).json()["data"]
    assert later == []


def test_a_made_up_secret_takes_no_longer_than_a_look(api: ApiDouble) -> None:
    answer = api.http.get("/v1/jobs", headers={"Authorization": f"Bearer {secrets.token_urlsafe(50_000)}"})
    assert answer.status_code in (400, 401, 431)
