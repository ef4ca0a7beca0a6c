"""Requests that come again, keys, tenants, webhooks, and facts that outlive a process."""

import base64
import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from serving.errors import IdempotencyBusy, IdempotencyConflict, NotFound, UserError
from serving.jobs.lifecycle import Lifecycle
from serving.store.audit import AuditLog
from serving.store.database import Database
from serving.store.idempotency import IDEMPOTENCY_BUSY_S, IDEMPOTENCY_KEPT_S, IdempotencyKeys, StoredAnswer
from serving.store.jobs import JobStore
from serving.store.keys import ApiKeys, TenantSettings
from serving.store.records import IdempotencyRecord, Job, StoredSupply
from serving.store.webhooks import (
    MAX_ENDPOINTS,
    SWITCHED_OFF,
    SWITCHER,
    WEBHOOK_RETRIES_S,
    WebhookEndpoint,
    Webhooks,
)
from testkit.records import NOW, new_job, new_takes

RECORD = IdempotencyRecord(tenant="ada", route="POST /v1/jobs", key="a-key", body_sha256="1" * 64)
OTHER_BODY = replace(RECORD, body_sha256="2" * 64)


def test_a_submit_that_comes_again_makes_no_second_job(database: Database) -> None:
    store = JobStore(database)
    first = store.insert(new_job(), [], actor="ada/laptop", idempotency=RECORD)
    assert store.insert(new_job(NOW + 1), [], actor="ada/laptop", idempotency=RECORD) == first
    assert store.find_request(RECORD, now=NOW + 2) == first
    assert len(store.list()) == len(store.events_after(0)) == 1


def test_the_same_key_with_another_body_is_a_conflict_and_makes_no_job(database: Database) -> None:
    store = JobStore(database)
    store.insert(new_job(), [], actor="ada/laptop", idempotency=RECORD)
    with pytest.raises(IdempotencyConflict):
        store.insert(new_job(NOW + 1), [], actor="ada/laptop", idempotency=OTHER_BODY)
    with pytest.raises(IdempotencyConflict):
        store.find_request(OTHER_BODY, now=NOW)
    assert len(store.list()) == 1


def test_keys_of_other_tenants_and_routes_are_other_keys(database: Database) -> None:
    store = JobStore(database)
    for number, record in enumerate((RECORD, replace(RECORD, tenant="bob"), replace(RECORD, route="POST /v1/videos"))):
        store.insert(new_job(NOW + number), [], actor="ada/laptop", idempotency=record)
    assert len(store.list()) == 3


def test_a_key_is_free_again_when_its_time_is_over(database: Database) -> None:
    store = JobStore(database)
    first = store.insert(new_job(), [], actor="ada/laptop", idempotency=RECORD)
    late = NOW + IDEMPOTENCY_KEPT_S
    assert store.find_request(RECORD, now=late) is None
    second = store.insert(new_job(late), [], actor="ada/laptop", idempotency=OTHER_BODY)
    assert second.id != first.id


def test_a_submit_that_comes_again_after_its_job_was_deleted_makes_no_second_job(database: Database) -> None:
    store = JobStore(database)
    first = store.insert(new_job(), [], actor="ada/laptop", idempotency=RECORD)
    store.delete(first.id, actor="ada/laptop", now=NOW)
    assert store.insert(new_job(NOW + 1), [], actor="ada/laptop", idempotency=RECORD).id == first.id
    assert store.list() == []


def test_the_same_submit_from_several_threads_at_once_makes_one_job(database: Database) -> None:
    store = JobStore(database)
    answers: list[Job] = []
    start = threading.Barrier(4)

    def submit(number: int) -> None:
        job = new_job(NOW + number)
        start.wait()
        answers.append(store.insert(job, new_takes(job), actor="ada/laptop", idempotency=RECORD))

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert {answer.id for answer in answers} == {job.id for job in store.list()}
    assert len(store.list()) == 1


def test_an_answer_is_kept_for_a_request_that_comes_again(database: Database) -> None:
    keys = IdempotencyKeys(database)
    assert keys.begin(RECORD, now=NOW) is None
    with pytest.raises(IdempotencyBusy):
        keys.begin(RECORD, now=NOW + 1)
    keys.finish(RECORD, StoredAnswer(201, {"id": "key_1"}), now=NOW + 2)
    assert keys.begin(RECORD, now=NOW + 3) == StoredAnswer(201, {"id": "key_1"})
    with pytest.raises(IdempotencyConflict):
        keys.begin(OTHER_BODY, now=NOW + 3)


def test_a_request_that_failed_or_died_may_be_tried_again(database: Database) -> None:
    keys = IdempotencyKeys(database)
    assert keys.begin(RECORD, now=NOW) is None
    keys.forget(RECORD)
    assert keys.begin(RECORD, now=NOW) is None  # and now its process is killed
    assert keys.begin(RECORD, now=NOW + IDEMPOTENCY_BUSY_S) is None


def test_of_two_threads_with_one_key_one_acts(database: Database) -> None:
    keys = IdempotencyKeys(database)
    acted: list[bool] = []
    start = threading.Barrier(4)

    def ask() -> None:
        start.wait()
        try:
            acted.append(keys.begin(RECORD, now=NOW) is None)
        except IdempotencyBusy:
            acted.append(False)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(acted) == [False, False, False, True]


def test_a_key_is_found_by_its_secret_until_it_is_revoked(database: Database) -> None:
    keys = ApiKeys(database)
    key, secret = keys.create("ada", "laptop", NOW)
    other, _ = keys.create("bob", "pc", NOW + 1)
    assert secret.startswith(f"lt_{key.id.removeprefix('key_')}_")
    assert keys.find(secret) == key
    assert key.actor == "ada/laptop"
    with pytest.raises(NotFound):
        keys.revoke(key.id, now=NOW, tenant="bob")
    assert keys.revoke(key.id, now=NOW + 2).revoked_at == NOW + 2
    assert keys.revoke(key.id, now=NOW + 3).revoked_at == NOW + 2
    assert keys.find(secret) is None
    assert [found.id for found in keys.list()] == [key.id, other.id]
    assert [found.id for found in keys.list(tenant="bob")] == [other.id]


def test_a_wrong_secret_finds_no_key(database: Database) -> None:
    keys = ApiKeys(database)
    key, secret = keys.create("ada", "laptop", NOW)
    identity = key.id.removeprefix("key_")
    wrong = ["", "lt", "lt_", "lt__", f"lt_{identity}", f"lt_{identity}_", secret[:-1], secret + "x", secret.upper()]
    for one in [*wrong, "sk_" + secret[3:], "lt_\0_x", "lt_' OR 1=1 --_x", "lt_\ud800_x", "x" * 100_000]:
        assert keys.find(one) is None, one


def test_no_secret_of_a_key_is_stored(database: Database) -> None:
    _, secret = ApiKeys(database).create("ada", "laptop", NOW)
    with database.read() as connection:
        row = connection.exec_driver_sql("SELECT * FROM api_keys").one()
    assert secret.split("_", 2)[2] not in str(tuple(row))


def test_a_tenant_has_the_settings_that_were_put(database: Database) -> None:
    keys = ApiKeys(database)
    assert keys.tenant("ada") == TenantSettings("ada")
    for weight in (2.0, 3.0):
        keys.put_tenant(TenantSettings("ada", weight, requests_per_minute=5), now=NOW)
    assert keys.tenants() == {"ada": TenantSettings("ada", 3.0, requests_per_minute=5)}
    with pytest.raises(ValueError, match="weight"):
        keys.put_tenant(TenantSettings("ada", 0.0), now=NOW)


def test_changes_of_a_job_wait_for_delivery_to_its_tenants_endpoints(database: Database) -> None:
    webhooks, store, lifecycle = Webhooks(database), JobStore(database), Lifecycle(database)
    endpoint = webhooks.add(tenant="ada", url="https://example.com/a", now=NOW)
    webhooks.add(tenant="bob", url="https://example.com/c", now=NOW)
    job = store.insert(new_job(), [], actor="ada/laptop")
    lifecycle.apply(job.id, "start", reason="first calls given out", now=NOW)
    lifecycle.apply(job.id, "cancel", reason="asked", now=NOW + 1)
    due = claim_due(webhooks, now=NOW + 1, hold_s=30)
    assert [(delivery.type, place) for delivery, place in due] == [
        ("job.in_progress", endpoint),
        ("job.cancelled", endpoint),
    ]
    body = json.loads(due[1][0].body)
    assert (body["type"], body["data"]["id"], body["data"]["status"]) == ("job.cancelled", job.id, "cancelled")
    assert len(base64.b64decode(endpoint.secret.removeprefix("whsec_"))) == 32


def claim_due(webhooks: Webhooks, *, now: float, hold_s: float, **more: Any) -> Sequence[Any]:
    bounds = {"limit": 10, "per_endpoint": 9, "per_tenant": 9, **more}
    return webhooks.claim_due(now=now, hold_s=hold_s, **bounds)


def queue_many(database: Database, *, tenant: str, jobs: int) -> WebhookEndpoint:
    """As many deliveries to an endpoint of a tenant, the oldest first."""
    endpoint = Webhooks(database).add(tenant=tenant, url=f"https://example.com/{tenant}", now=NOW)
    store, lifecycle = JobStore(database), Lifecycle(database)
    for number in range(jobs):
        job = store.insert(new_job(tenant=tenant), [], actor=f"{tenant}/laptop")
        lifecycle.apply(job.id, "cancel", reason="asked", now=NOW + number)
    return endpoint


def test_a_busy_tenants_deliveries_leave_room_for_others(database: Database) -> None:
    webhooks = Webhooks(database)
    busy = queue_many(database, tenant="ada", jobs=12)
    quiet = queue_many(database, tenant="bob", jobs=1)

    def claimed(**more: Any) -> Counter[str]:
        return Counter(endpoint.id for _, endpoint in claim_due(webhooks, now=NOW + 100, hold_s=30, **more))

    assert claimed(per_endpoint=2, out=[busy]) == {busy.id: 1, quiet.id: 1}, "one is out already"
    assert claimed(per_endpoint=2) == {busy.id: 2}
    assert claimed(per_tenant=3) == {busy.id: 3}
    assert claimed(limit=4) == {busy.id: 4}
    assert claimed(per_endpoint=2, out=[busy, busy]) == {}


def test_endpoints_are_served_in_turn(database: Database) -> None:
    webhooks = Webhooks(database)
    queue_many(database, tenant="ada", jobs=5)
    late = queue_many(database, tenant="bob", jobs=1)
    found = claim_due(webhooks, now=NOW + 100, hold_s=30, limit=2)
    assert late.id in [endpoint.id for _, endpoint in found], "the one of bob comes before the second of ada"


def test_an_endpoint_that_takes_nothing_is_switched_off_and_its_owner_is_told(database: Database) -> None:
    webhooks = Webhooks(database)
    endpoint = queue_many(database, tenant="ada", jobs=2)
    (first, _), (second, _) = claim_due(webhooks, now=NOW + 1, hold_s=30)
    for number in range(len(WEBHOOK_RETRIES_S) + 1):
        webhooks.failed(first.id, error="500", now=NOW + 10 + number)
    (switched,) = webhooks.list(tenant="ada")
    assert switched.enabled is False
    assert {told.error for told in webhooks.deliveries(endpoint.id)} == {"500", SWITCHED_OFF}
    assert claim_due(webhooks, now=NOW + 1e6, hold_s=30) == [], "nor is it told what was waiting"
    (entry,) = [one for one in AuditLog(database).list(tenant="ada") if one.action == "disable_webhook"]
    assert (entry.target, entry.actor, entry.detail) == (endpoint.id, SWITCHER, SWITCHED_OFF)
    lifecycle, store = Lifecycle(database), JobStore(database)
    lifecycle.apply(store.list(tenant="ada")[0].id, "retry", reason="asked", now=NOW + 50)
    assert len(webhooks.deliveries(endpoint.id)) == 2, "nothing more is queued for it"
    with pytest.raises(NotFound):
        webhooks.enable(endpoint.id, tenant="bob")
    assert webhooks.enable(endpoint.id, tenant="ada").enabled is True
    assert second.endpoint_id == endpoint.id


def test_an_endpoint_that_took_something_meanwhile_stays_on(database: Database) -> None:
    webhooks = Webhooks(database)
    queue_many(database, tenant="ada", jobs=2)
    (first, _), (second, _) = claim_due(webhooks, now=NOW + 1, hold_s=30)
    webhooks.delivered(second.id, now=NOW + 5)
    for number in range(len(WEBHOOK_RETRIES_S) + 1):
        webhooks.failed(first.id, error="500", now=NOW + 10 + number)
    assert webhooks.list(tenant="ada")[0].enabled is True


def test_what_a_webhook_tells_of_a_failure_has_none_of_the_farms_insides(database: Database) -> None:
    webhooks, store, lifecycle = Webhooks(database), JobStore(database), Lifecycle(database)
    webhooks.add(tenant="ada", url="https://example.com/a", now=NOW)
    job = store.insert(new_job(), [], actor="ada/laptop")
    lifecycle.apply(job.id, "fail", reason="OSError: /srv/weights.bin at 10.0.0.1:80", now=NOW)
    [(delivery, _)] = claim_due(webhooks, now=NOW, hold_s=30)
    assert json.loads(delivery.body)["data"]["reason"] == "OSError: [path] at [address]"


def test_a_delivery_is_held_by_one_and_comes_again_if_nothing_is_heard_of_it(database: Database) -> None:
    webhooks, delivery_id = queue_one(database)
    assert [found.id for found, _ in claim_due(webhooks, now=NOW, hold_s=30)] == [delivery_id]
    assert claim_due(webhooks, now=NOW + 29, hold_s=30) == []
    assert [found.id for found, _ in claim_due(webhooks, now=NOW + 30, hold_s=30)] == [delivery_id]
    webhooks.delivered(delivery_id, now=NOW + 31)
    assert claim_due(webhooks, now=NOW + 1e6, hold_s=30) == []


def test_a_delivery_that_fails_is_tried_ever_later_and_then_given_up(database: Database) -> None:
    webhooks, delivery_id = queue_one(database)
    now = NOW
    for wait_s in WEBHOOK_RETRIES_S:
        [(delivery, endpoint)] = claim_due(webhooks, now=now, hold_s=1)
        assert delivery.id == delivery_id
        assert webhooks.failed(delivery_id, error="500", now=now) == now + wait_s
        assert claim_due(webhooks, now=now + wait_s - 0.1, hold_s=1) == []
        now += wait_s
    assert webhooks.failed(delivery_id, error="500", now=now) is None
    assert claim_due(webhooks, now=now + 1e9, hold_s=1) == []
    [last] = webhooks.deliveries(endpoint.id)
    assert (last.attempts, last.error, last.due_at) == (len(WEBHOOK_RETRIES_S) + 1, "500", None)


def test_an_endpoint_goes_with_its_deliveries_and_only_for_its_tenant(database: Database) -> None:
    webhooks, delivery_id = queue_one(database)
    [endpoint] = webhooks.list(tenant="ada")
    with pytest.raises(NotFound):
        webhooks.remove(endpoint.id, tenant="bob")
    assert webhooks.get(endpoint.id, tenant="bob") is None
    webhooks.remove(endpoint.id, tenant="ada")
    assert claim_due(webhooks, now=NOW, hold_s=30) == []
    assert webhooks.failed(delivery_id, error="gone", now=NOW) is None


def test_a_tenant_has_a_bounded_number_of_endpoints(database: Database) -> None:
    webhooks = Webhooks(database)
    for number in range(MAX_ENDPOINTS):
        webhooks.add(tenant="ada", url=f"https://example.com/{number}", now=NOW)
    with pytest.raises(UserError, match="remove one"):
        webhooks.add(tenant="ada", url="https://example.com/more", now=NOW)


def queue_one(database: Database) -> tuple[Webhooks, str]:
    webhooks, store = Webhooks(database), JobStore(database)
    endpoint = webhooks.add(tenant="ada", url="https://example.com/a", now=NOW)
    job = store.insert(new_job(), [], actor="ada/laptop")
    Lifecycle(database).apply(job.id, "cancel", reason="asked", now=NOW)
    return webhooks, webhooks.deliveries(endpoint.id)[0].id


def test_facts_are_kept_in_place_of_those_before(database: Database) -> None:
    store = JobStore(database)
    assert store.recall("costs", "calls") is None
    for value in ({"a": 1.5}, {"b": [1, None]}):
        store.learn("costs", "calls", value, now=NOW)
    assert store.recall("costs", "calls") == {"b": [1, None]}
    store.learn("supply", "default", {"gangs_ready": 2, "backlog_gpu_s": 9.5, "at": NOW}, now=NOW)
    assert store.pool_supply("default") == StoredSupply(2, 9.5, NOW)


def test_every_director_has_a_generation_of_its_own(database: Database) -> None:
    store = JobStore(database)
    assert store.generation() == 0
    given: list[int] = []
    threads = [threading.Thread(target=lambda: given.append(store.next_generation(now=NOW))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == [1, 2, 3, 4]
    assert store.generation() == 4
