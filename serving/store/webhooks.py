"""Webhooks: where tenants want to be told of their jobs, and the outbox of what they are still to be told.

A delivery is written in the transaction that changes the job, so none is lost and none is of a change that never was.
Whoever delivers (serving/api) claims due ones, signs and posts their body as it stands, and says how it went. One may
arrive twice, but never with another id or body. Secrets are kept as they are, because signing needs them.
"""

import base64
import json
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from serving import settings
from serving.errors import NotFound, UserError
from serving.store.audit import AuditEntry, write_audit
from serving.store.database import Database
from serving.store.ids import new_id
from serving.store.insides import hide_insides
from serving.store.records import Job
from serving.store.tables import webhook_deliveries as deliveries
from serving.store.tables import webhook_endpoints as endpoints

WEBHOOK_RETRIES_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
"""Seconds between a failed delivery of a webhook and the next try; after the last it is given up."""

MAX_ENDPOINTS = 20
"""Webhook endpoints of one tenant."""

SWITCHER = "farm"
"""The actor in the audit log that switches an endpoint off."""

SWITCHED_OFF = "the endpoint is switched off: it has taken nothing for as long as a delivery is tried"
"""What the owner of an endpoint is told of its deliveries then, and in the audit log."""


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

    def enable(self, endpoint_id: str, *, tenant: str) -> WebhookEndpoint:
        """Go on telling an endpoint that was switched off, but not what happened meanwhile. Raises NotFound."""
        theirs = (endpoints.c.id == endpoint_id, endpoints.c.tenant == tenant)
        with self._database.begin() as connection:
            row = connection.execute(update(endpoints).where(*theirs).values(enabled=True).returning(endpoints)).first()
        if row is None:
            raise NotFound(f"there is no webhook endpoint {endpoint_id}")
        return WebhookEndpoint(**row._mapping)

    def remove(self, endpoint_id: str, *, tenant: str | None = None) -> None:
        """Forget an endpoint and its deliveries. Raises NotFound."""
        statement = delete(endpoints).where(endpoints.c.id == endpoint_id)
        if tenant is not None:
            statement = statement.where(endpoints.c.tenant == tenant)
        with self._database.begin() as connection:
            if connection.execute(statement).rowcount == 0:
                raise NotFound(f"there is no webhook endpoint {endpoint_id}")

    # ------------------------------------------------------------------------------------------------ the outbox

    def claim_due(
        self,
        *,
        now: float,
        hold_s: float,
        limit: int,
        per_endpoint: int,
        per_tenant: int,
        out: Sequence[WebhookEndpoint] = (),
    ) -> Sequence[tuple[WebhookDelivery, WebhookEndpoint]]:
        """Deliveries that are due: of every endpoint the oldest first, the endpoints in turn.

        At most `limit` in all, and with those that are `out` already (an endpoint for each) at most `per_endpoint` of
        an endpoint and `per_tenant` of a tenant. Nobody else gets them for `hold_s`; one whose deliverer says nothing
        in that time comes again.
        """
        with self._database.begin() as connection:
            ids = _choose_due(
                connection, now=now, limit=limit, per_endpoint=per_endpoint, per_tenant=per_tenant, out=out
            )
            query = select(deliveries).where(deliveries.c.id.in_(ids), deliveries.c.due_at <= now)
            query = query.order_by(deliveries.c.due_at, deliveries.c.id).with_for_update(skip_locked=True)
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
        """The endpoint did not take it; returns when it is tried next, None if it is given up.

        An endpoint that has taken nothing since a delivery was written that is now given up is switched off; its owner
        finds so in the audit log.
        """
        with self._database.begin() as connection:
            row = connection.execute(select(deliveries).where(deliveries.c.id == delivery_id).with_for_update()).first()
            if row is None:  # the endpoint was removed meanwhile
                return None
            left = WEBHOOK_RETRIES_S[row.attempts :]
            due_at = now + left[0] if left else None
            values = {"attempts": row.attempts + 1, "due_at": due_at, "error": error}
            connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(values))
            if due_at is None and not _took_since(connection, row.endpoint_id, row.created_at):
                _switch_off(connection, row.endpoint_id, now=now)
        return due_at

    def deliveries(self, endpoint_id: str, *, limit: int = 50) -> Sequence[WebhookDelivery]:
        """The last deliveries to an endpoint, newest first."""
        query = select(deliveries).where(deliveries.c.endpoint_id == endpoint_id)
        query = query.order_by(deliveries.c.id.desc()).limit(min(limit, settings.MAX_PAGE))
        with self._database.read() as connection:
            return [WebhookDelivery(**row._mapping) for row in connection.execute(query)]


def _choose_due(
    connection: Connection,
    *,
    now: float,
    limit: int,
    per_endpoint: int,
    per_tenant: int,
    out: Sequence[WebhookEndpoint],
) -> Sequence[str]:
    """Ids of the deliveries to claim: the oldest of every endpoint come before the second of any."""
    turn = func.row_number().over(
        partition_by=deliveries.c.endpoint_id, order_by=(deliveries.c.due_at, deliveries.c.id)
    )
    columns = (deliveries.c.id, deliveries.c.endpoint_id, deliveries.c.due_at, endpoints.c.tenant)
    query = select(*columns, turn.label("turn")).join_from(deliveries, endpoints)
    due = query.where(deliveries.c.due_at <= now).subquery()
    in_turn = select(due).where(due.c.turn <= per_endpoint).order_by(due.c.turn, due.c.due_at, due.c.id)
    of_endpoint, of_tenant = Counter(one.id for one in out), Counter(one.tenant for one in out)
    chosen: list[str] = []
    for row in connection.execute(in_turn):
        if len(chosen) < limit and of_endpoint[row.endpoint_id] < per_endpoint and of_tenant[row.tenant] < per_tenant:
            chosen.append(row.id)
            of_endpoint[row.endpoint_id] += 1
            of_tenant[row.tenant] += 1
    return chosen


def _took_since(connection: Connection, endpoint_id: str, at: float) -> bool:
    """Whether an endpoint has taken a delivery since then."""
    theirs = (deliveries.c.endpoint_id == endpoint_id, deliveries.c.delivered_at >= at)
    return connection.execute(select(deliveries.c.id).where(*theirs).limit(1)).first() is not None


def _switch_off(connection: Connection, endpoint_id: str, *, now: float) -> None:
    """Tell an endpoint nothing more, and its owner that, once."""
    is_on = (endpoints.c.id == endpoint_id, endpoints.c.enabled)
    changed = update(endpoints).where(*is_on).values(enabled=False).returning(endpoints.c.tenant)
    tenant = connection.execute(changed).scalar_one_or_none()
    if tenant is None:
        return
    waiting = (deliveries.c.endpoint_id == endpoint_id, deliveries.c.due_at.is_not(None))
    connection.execute(update(deliveries).where(*waiting).values(due_at=None, error=SWITCHED_OFF))
    write_audit(connection, AuditEntry(now, tenant, SWITCHER, "disable_webhook", endpoint_id, detail=SWITCHED_OFF))


def queue_deliveries(connection: Connection, job: Job, *, event_id: int, now: float) -> None:
    """Put a job's change of status into the outbox of its tenant, within the transaction that makes it."""
    wanted = (
        select(endpoints.c.id).where(endpoints.c.tenant == job.tenant, endpoints.c.enabled).order_by(endpoints.c.id)
    )
    places = connection.execute(wanted).scalars().all()
    if not places:
        return
    kind, reason = f"job.{job.status}", hide_insides(job.reason)
    body = json.dumps(
        {
            "id": f"evt_{event_id}",
            "type": kind,
            "timestamp": datetime.fromtimestamp(now, UTC).isoformat(),
            "created_at": int(now),
            "data": {"id": job.id, "object": "job", "kind": job.kind, "status": job.status, "reason": reason},
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
