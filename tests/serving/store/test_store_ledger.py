import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.store.database import Database
from serving.store.jobs import JobStore
from serving.store.ledger import Ledger
from serving.store.records import JobProgress
from testkit.records import NOW, new_entry, new_job, new_takes

SECONDS = st.floats(0, 1000, allow_nan=False)
SPENT = st.lists(st.tuples(st.integers(0, 1), SECONDS, SECONDS, st.booleans()), max_size=12)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spent=SPENT)
def test_sums_of_the_ledger_equal_those_of_jobs_and_takes(
    database: Database, spent: list[tuple[int, float, float, bool]]
) -> None:
    store, ledger = JobStore(database), Ledger(database)
    job = new_job(tenant="sums")
    store.insert(job, new_takes(job), actor="ada/laptop")
    held = next(found for found in store.claim(owner="one", now=NOW, lease_s=1, limit=99) if found.id == job.id)
    for number, useful_s, wasted_s, with_progress in spent:
        entry = new_entry(job, take=number, useful_s=useful_s, wasted_s=wasted_s)
        if with_progress:
            one = JobProgress(job.id, held.lease_token, 1.0, 20, 1, None, False, ())
            assert store.save_progress([one], [entry], now=NOW) == set()
        ledger.add([entry])  # again if it was written above: it counts once
    after, shots = store.get(job.id), ledger.by_job(job.id)
    assert after is not None
    for name in ("gpu_seconds", "wasted_gpu_seconds", "usd"):
        assert getattr(after, name) == pytest.approx(sum(getattr(shot, name) for shot in shots))
    by_take = {shot.take: shot for shot in shots}
    for take in store.takes(job.id):
        cost = by_take.get(take.key)
        assert take.gpu_seconds == pytest.approx(cost.gpu_seconds if cost else 0.0)
        assert take.wasted_gpu_seconds == pytest.approx(cost.wasted_gpu_seconds if cost else 0.0)
    store.delete(job.id, actor="ada/laptop", now=NOW)


def test_tenants_are_summed_over_a_span_of_time(database: Database) -> None:
    store, ledger = JobStore(database), Ledger(database)
    ada, bob = new_job(tenant="ada"), new_job(tenant="bob")
    for job in (ada, bob):
        store.insert(job, new_takes(job), actor="ada/laptop")
    ledger.add([new_entry(ada, at=NOW), new_entry(ada, at=NOW + 10, wasted_s=2), new_entry(bob, at=NOW + 20)])
    sums = ledger.by_tenant(since=NOW, until=NOW + 20)
    assert {name: (cost.gpu_seconds, cost.wasted_gpu_seconds) for name, cost in sums.items()} == {"ada": (2.0, 2.0)}
