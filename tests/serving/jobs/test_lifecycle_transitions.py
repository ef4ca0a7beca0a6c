from typing import get_args

import pytest

from serving.errors import Fenced, NotFound, WrongState
from serving.jobs.lifecycle import ASKED, Action, Lifecycle, allowed_actions
from serving.store.audit import AuditLog
from serving.store.database import Database
from serving.store.jobs import JobStore
from serving.store.records import JobStatus
from serving.store.webhooks import Webhooks
from testkit.records import NOW, new_job, new_takes

ALLOWED: dict[Action, dict[JobStatus, JobStatus]] = {
    "start": {JobStatus.QUEUED: JobStatus.IN_PROGRESS},
    "pause": {JobStatus.QUEUED: JobStatus.PAUSED, JobStatus.IN_PROGRESS: JobStatus.PAUSED},
    "resume": {JobStatus.PAUSED: JobStatus.IN_PROGRESS},  # it had started
    "complete": {JobStatus.QUEUED: JobStatus.COMPLETED, JobStatus.IN_PROGRESS: JobStatus.COMPLETED},
    "fail": {JobStatus.QUEUED: JobStatus.FAILED, JobStatus.IN_PROGRESS: JobStatus.FAILED},
    "cancel": {
        JobStatus.QUEUED: JobStatus.CANCELLED,
        JobStatus.IN_PROGRESS: JobStatus.CANCELLED,
        JobStatus.PAUSED: JobStatus.CANCELLED,
    },
    "retry": {JobStatus.FAILED: JobStatus.QUEUED, JobStatus.CANCELLED: JobStatus.QUEUED},
}
"""What each action makes of a job that has started, by its status; written here once more, to be compared."""
EVERY = [(status, action) for status in JobStatus for action in get_args(Action)]


def started(status: JobStatus) -> float | None:
    return None if status == "queued" else NOW


@pytest.mark.parametrize(("status", "action"), EVERY)
def test_an_action_does_what_the_table_says_or_nothing(database: Database, status: JobStatus, action: Action) -> None:
    store, lifecycle, webhooks = JobStore(database), Lifecycle(database), Webhooks(database)
    endpoint = webhooks.add(tenant="ada", url="https://example.com/hook", now=NOW)
    job = new_job(status=status, started_at=started(status))
    store.insert(job, new_takes(job), actor="ada/laptop")
    before = (store.get(job.id), list(store.events_after(0)), list(AuditLog(database).list()))
    wanted = ALLOWED[action].get(status)
    if wanted is None:
        with pytest.raises(WrongState) as refused:
            lifecycle.apply(job.id, action, reason="because", actor="ada/laptop", now=NOW + 1)
        assert status in str(refused.value)
        assert set(refused.value.allowed) == set(allowed_actions(status)) & set(ASKED)
        assert (store.get(job.id), list(store.events_after(0)), list(AuditLog(database).list())) == before
        assert list(webhooks.deliveries(endpoint.id)) == []
        return
    after = lifecycle.apply(job.id, action, reason="because", actor="ada/laptop", now=NOW + 1)
    assert after.status == wanted
    assert store.get(job.id) == after
    assert (after.reason, after.updated_at, after.revision) == ("because", NOW + 1, job.revision + 1)
    event = store.events_after(0, job_id=job.id)[-1]
    assert (event.kind, event.status, event.reason, event.at) == (action, after.status, "because", NOW + 1)
    line = AuditLog(database).list()[0]
    assert (line.actor, line.action, line.target, line.detail) == ("ada/laptop", action, job.id, "because")
    assert [delivery.type for delivery in webhooks.deliveries(endpoint.id)] == [f"job.{after.status}"]


def test_a_job_that_never_started_is_queued_again_when_it_is_resumed(database: Database) -> None:
    store, lifecycle = JobStore(database), Lifecycle(database)
    job = store.insert(new_job(), [], actor="ada/laptop")
    lifecycle.apply(job.id, "pause", reason="lunch", now=NOW)
    assert lifecycle.apply(job.id, "resume", reason="back", now=NOW).status == "queued"


@pytest.mark.parametrize("action", ["pause", "cancel", "complete", "fail"])
def test_what_ends_the_work_takes_the_job_from_its_holder(database: Database, action: Action) -> None:
    store, lifecycle = JobStore(database), Lifecycle(database)
    store.insert(new_job(), [], actor="ada/laptop")
    held = store.claim(owner="one", now=NOW, lease_s=10, limit=1)[0]
    after = lifecycle.apply(held.id, action, reason="because", now=NOW, token=held.lease_token)
    assert (after.lease_owner, after.lease_until) == (None, None)
    with pytest.raises(Fenced):
        lifecycle.apply(held.id, "cancel", reason="too late", now=NOW, token=held.lease_token)
    assert store.renew({held.id: held.lease_token}, now=NOW, lease_s=10) == set()


def test_who_lost_a_job_cannot_change_its_status(database: Database) -> None:
    store, lifecycle = JobStore(database), Lifecycle(database)
    store.insert(new_job(), [], actor="ada/laptop")
    lost = store.claim(owner="one", now=NOW, lease_s=10, limit=1)[0]
    store.claim(owner="two", now=NOW + 10, lease_s=10, limit=1)
    before = (store.get(lost.id), list(store.events_after(0)))
    with pytest.raises(Fenced):
        lifecycle.apply(lost.id, "complete", reason="done", now=NOW + 11, token=lost.lease_token)
    assert (store.get(lost.id), list(store.events_after(0))) == before


def test_other_tenants_jobs_are_not_there(database: Database) -> None:
    store, lifecycle = JobStore(database), Lifecycle(database)
    job = store.insert(new_job(), [], actor="ada/laptop")
    with pytest.raises(NotFound):
        lifecycle.apply(job.id, "cancel", reason="mine", actor="bob/pc", tenant="bob", now=NOW)
    assert store.get(job.id, tenant="bob") is None
    assert store.get(job.id, tenant="ada") == job


def test_a_completed_job_has_its_film_and_a_failed_one_its_error(database: Database) -> None:
    store, lifecycle = JobStore(database), Lifecycle(database)
    one, other = (store.insert(new_job(NOW + number), [], actor="ada/laptop") for number in range(2))
    film = {"sha256": "f" * 64, "frames": 33}
    done = lifecycle.apply(one.id, "complete", reason="all is there", now=NOW, film=film)
    assert (done.film, done.progress, done.calls_done, done.finished_at) == (film, 100.0, done.calls_total, NOW)
    error = {"code": "poison", "message": "it killed three gangs"}
    failed = lifecycle.apply(other.id, "fail", reason="poison", now=NOW, error=error)
    assert failed.error == error
    again = lifecycle.apply(other.id, "retry", reason="asked", actor="ada/laptop", now=NOW + 5)
    assert (again.error, again.finished_at, again.started_at, again.progress) == (None, None, None, 0.0)
    assert [job.id for job in store.claim(owner="one", now=NOW, lease_s=1, limit=9)] == [other.id]


def test_what_nobody_asked_for_is_not_in_the_audit_log(database: Database) -> None:
    store, lifecycle = JobStore(database), Lifecycle(database)
    job = store.insert(new_job(), [], actor="ada/laptop")
    lifecycle.apply(job.id, "start", reason="first calls given out", now=NOW)
    assert [line.action for line in AuditLog(database).list()] == ["submit"]
