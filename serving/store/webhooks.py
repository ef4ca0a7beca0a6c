"""Webhooks: where tenants want to be told of their jobs, and the outbox of what they are still to be told.

A delivery is written in the transaction that changes the job, so none is lost and none is of a change that never was.
Whoever delivers (serving/api) claims due ones, signs and posts their body as it stands, and says how it went. One may
arrive twice, but never with another id or body. Secrets are kept as they are, because signing needs them.
"""

import base64
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from serving import settings
from serving.errors import NotFound, UserError
from serving.store.database import Database
from serving.store.ids import new_id
from serving.store.records import Job
from serving.store.tables import webhook_deliveries as deliveries
from serving.store.tables import webhook_endpoints as endpoints

WEBHOOK_RETRIES_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
"""Seconds between a failed delivery of a webhook and the next try; after the last it is given up."""

MAX_ENDPOINTS = 20
"""Webhook endpoints of one tenant."""


@dataclass(frozen=True)
class WebhookEndpoint:
    """Where a tenant wants to be told."""

    id: str
    tenant: str
    url: str
    secret: str
    """`whsec_` and 32 random bytes in base64, as Standard Webhooks has it."""
    enabled: bool
    created_at: float


@dataclass(frozen=True)
class WebhookDelivery:
    """One message to one endpoint."""

    id: str
    """The message's id: the same at every try."""
    endpoint_id: str
    job_id: str
    type: str
    """`job.` and the status that the job has reached."""
    body: str
    """JSON, to be sent byte for byte."""
    created_at: float
    attempts: int
    """Tries that failed."""
    due_at: float | None
    """When it is tried next; None once it was delivered or given up."""
    delivered_at: float | None
    error: str | None
    """How the last try failed."""


class Webhooks:
    """Endpoints and their outbox."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------------------------------------------------------ endpoints

    def add(self, *, tenant: str, url: str, now: float) -> WebhookEndpoint:
        """A new endpoint with a new secret. Raises UserError if the tenant has too many. The URL is not checked."""
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        endpoint = WebhookEndpoint(new_id("we", now), tenant, url, secret, enabled=True, created_at=now)
        with self._database.begin() as connection:
            query = select(func.count()).select_from(endpoints).where(endpoints.c.tenant == tenant)
            if connection.execute(query).scalar_one() >= MAX_ENDPOINTS:
                raise UserError(f"a tenant may have {MAX_ENDPOINTS} webhook endpoints; remove one first")
            connection.execute(insert(endpoints).values(asdict(endpoint)))
        return endpoint

    def get(self, endpoint_id: str, *, tenant: str | None = None) -> WebhookEndpoint | None:
        """The endpoint, unless it belongs to another tenant."""
        query = select(endpoints).where(endpoints.c.id == endpoint_id)
        if tenant is not None:
            query = query.where(endpoints.c.tenant == tenant)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else WebhookEndpoint(**row._mapping)

    def list(self, *, tenant: str) -> Sequence[WebhookEndpoint]:
        """The endpoints of a tenant, oldest first."""
        query = select(endpoints).where(endpoints.c.tenant == tenant).order_by(endpoints.c.id)
        with self._database.read() as connection:
            return [WebhookEndpoint(**row._mapping) for row in connection.execute(query)]

    def set_enabled(self, endpoint_id: str, enabled: bool, *, tenant: str | None = None) -> None:
        """Stop or go on telling an endpoint. What happens while it is stopped it is never told. Raises NotFound."""
        statement = update(endpoints).where(endpoints.c.id == endpoint_id).values(enabled=enabled)
        if tenant is not None:
            statement = statement.where(endpoints.c.tenant == tenant)
        with self._database.begin() as connection:
            if connection.execute(statement).rowcount == 0:
                raise NotFound(f"there is no webhook endpoint {endpoint_id}")

    def remove(self, endpoint_id: str, *, tenant: str | None = None) -> None:
        """Forget an endpoint and its deliveries. Raises NotFound."""
        statement = delete(endpoints).where(endpoints.c.id == endpoint_id)
        if tenant is not None:
            statement = statement.where(endpoints.c.tenant == tenant)
        with self._database.begin() as connection:
            if connection.execute(statement).rowcount == 0:
                raise NotFound(f"there is no webhook endpoint {endpoint_id}")

    # ------------------------------------------------------------------------------------------------ the outbox

    def claim_due(self, *, now: float, hold_s: float, limit: int) -> Sequence[tuple[WebhookDelivery, WebhookEndpoint]]:
        """Deliveries that are due, oldest first. Nobody else gets them for `hold_s`; one whose deliverer says nothing
        in that time comes again."""
        query = (
            select(deliveries)
            .where(deliveries.c.due_at <= now)
            .order_by(deliveries.c.due_at, deliveries.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        with self._database.begin() as connection:
            due = [WebhookDelivery(**row._mapping) for row in connection.execute(query)]
            if not due:
                return []
            ids = [delivery.id for delivery in due]
            connection.execute(update(deliveries).where(deliveries.c.id.in_(ids)).values(due_at=now + hold_s))
            places = select(endpoints).where(endpoints.c.id.in_({delivery.endpoint_id for delivery in due}))
            found = {row.id: WebhookEndpoint(**row._mapping) for row in connection.execute(places)}
        return [(delivery, found[delivery.endpoint_id]) for delivery in due]

    def delivered(self, delivery_id: str, *, now: float) -> None:
        """The endpoint has it."""
        values = {"due_at": None, "delivered_at": now, "error": None}
        with self._database.begin() as connection:
            connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(values))

    def failed(self, delivery_id: str, *, error: str, now: float) -> float | None:
        """The endpoint did not take it; returns when it is tried next, None if it is given up."""
        with self._database.begin() as connection:
            query = select(deliveries.c.attempts).where(deliveries.c.id == delivery_id).with_for_update()
            attempts = connection.execute(query).scalar_one_or_none()
            if attempts is None:  # the endpoint was removed meanwhile
                return None
            left = WEBHOOK_RETRIES_S[attempts:]
            due_at = now + left[0] if left else None
            values = {"attempts": attempts + 1, "due_at": due_at, "error": error}
            connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(values))
        return due_at

    def deliveries(self, endpoint_id: str, *, limit: int = 50) -> Sequence[WebhookDelivery]:
        """The last deliveries to an endpoint, newest first."""
        query = select(deliveries).where(deliveries.c.endpoint_id == endpoint_id)
        query = query.order_by(deliveries.c.id.desc()).limit(min(limit, settings.MAX_PAGE))
        with self._database.read() as connection:
            return [WebhookDelivery(**row._mapping) for row in connection.execute(query)]


def queue_deliveries(connection: Connection, job: Job, *, event_id: int, now: float) -> None:
    """Put a job's change of status into the outbox of its tenant, within the transaction that makes it."""
    wanted = (
        select(endpoints.c.id).where(endpoints.c.tenant == job.tenant, endpoints.c.enabled).order_by(endpoints.c.id)
    )
    places = connection.execute(wanted).scalars().all()
    if not places:
        return
    kind = f"job.{job.status}"
    body = json.dumps(
        {
            "id": f"evt_{event_id}",
            "type": kind,
            "timestamp": datetime.fromtimestamp(now, UTC).isoformat(),
            "created_at": int(now),
            "data": {"id": job.id, "object": "job", "kind": job.kind, "status": job.status, "reason": job.reason},
        }
    )
    rows = [
        {
            "id": f"msg_{event_id:016d}_{place}",
            "endpoint_id": place,
            "job_id": job.id,
            "type": kind,
            "body": body,
            "created_at": now,
            "attempts": 0,
            "due_at": now,
        }
        for place in places
    ]
    connection.execute(insert(deliveries), rows)
