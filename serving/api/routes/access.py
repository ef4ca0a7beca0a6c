"""Who may do what: keys, tenants, webhook endpoints, the audit log."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from serving.api.addresses import check_address
from serving.api.answer import Deleted
from serving.api.caller import Admin, AnyCaller
from serving.api.errors import not_found
from serving.api.repeats import TheRequest, answer_once
from serving.api.services import TheServices
from serving.api.wire.access import (
    ApiKey,
    ApiKeyList,
    AuditEntry,
    AuditList,
    Delivery,
    DeliveryList,
    Tenant,
    TenantList,
    Webhook,
    WebhookList,
)
from serving.api.wire.openapi import failures
from serving.api.wire.reading import StrictRoute
from serving.api.wire.requests import NewKey, NewWebhook, TenantName, TenantSettings
from serving.settings import MAX_LIST
from serving.store import keys as stored_keys
from serving.store.audit import AuditEntry as AuditRecord

router = APIRouter(tags=["access"], route_class=StrictRoute)


@router.get("/v1/keys", summary="List keys")
def list_keys(
    caller: Admin,
    services: TheServices,
    tenant: Annotated[str | None, Query(max_length=64)] = None,
) -> ApiKeyList:
    """All keys or a tenant's, without their secrets."""
    return ApiKeyList(data=[ApiKey.model_validate(key) for key in services.keys.list(tenant=tenant)])


@router.post("/v1/keys", status_code=201, summary="Make a key", response_model=ApiKey, responses=failures(409))
def create_key(body: NewKey, caller: Admin, incoming: TheRequest, services: TheServices) -> Response:
    """A new key. Its secret is in this answer and nowhere else; a repeated request gets the answer without it."""

    def act() -> ApiKey:
        now = services.clock()
        key, secret = services.keys.create(body.tenant, body.name or "key", now)
        services.audit.add(AuditRecord(now, body.tenant, caller.actor, "create_key", key.id, detail=key.name))
        return ApiKey(**vars(key), secret=secret)

    return answer_once(services, incoming.record, act, status=201)


@router.delete("/v1/keys/{key_id}", summary="Revoke a key", responses=failures(404))
def revoke_key(key_id: str, caller: Admin, services: TheServices) -> ApiKey:
    """Ends a key at once. It stays in the list."""
    now = services.clock()
    key = services.keys.revoke(key_id, now=now)
    services.audit.add(AuditRecord(now, key.tenant, caller.actor, "revoke_key", key.id))
    return ApiKey.model_validate(key)


@router.get("/v1/tenants", summary="List tenants with settings")
def list_tenants(caller: Admin, services: TheServices) -> TenantList:
    """Tenants for which something was set; all others have the farm's defaults."""
    return TenantList(data=[Tenant.model_validate(tenant) for tenant in services.keys.tenants().values()])


@router.put("/v1/tenants/{name}", summary="Set a tenant's share and limits")
def put_tenant(name: TenantName, body: TenantSettings, caller: Admin, services: TheServices) -> Tenant:
    """Replaces all settings of a tenant."""
    now = services.clock()
    tenant = stored_keys.TenantSettings(name, **body.model_dump())
    services.keys.put_tenant(tenant, now=now)
    services.audit.add(AuditRecord(now, name, caller.actor, "set_tenant", name, detail=body.model_dump_json()))
    return Tenant.model_validate(tenant)


@router.get("/v1/webhooks", summary="List webhook endpoints")
def list_webhooks(caller: AnyCaller, services: TheServices) -> WebhookList:
    """The caller's endpoints, without their secrets."""
    return WebhookList(data=[Webhook.of(endpoint) for endpoint in services.webhooks.list(tenant=caller.tenant)])


@router.post(
    "/v1/webhooks",
    status_code=201,
    summary="Add a webhook endpoint",
    response_model=Webhook,
    responses=failures(409),
)
def create_webhook(body: NewWebhook, caller: AnyCaller, incoming: TheRequest, services: TheServices) -> Response:
    """Tells an address of every change of a job's status, signed as Standard Webhooks has it with the secret in this
    answer. Addresses inside private networks are refused unless the farm allows them."""

    def act() -> Webhook:
        check_address(body.url, allow_private=services.config.webhooks_allow_private)
        now = services.clock()
        endpoint = services.webhooks.add(tenant=caller.tenant, url=body.url, now=now)
        services.audit.add(AuditRecord(now, caller.tenant, caller.actor, "create_webhook", endpoint.id))
        return Webhook.of(endpoint, secret=endpoint.secret)

    return answer_once(services, incoming.record, act, status=201)


@router.post(
    "/v1/webhooks/{webhook_id}/enable",
    summary="Enable a webhook endpoint",
    response_model=Webhook,
    responses=failures(404, 409),
)
def enable_webhook(webhook_id: str, caller: AnyCaller, incoming: TheRequest, services: TheServices) -> Response:
    """Goes on telling an endpoint that the farm has switched off because it took nothing for as long as a delivery is
    tried, about a day. What happened meanwhile it is never told."""

    def act() -> Webhook:
        endpoint = services.webhooks.enable(webhook_id, tenant=caller.tenant)
        now = services.clock()
        services.audit.add(AuditRecord(now, caller.tenant, caller.actor, "enable_webhook", webhook_id))
        return Webhook.of(endpoint)

    return answer_once(services, incoming.record, act)


@router.delete("/v1/webhooks/{webhook_id}", summary="Remove a webhook endpoint", responses=failures(404))
def delete_webhook(webhook_id: str, caller: AnyCaller, services: TheServices) -> Deleted:
    """Forgets an endpoint and what it was still to be told."""
    services.webhooks.remove(webhook_id, tenant=caller.tenant)
    now = services.clock()
    services.audit.add(AuditRecord(now, caller.tenant, caller.actor, "delete_webhook", webhook_id))
    return Deleted(id=webhook_id, object="webhook.deleted")


@router.get(
    "/v1/webhooks/{webhook_id}/deliveries",
    summary="What an endpoint was told",
    responses=failures(404),
)
def list_deliveries(
    webhook_id: str,
    caller: AnyCaller,
    services: TheServices,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
) -> DeliveryList:
    """The last messages, newest first, and how each went."""
    if services.webhooks.get(webhook_id, tenant=caller.tenant) is None:
        raise not_found(f"webhook {webhook_id}")
    found = services.webhooks.deliveries(webhook_id, limit=limit)
    return DeliveryList(data=[Delivery.model_validate(delivery) for delivery in found])


@router.get("/v1/audit", summary="Read the audit log")
def list_audit(
    caller: AnyCaller,
    services: TheServices,
    before: Annotated[int | None, Query(ge=0, le=2**53, description="`last_id` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    target: Annotated[str | None, Query(max_length=64, description="Only what was done to this.")] = None,
) -> AuditList:
    """Who did what, newest first: to one's own, and for administrators to anything."""
    found = services.audit.list(tenant=caller.scope, target=target, before=before, limit=limit + 1)
    data = [AuditEntry.model_validate(entry) for entry in found[:limit]]
    return AuditList.of(data, has_more=len(found) > limit)
