"""Delivers the store's outbox of webhooks: signed as Standard Webhooks has it, each in bounded time, without redirects.

The store says what is due, holds it for whoever claims it, and decides when a failed delivery is tried again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from standardwebhooks import Webhook

from serving.api.addresses import ForbiddenAddress, Resolve, find_target, resolve
from serving.errors import Fault
from serving.store.webhooks import WebhookDelivery, WebhookEndpoint, Webhooks

log = logging.getLogger(__name__)

WEBHOOK_BATCH = 32
"""Deliveries that one process makes at once."""

WEBHOOK_TIMEOUT_S = 10.0
"""Seconds that one delivery may take in all, from the name's look-up to the status line."""


HOLD_S = 3 * WEBHOOK_TIMEOUT_S
"""Seconds for which claimed deliveries are nobody else's: well above the time they may take."""


@dataclass(frozen=True)
class _Outcome:
    """How one delivery went; an error of None is success."""

    delivery: WebhookDelivery
    error: str | None


class WebhookSender:
    """Delivers what is due, once per `run_once`. Any number of them may work on one store."""

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

    def run_once(self, now: float) -> int:
        """Deliver what is due; returns how many were tried. Not for a thread that has a running event loop."""
        due = self._webhooks.claim_due(now=now, hold_s=HOLD_S, limit=WEBHOOK_BATCH)
        if not due:
            return 0
        for outcome in asyncio.run(self._deliver_all(due, now)):
            self._note(outcome, now)
        return len(due)

    def _note(self, outcome: _Outcome, now: float) -> None:
        identity = outcome.delivery.id
        if outcome.error is None:
            self._webhooks.delivered(identity, now=now)
            return
        next_at = self._webhooks.failed(identity, error=outcome.error, now=now)
        what = "given up" if next_at is None else f"tried again in {next_at - now:.0f} s"
        log.warning("webhook %s: %s; %s", identity, outcome.error, what, extra={"action": "webhook"})

    async def _deliver_all(self, due: Sequence[tuple[WebhookDelivery, WebhookEndpoint]], now: float) -> list[_Outcome]:
        async with self._make_client() as client:
            return list(await asyncio.gather(*(self._deliver(client, *one, now) for one in due)))

    async def _deliver(
        self, client: httpx.AsyncClient, delivery: WebhookDelivery, endpoint: WebhookEndpoint, now: float
    ) -> _Outcome:
        try:
            async with asyncio.timeout(self._timeout_s):
                return _Outcome(delivery, await self._post(client, delivery, endpoint, now))
        except TimeoutError:
            return _Outcome(delivery, f"no answer within {self._timeout_s:g} seconds")
        except ForbiddenAddress as error:
            return _Outcome(delivery, str(error))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return _Outcome(delivery, f"{type(error).__name__}: {error}"[:300])

    async def _post(
        self, client: httpx.AsyncClient, delivery: WebhookDelivery, endpoint: WebhookEndpoint, now: float
    ) -> str | None:
        """What is wrong with the answer; None where it is a success."""
        target = await asyncio.to_thread(
            find_target, endpoint.url, allow_private=self._allow_private, look_up=self._look_up
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
    return httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=WEBHOOK_TIMEOUT_S)


async def send_forever(sender: WebhookSender, *, clock: Callable[[], float], every_s: float) -> None:
    """Deliver again and again; a store that does not answer is waited out."""
    while True:
        sent = 0
        try:
            sent = await asyncio.to_thread(sender.run_once, clock())
        except Fault as error:
            log.warning("webhooks wait for the store: %s", error, extra={"action": "webhook"})
        except Exception:
            log.exception("webhooks could not be delivered", extra={"action": "webhook"})
        if sent < WEBHOOK_BATCH:
            await asyncio.sleep(every_s)
