"""Who may do what: keys, tenants, webhook endpoints, the audit log."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse

from serving.api.addresses import check_address
from serving.api.caller import Admin, AnyCaller
from serving.api.errors import not_found
from serving.api.repeats import TheRequest, answer_once
from serving.api.services import TheServices
from serving.api.wire.answers import (
    ApiKey,
    ApiKeyList,
    AuditList,
    Deleted,
    DeliveryList,
    Tenant,
    TenantList,
    Webhook,
    WebhookList,
)
from serving.api.wire.job_json import Json, list_json, whole
from serving.api.wire.openapi import failures
from serving.api.wire.requests import NewKey, NewWebhook, TenantName, TenantSettings
from serving.settings import MAX_LIST
from serving.store import keys as stored_keys
from serving.store.audit import AuditEntry
from serving.store.webhooks import WebhookDelivery, WebhookEndpoint

router = APIRouter(tags=["access"])


@router.get("/v1/keys", summary="List keys", response_model=ApiKeyList)
def list_keys(
    caller: Admin,
    services: TheServices,
    tenant: Annotated[str | None, Query(max_length=64)] = None,
) -> JSONResponse:
    """All keys or a tenant's, without their secrets."""
    return _list([_key_json(key) for key in services.keys.list(tenant=tenant)])


@router.post("/v1/keys", status_code=201, summary="Make a key", response_model=ApiKey, responses=failures(409))
def create_key(body: NewKey, caller: Admin, incoming: TheRequest, services: TheServices) -> JSONResponse:
    """A new key. Its secret is in this answer and nowhere else; a repeated request gets the answer without it."""

    def act() -> Json:
        now = services.clock()
        key, secret = services.keys.create(body.tenant, body.name or "key", now)
        services.audit.add(AuditEntry(now, body.tenant, caller.actor, "create_key", key.id, detail=key.name))
        return {**_key_json(key), "secret": secret}

    return answer_once(services, incoming.record, act, status=201)


@router.delete("/v1/keys/{key_id}", summary="Revoke a key", response_model=ApiKey, responses=failures(404))
def revoke_key(key_id: str, caller: Admin, services: TheServices) -> JSONResponse:
    """Ends a key at once. It stays in the list."""
    now = services.clock()
    key = services.keys.revoke(key_id, now=now)
    services.audit.add(AuditEntry(now, key.tenant, caller.actor, "revoke_key", key.id))
    return JSONResponse(_key_json(key))


@router.get("/v1/tenants", summary="List tenants with settings", response_model=TenantList)
def list_tenants(caller: Admin, services: TheServices) -> JSONResponse:
    """Tenants for which something was set; all others have the farm's defaults."""
    return _list([_tenant_json(tenant) for tenant in services.keys.tenants().values()])


@router.put("/v1/tenants/{name}", summary="Set a tenant's share and limits", response_model=Tenant)
def put_tenant(name: TenantName, body: TenantSettings, caller: Admin, services: TheServices) -> JSONResponse:
    """Replaces all settings of a tenant."""
    now = services.clock()
    tenant = stored_keys.TenantSettings(name, **body.model_dump())
    services.keys.put_tenant(tenant, now=now)
    services.audit.add(AuditEntry(now, name, caller.actor, "set_tenant", name, detail=body.model_dump_json()))
    return JSONResponse(_tenant_json(tenant))


@router.get("/v1/webhooks", summary="List webhook endpoints", response_model=WebhookList)
def list_webhooks(caller: AnyCaller, services: TheServices) -> JSONResponse:
    """The caller's endpoints, without their secrets."""
    return _list([_webhook_json(endpoint) for endpoint in services.webhooks.list(tenant=caller.tenant)])


@router.post(
    "/v1/webhooks",
    status_code=201,
    summary="Add a webhook endpoint",
    response_model=Webhook,
    responses=failures(409),
)
def create_webhook(body: NewWebhook, caller: AnyCaller, incoming: TheRequest, services: TheServices) -> JSONResponse:
    """Tells an address of every change of a job's status, signed as Standard Webhooks has it with the secret in this
    answer. Addresses inside private networks are refused unless the farm allows them."""

    def act() -> Json:
        check_address(body.url, allow_private=services.config.webhooks_allow_private)
        now = services.clock()
        endpoint = services.webhooks.add(tenant=caller.tenant, url=body.url, now=now)
        services.audit.add(AuditEntry(now, caller.tenant, caller.actor, "create_webhook", endpoint.id))
        return {**_webhook_json(endpoint), "secret": endpoint.secret}

    return answer_once(services, incoming.record, act, status=201)


@router.delete(
    "/v1/webhooks/{webhook_id}", summary="Remove a webhook endpoint", response_model=Deleted, responses=failures(404)
)
def delete_webhook(webhook_id: str, caller: AnyCaller, services: TheServices) -> JSONResponse:
    """Forgets an endpoint and what it was still to be told."""
    services.webhooks.remove(webhook_id, tenant=caller.tenant)
    now = services.clock()
    services.audit.add(AuditEntry(now, caller.tenant, caller.actor, "delete_webhook", webhook_id))
    return JSONResponse({"id": webhook_id, "object": "webhook.deleted", "deleted": True})


@router.get(
    "/v1/webhooks/{webhook_id}/deliveries",
    summary="What an endpoint was told",
    response_model=DeliveryList,
    responses=failures(404),
)
def list_deliveries(
    webhook_id: str,
    caller: AnyCaller,
    services: TheServices,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
) -> JSONResponse:
    """The last messages, newest first, and how each went."""
    if services.webhooks.get(webhook_id, tenant=caller.tenant) is None:
        raise not_found(f"webhook {webhook_id}")
    return _list([_delivery_json(each) for each in services.webhooks.deliveries(webhook_id, limit=limit)])


@router.get("/v1/audit", summary="Read the audit log", response_model=AuditList)
def list_audit(
    caller: AnyCaller,
    services: TheServices,
    before: Annotated[int | None, Query(ge=0, le=2**53, description="`last_id` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    target: Annotated[str | None, Query(max_length=64, description="Only what was done to this.")] = None,
) -> JSONResponse:
    """Who did what, newest first: to one's own, and for administrators to anything."""
    found = services.audit.list(tenant=caller.scope, target=target, before=before, limit=limit + 1)
    data = [_audit_json(entry) for entry in found[:limit]]
    return JSONResponse(list_json(data, has_more=len(found) > limit))


def _list(data: Sequence[Json]) -> JSONResponse:
    return JSONResponse({"object": "list", "data": list(data)})


def _key_json(key: stored_keys.ApiKey) -> Json:
    return {
        "id": key.id,
        "object": "api_key",
        "tenant": key.tenant,
        "name": key.name,
        "created_at": whole(key.created_at),
        "revoked_at": whole(key.revoked_at),
    }


def _tenant_json(tenant: stored_keys.TenantSettings) -> Json:
    return {
        "name": tenant.name,
        "object": "tenant",
        "weight": tenant.weight,
        "max_concurrent_jobs": tenant.max_concurrent_jobs,
        "max_concurrent_calls": tenant.max_concurrent_calls,
        "requests_per_minute": tenant.requests_per_minute,
    }


def _webhook_json(endpoint: WebhookEndpoint) -> Json:
    return {
        "id": endpoint.id,
        "object": "webhook",
        "tenant": endpoint.tenant,
        "url": endpoint.url,
        "enabled": endpoint.enabled,
        "created_at": whole(endpoint.created_at),
    }


def _delivery_json(delivery: WebhookDelivery) -> Json:
    return {
        "id": delivery.id,
        "object": "delivery",
        "job": delivery.job_id,
        "type": delivery.type,
        "attempts": delivery.attempts,
        "created_at": whole(delivery.created_at),
        "due_at": whole(delivery.due_at),
        "delivered_at": whole(delivery.delivered_at),
        "error": delivery.error,
    }


def _audit_json(entry: AuditEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "at": whole(entry.at),
        "tenant": entry.tenant,
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "result": entry.result,
        "detail": entry.detail,
    }
