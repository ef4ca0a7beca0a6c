"""Delivers the store's outbox of webhooks: signed as Standard Webhooks has it, each in bounded time, without redirects.

The store says what is due, holds it for whoever claims it, decides when a failed delivery is tried again, and switches
off endpoints that take nothing. None of it waits for a slow endpoint but what goes to that endpoint, or its tenant's.
"""

import asyncio
import functools
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import anyio
import anyio.to_thread
import httpx
from standardwebhooks import Webhook

from serving.api.addresses import ForbiddenAddress, Resolve, find_target, resolve
from serving.errors import Fault
from serving.store.webhooks import WebhookDelivery, WebhookEndpoint, Webhooks

log = logging.getLogger(__name__)

Value = TypeVar("Value")

WEBHOOKS_AT_ONCE = 128
"""Deliveries that one process makes at once."""

WEBHOOKS_OF_TENANT = 8
"""Of these, to the endpoints of one tenant: slow ones keep others' waiting no longer."""

WEBHOOKS_OF_ENDPOINT = 2
"""Of these, to one endpoint."""

WEBHOOK_TIMEOUT_S = 10.0
"""Seconds that one delivery may take in all, from the name's look-up to the status line."""

HOLD_S = 3 * WEBHOOK_TIMEOUT_S
"""Seconds for which claimed deliveries are nobody else's: well above the time they may take."""


class WebhookSender:
    """Delivers what is due, each delivery in a task of its own. Any number of senders may work on one store."""

    def __init__(
        self,
        webhooks: Webhooks,
        *,
        allow_private: bool,
        look_up: Resolve = resolve,
        make_client: Callable[[], httpx.AsyncClient] | None = None,
        timeout_s: float = WEBHOOK_TIMEOUT_S,
    ) -> None:
        self._webhooks = webhooks
        self._allow_private = allow_private
        self._look_up = look_up
        self._make_client = make_client or _make_client
        self._timeout_s = timeout_s
        self._out: dict[asyncio.Task[None], WebhookEndpoint] = {}
        self._threads: anyio.CapacityLimiter | None = None

    async def start_due(self, now: float) -> int:
        """Start to deliver what is due, as far as there is room for its endpoints; returns how many were started.
        Raises Fault if the store does not answer."""
        room = WEBHOOKS_AT_ONCE - len(self._out)
        due = await self._in_thread(
            lambda: self._webhooks.claim_due(
                now=now,
                hold_s=HOLD_S,
                limit=room,
                per_endpoint=WEBHOOKS_OF_ENDPOINT,
                per_tenant=WEBHOOKS_OF_TENANT,
                out=tuple(self._out.values()),
            )
        )
        for delivery, endpoint in due:
            task = asyncio.create_task(self._deliver_and_note(delivery, endpoint, now))
            self._out[task] = endpoint
            task.add_done_callback(self._out.pop)
        return len(due)

    async def wait(self, *, within_s: float) -> None:
        """Until a delivery ends, so that there may be room for another, or these seconds are over."""
        if self._out:
            await asyncio.wait(self._out, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(within_s)

    async def _in_thread(self, act: Callable[[], Value]) -> Value:
        """Threads of its own, so that names whose look-up hangs keep nothing else waiting."""
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(WEBHOOKS_AT_ONCE)
        return await anyio.to_thread.run_sync(act, abandon_on_cancel=True, limiter=self._threads)

    async def _deliver_and_note(self, delivery: WebhookDelivery, endpoint: WebhookEndpoint, now: float) -> None:
        error = await self._deliver(delivery, endpoint, now)
        try:
            await self._in_thread(lambda: self._note(delivery, error, now))
        except Fault as fault:  # it is delivered once more, or once too often
            log.warning("webhook %s: %s", delivery.id, fault, extra={"action": "webhook"})

    def _note(self, delivery: WebhookDelivery, error: str | None, now: float) -> None:
        if error is None:
            self._webhooks.delivered(delivery.id, now=now)
            return
        next_at = self._webhooks.failed(delivery.id, error=error, now=now)
        what = "given up" if next_at is None else f"tried again in {next_at - now:.0f} s"
        log.warning("webhook %s: %s; %s", delivery.id, error, what, extra={"action": "webhook"})

    async def _deliver(self, delivery: WebhookDelivery, endpoint: WebhookEndpoint, now: float) -> str | None:
        """What went wrong, in words for the endpoint's owner; None if the endpoint has it."""
        try:
            async with asyncio.timeout(self._timeout_s), self._make_client() as client:
                return await self._post(client, delivery, endpoint, now)
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} seconds"
        except ForbiddenAddress as error:
            return str(error)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return f"the request failed: {type(error).__name__}"

    async def _post(
        self, client: httpx.AsyncClient, delivery: WebhookDelivery, endpoint: WebhookEndpoint, now: float
    ) -> str | None:
        """What is wrong with the answer; None if it is a success."""
        target = await self._in_thread(
            lambda: find_target(endpoint.url, allow_private=self._allow_private, look_up=self._look_up)
        )
        headers = {"Host": target.host, "Content-Type": "application/json", "User-Agent": "longtake-webhooks/1"}
        request = client.build_request(
            "POST",
            target.url,
            content=delivery.body.encode(),
            headers={**headers, **sign(delivery, endpoint.secret, now)},
            extensions={"sni_hostname": target.name},
        )
        # Only the status line and headers are read: what an endpoint says beyond that is nobody's business here.
        answer = await client.send(request, stream=True)
        await answer.aclose()
        return None if answer.is_success else f"it answered {answer.status_code}"


def sign(delivery: WebhookDelivery, secret: str, now: float) -> dict[str, str]:
    """The headers of Standard Webhooks for a body that is sent now."""
    at = datetime.fromtimestamp(int(now), UTC)
    return {
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": Webhook(secret).sign(delivery.id, at, delivery.body),
    }


def _make_client() -> httpx.AsyncClient:
    # No proxy and no netrc from the environment: a proxy would look the name up again.
    return httpx.AsyncClient(
        follow_redirects=False, trust_env=False, timeout=WEBHOOK_TIMEOUT_S, verify=_trusted_certificates()
    )


@functools.cache
def _trusted_certificates() -> ssl.SSLContext:
    """Read once: it takes longer than a delivery."""
    return httpx.create_ssl_context(trust_env=False)


async def send_forever(sender: WebhookSender, *, clock: Callable[[], float], every_s: float) -> None:
    """Deliver periodically, and at once what there is room for again; a store that does not answer is waited out."""
    while True:
        try:
            await sender.start_due(clock())
        except Fault as error:
            log.warning("webhooks wait for the store: %s", error, extra={"action": "webhook"})
        except Exception:
            log.exception("webhooks could not be delivered", extra={"action": "webhook"})
        await sender.wait(within_s=every_s)
