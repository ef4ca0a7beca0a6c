"""Keys, tenants, webhooks and the audit log as the API answers them: made from the store's records as they are."""

from typing import Literal

from pydantic import AliasChoices, Field

from serving.api.answer import Answer, Listed, Page, WholeSeconds, optional
from serving.store.webhooks import WebhookEndpoint


class ApiKey(Answer):
    """A key; its secret is shown once, by the request that makes it."""

    id: str
    object: Literal["api_key"] = "api_key"
    tenant: str
    name: str
    created_at: WholeSeconds
    revoked_at: WholeSeconds | None
    secret: str | None = optional()


class ApiKeyList(Listed):
    """Keys, those that were revoked too."""

    data: list[ApiKey]


class Tenant(Answer):
    """A tenant's share and limits; null is the farm's default."""

    name: str
    object: Literal["tenant"] = "tenant"
    weight: float
    max_concurrent_jobs: int | None
    max_concurrent_calls: int | None
    requests_per_minute: int | None


class TenantList(Listed):
    """Tenants with settings of their own."""

    data: list[Tenant]


class Webhook(Answer):
    """An address that is told of a tenant's jobs; its secret is shown once, by the request that makes it."""

    id: str
    object: Literal["webhook"] = "webhook"
    tenant: str
    url: str
    enabled: bool
    created_at: WholeSeconds
    secret: str | None = optional()

    @classmethod
    def of(cls, endpoint: WebhookEndpoint, *, secret: str | None = None) -> "Webhook":
        """An endpoint of the store's, whose secret is only told if it is given."""
        return cls(**vars(endpoint) | {"secret": secret})


class WebhookList(Listed):
    """Webhook endpoints of a tenant."""

    data: list[Webhook]


class Delivery(Answer):
    """A message to a webhook endpoint."""

    id: str
    object: Literal["delivery"] = "delivery"
    job: str = Field(validation_alias=AliasChoices("job_id", "job"))
    type: str
    attempts: int = Field(description="Tries that failed.")
    created_at: WholeSeconds
    due_at: WholeSeconds | None = Field(description="When it is tried next; null if nothing more will be tried.")
    delivered_at: WholeSeconds | None
    error: str | None


class DeliveryList(Listed):
    """The last messages to an endpoint."""

    data: list[Delivery]


class AuditEntry(Answer):
    """Something that a person did."""

    id: int
    at: WholeSeconds
    tenant: str
    actor: str
    action: str
    target: str
    result: str
    detail: str


class AuditList(Page):
    """A page of the audit log, newest first. The next page begins before `last_id`."""

    data: list[AuditEntry]
    first_id: int | None
    last_id: int | None
