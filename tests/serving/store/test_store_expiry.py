from serving import settings
from serving.jobs.lifecycle import Lifecycle
from serving.store.audit import AuditEntry, AuditLog
from serving.store.database import Database
from serving.store.idempotency import IDEMPOTENCY_BUSY_S, IdempotencyKeys
from serving.store.jobs import JobStore
from serving.store.records import IdempotencyRecord
from serving.store.row_expiry import AUDIT_KEPT_S, WEBHOOKS_KEPT_S, forget_old_rows
from serving.store.webhooks import Webhooks
from testkit.records import NOW, new_job


def test_events_of_jobs_that_are_over_are_forgotten_and_others_kept(database: Database) -> None:
    store = JobStore(database)
    live, over = (store.insert(new_job(NOW + number), [], actor="longtake") for number in range(2))
    Lifecycle(database).apply(over.id, "cancel", reason="asked", now=NOW)
    late = NOW + settings.EVENTS_KEPT_S + 2
    newest = store.last_event_id()
    assert forget_old_rows(database, now=late, events_kept_s=None) == 0
    assert forget_old_rows(database, now=NOW + 1) == 0
    assert forget_old_rows(database, now=late) == 2
    assert [event.job_id for event in store.events_after(0)] == [live.id]
    assert store.get(over.id) is not None
    store.note(live.id, kind="retried", reason="a gang died", now=late)
    assert store.last_event_id() > newest  # no id is given twice


def test_more_rows_are_forgotten_than_go_at_once(database: Database) -> None:
    keys = IdempotencyKeys(database)
    for number in range(settings.MAX_BATCH + 3):
        keys.begin(IdempotencyRecord("ada", "POST /v1/keys", f"key-{number}", "1" * 64), now=NOW)
    assert forget_old_rows(database, now=NOW + IDEMPOTENCY_BUSY_S - 1) == 0
    assert forget_old_rows(database, now=NOW + IDEMPOTENCY_BUSY_S) == settings.MAX_BATCH + 3


def test_deliveries_are_forgotten_when_nothing_more_will_be_tried(database: Database) -> None:
    store, webhooks = JobStore(database), Webhooks(database)
    endpoint = webhooks.add(tenant="ada", url="https://example.com/hook", now=NOW)
    for number in range(2):
        job = store.insert(new_job(NOW + number), [], actor="longtake")
        Lifecycle(database).apply(job.id, "pause", reason="asked", now=NOW)
    waiting, done = webhooks.deliveries(endpoint.id)
    webhooks.delivered(done.id, now=NOW)
    assert forget_old_rows(database, now=NOW + WEBHOOKS_KEPT_S) == 1
    assert [delivery.id for delivery in webhooks.deliveries(endpoint.id)] == [waiting.id]


def test_the_audit_log_is_kept_for_a_year(database: Database) -> None:
    log = AuditLog(database)
    log.add(AuditEntry(NOW, "ada", "ada/laptop", "revoke", "key_1"))
    assert forget_old_rows(database, now=NOW + 366 * 86_400) == 0
    assert forget_old_rows(database, now=NOW + AUDIT_KEPT_S) == 1
    assert log.list() == []
