"""Webhooks: where they may go, how they are signed, and that each is delivered in the end or given up."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from serving.api import app
from serving.api.addresses import ForbiddenAddress, check_address, find_target
from serving.api.errors import ApiError
from serving.api.webhooks import WEBHOOKS_OF_ENDPOINT, WEBHOOKS_OF_TENANT, WebhookSender
from tests.serving.api.api_double import STORYBOARD, WAIT_S, ApiDouble, running, serving_at, wait_until


@dataclass
class Receiver:
    """An endpoint that remembers what it was sent and answers as told."""

    status: int = 200
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    async def hook(self, request: Request) -> Response:
        self.got.append((dict(request.headers), await request.body()))
        return Response(status_code=self.status)

    async def redirect(self, request: Request) -> Response:
        return RedirectResponse("/hook", status_code=307)

    async def drip(self, request: Request) -> Response:
        await asyncio.sleep(30)
        return Response()

    async def flood(self, request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            while not await request.is_disconnected():
                yield b"x" * 100_000
                await asyncio.sleep(0.001)

        return StreamingResponse(body())


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    routes = [
        Route(f"/{name}", getattr(found, name), methods=["POST"]) for name in ("hook", "redirect", "drip", "flood")
    ]
    with serving_at(Starlette(routes=routes)) as url:
        found.url = url
        yield found


@pytest.fixture
def loud(tmp_path: Path) -> Iterator[ApiDouble]:
    """A farm as it is, which delivers by itself."""
    with running(tmp_path, webhooks_allow_private=True) as double:
        yield double


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiDouble]:
    """A farm whose deliveries the test makes."""

    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(app, "send_forever", never)
    with running(tmp_path, webhooks_allow_private=True) as double:
        yield double


def make_sender(api: ApiDouble, **options: Any) -> WebhookSender:
    return WebhookSender(api.services.webhooks, **{"allow_private": True, **options})


def run_once(sender: WebhookSender, now: float) -> int:
    """Deliver what is due, until the last delivery has ended; how many there were."""

    async def run() -> int:
        total = 0
        while started := await sender.start_due(now):
            total += started
            while sender._out:
                await sender.wait(within_s=WAIT_S)
        return total

    return asyncio.run(run())


def register(api: ApiDouble, url: str) -> dict[str, Any]:
    answer = api.http.post("/v1/webhooks", json={"url": url})
    assert answer.status_code == 201, answer.text
    endpoint: dict[str, Any] = answer.json()
    return endpoint


def deliveries(api: ApiDouble, endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.http.get(f"/v1/webhooks/{endpoint['id']}/deliveries").json()["data"]
    return found


def cancel_one(api: ApiDouble) -> str:
    """A job that something is told of."""
    job = str(api.submit()["id"])
    api.act(job, "cancel")
    return job


def test_the_running_api_delivers_signed_messages(loud: ApiDouble, receiver: Receiver) -> None:
    endpoint = register(loud, f"{receiver.url}/hook?a=b")
    job = cancel_one(loud)
    wait_until(lambda: len(receiver.got) == 1)
    headers, body = receiver.got[0]
    message = Webhook(endpoint["secret"]).verify(body, headers)
    assert (message["type"], message["data"]["id"]) == ("job.cancelled", job)
    assert headers["content-type"] == "application/json"
    assert headers["host"] == urlsplit(receiver.url).netloc
    with pytest.raises(WebhookVerificationError):
        Webhook(endpoint["secret"]).verify(body.replace(b"cancelled", b"completed"), headers)
    wait_until(lambda: deliveries(loud, endpoint)[0]["delivered_at"] is not None)
    assert "secret" not in loud.http.get("/v1/webhooks").json()["data"][0]


def test_a_failed_delivery_is_tried_again_with_the_same_id_and_then_given_up(
    api: ApiDouble, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.store.webhooks.WEBHOOK_RETRIES_S", (10.0, 100.0))
    receiver.status = 500
    endpoint = register(api, f"{receiver.url}/hook")
    cancel_one(api)
    sender, now = make_sender(api), time.time() + 1
    assert run_once(sender, now) == 1
    assert run_once(sender, now + 9) == 0, "not before its time"
    assert run_once(sender, now + 10) == 1
    assert run_once(sender, now + 110) == 1
    assert run_once(sender, now + 100_000) == 0
    (told,) = deliveries(api, endpoint)
    assert (told["attempts"], told["due_at"], told["error"]) == (3, None, "it answered 500")
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len({body for _, body in receiver.got}) == 1


@pytest.mark.parametrize(
    ("path", "error"),
    [("redirect", "it answered 307"), ("nothing", "it answered 404"), ("drip", "no answer within 0.3")],
)
def test_what_is_no_plain_success_is_a_failure(api: ApiDouble, receiver: Receiver, path: str, error: str) -> None:
    endpoint = register(api, f"{receiver.url}/{path}")
    cancel_one(api)
    assert run_once(make_sender(api, timeout_s=0.3), time.time() + 1) == 1
    assert deliveries(api, endpoint)[0]["error"].startswith(error)
    assert receiver.got == [], "a redirect is not followed"


def test_an_endpoint_that_answers_without_end_is_not_read(api: ApiDouble, receiver: Receiver) -> None:
    endpoint = register(api, f"{receiver.url}/flood")
    cancel_one(api)
    assert run_once(make_sender(api), time.time() + 1) == 1
    assert deliveries(api, endpoint)[0]["delivered_at"] is not None


def test_one_slow_endpoint_keeps_no_other_waiting(api: ApiDouble, receiver: Receiver) -> None:
    slow, good = register(api, f"{receiver.url}/drip"), register(api, f"{receiver.url}/hook")
    closed = register(api, "http://127.0.0.1:9/")
    cancel_one(api)
    assert run_once(make_sender(api, timeout_s=0.5), time.time() + 1) == 3
    assert deliveries(api, good)[0]["delivered_at"] is not None
    assert deliveries(api, slow)[0]["error"] is not None
    assert "ConnectError" in deliveries(api, closed)[0]["error"]


def test_slow_endpoints_of_one_tenant_keep_no_other_tenant_waiting(tmp_path: Path, receiver: Receiver) -> None:
    """However many deliveries to them are due, and however long each takes: nobody waits for one of them to end."""

    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "send_forever", never)
        with running(tmp_path, auth="on", webhooks_allow_private=True) as api:
            slow, quick = api.key("slow"), api.key("quick")
            for headers, path, count in ((slow, "drip", 5), (quick, "hook", 1)):
                for number in range(count):
                    body = {"url": f"{receiver.url}/{path}?{number}"}
                    assert api.http.post("/v1/webhooks", json=body, headers=headers).status_code == 201
                for _ in range(3):
                    job = api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}, headers=headers).json()["id"]
                    api.act(job, "cancel")
            sender = make_sender(api, timeout_s=WAIT_S * 10)

            async def deliver() -> int:
                now, most = time.time() + 1, 0
                async with asyncio.timeout(WAIT_S):
                    while len(receiver.got) < 3:
                        await sender.start_due(now)
                        most = max(most, len(sender._out))
                        await sender.wait(within_s=0.05)
                for task in list(sender._out):
                    task.cancel()
                return most

            assert asyncio.run(deliver()) <= WEBHOOKS_OF_TENANT + WEBHOOKS_OF_ENDPOINT


def test_an_endpoint_that_was_switched_off_is_enabled_by_its_owner(
    api: ApiDouble, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.store.webhooks.WEBHOOK_RETRIES_S", ())
    receiver.status = 500
    endpoint = register(api, f"{receiver.url}/hook")
    cancel_one(api)
    assert run_once(make_sender(api), time.time() + 1) == 1
    assert api.http.get("/v1/webhooks").json()["data"][0]["enabled"] is False
    assert "disable_webhook" in [entry["action"] for entry in api.http.get("/v1/audit").json()["data"]]
    assert api.http.post(f"/v1/webhooks/{endpoint['id']}/enable").json()["enabled"] is True
    assert "secret" not in api.http.post(f"/v1/webhooks/{endpoint['id']}/enable").json()
    assert api.http.post("/v1/webhooks/we_none/enable").status_code == 404
    receiver.status = 200
    cancel_one(api)
    assert run_once(make_sender(api), time.time() + 1) == 1
    assert len(receiver.got) == 2


def test_a_name_that_turns_private_after_it_was_registered_is_not_connected_to(
    api: ApiDouble, receiver: Receiver
) -> None:
    """DNS rebinding: the address that is checked is the one that is used."""
    port = urlsplit(receiver.url).port
    api.services.webhooks.add(tenant="default", url=f"http://rebind.example:{port}/hook", now=time.time())
    cancel_one(api)
    answers = iter([["127.0.0.1"]])
    sender = make_sender(api, allow_private=False, look_up=lambda name, port: next(answers))
    assert run_once(sender, time.time() + 1) == 1
    assert receiver.got == []
    (endpoint,) = api.http.get("/v1/webhooks").json()["data"]
    assert "not on the public internet" in deliveries(api, endpoint)[0]["error"]


def test_the_connection_is_made_to_the_address_that_was_checked(api: ApiDouble, receiver: Receiver) -> None:
    port = urlsplit(receiver.url).port
    endpoint = api.services.webhooks.add(tenant="default", url=f"http://hooks.example:{port}/hook", now=time.time())
    cancel_one(api)
    looks: list[str] = []

    def look_up(name: str, port: int) -> Sequence[str]:
        looks.append(name)
        return ["127.0.0.1"]

    run_once(make_sender(api, look_up=look_up), time.time() + 1)
    assert looks == ["hooks.example"], "once, and nobody looks again"
    headers, body = receiver.got[0]
    assert headers["host"] == f"hooks.example:{port}"
    Webhook(endpoint.secret).verify(body, headers)


PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:db8::1",
    "fec0::1",
    "192.88.99.1",
    "::ffff:192.88.99.1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(ForbiddenAddress, match="public internet"):
        find_target(
            "https://hooks.example/", allow_private=False, look_up=lambda name, port: ["93.184.215.14", address]
        )
    assert find_target("https://hooks.example/", allow_private=True, look_up=lambda name, port: [address])


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_a_public_address_is_taken_as_it_was_looked_up(address: str) -> None:
    target = find_target("https://hooks.example/a?b=c", allow_private=False, look_up=lambda name, port: [address])
    assert urlsplit(target.url).hostname == address
    assert target.url.endswith(":443/a?b=c")
    assert (target.host, target.name) == ("hooks.example", "hooks.example")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://hooks.example/",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://user:password@hooks.example/",
        "https://hooks.example:99999/",
        "https://hooks.example/#fragment",
        "https://hooks.example/ a",
        "https://hööks.example/",
        "//hooks.example/",
        "https://[::1/",
        "https://a..b/",
        "",
    ],
)
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(ForbiddenAddress):
        find_target(url, allow_private=True, look_up=lambda name, port: ["93.184.215.14"])


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://localhost:1/", "http://0x7f000001/", "http://2130706433/", "http://[::1]/"]
)
def test_a_farm_refuses_private_addresses_when_they_are_registered(tmp_path: Path, url: str) -> None:
    with running(tmp_path) as api:
        answer = api.http.post("/v1/webhooks", json={"url": url})
        assert answer.status_code == 422
        assert answer.json()["problems"][0]["path"] == "url"
        assert api.http.get("/v1/webhooks").json()["data"] == []


def test_a_host_that_nobody_knows_is_refused_in_the_words_for_a_private_one() -> None:
    """Else a tenant could ask which names a private network has, and where."""

    def unknown(name: str, port: int) -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    refusals = []
    for look_up in (unknown, lambda name, port: [], lambda name, port: ["10.1.2.3"], lambda name, port: ["::1"]):
        with pytest.raises(ApiError) as error:
            check_address("https://name.example/", allow_private=False, look_up=look_up)
        refusals.append((error.value.status, error.value.problems))
    assert len(set(refusals)) == 1
    assert refusals[0][0] == 422


@pytest.mark.parametrize("port", [0, 1, 22, 25, 1023, 6379])
def test_a_port_that_is_none_for_webhooks_is_refused(port: int) -> None:
    with pytest.raises(ForbiddenAddress, match="port"):
        find_target(f"https://a.example:{port}/", allow_private=False, look_up=lambda name, port: ["93.184.215.14"])


def test_endpoints_are_a_tenants_own(tmp_path: Path) -> None:
    with running(tmp_path, auth="on", webhooks_allow_private=True) as api:
        ours, theirs = api.key("studio"), api.key("agency")
        made = api.http.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}, headers=ours).json()
        path = f"/v1/webhooks/{made['id']}"
        assert api.http.get("/v1/webhooks", headers=theirs).json()["data"] == []
        assert api.http.get(f"{path}/deliveries", headers=theirs).status_code == 404
        assert api.http.delete(path, headers=theirs).status_code == 404
        assert api.http.delete(path, headers=ours).json()["deleted"] is True
        assert api.http.get("/v1/webhooks", headers=ours).json()["data"] == []
