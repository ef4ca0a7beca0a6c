"""Two Directors and a user at one job store, in any order: nobody writes what is not theirs, and events tell it all."""

from typing import Any, get_args

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from serving.errors import Fenced, WrongState
from serving.jobs.lifecycle import TRANSITIONS, Action, Lifecycle
from serving.store.database import Database
from serving.store.jobs import JobStore
from serving.store.records import LIVE, Job, JobProgress, JobStatus
from testkit.records import NOW, new_entry, new_job, new_takes

LEASE_S = 10.0
DIRECTORS = st.sampled_from(["one", "two"])
NUMBERS = st.integers(0, 1)


class Farm(RuleBasedStateMachine):
    """The model: who holds each job by which token, and the statuses it went through."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.store, self.lifecycle = JobStore(database), Lifecycle(database)
        self.now = NOW
        made = [new_job(NOW + number, tenant="machine") for number in range(2)]
        self.jobs = [self.store.insert(job, new_takes(job), actor="ada/laptop") for job in made]
        self.ids = [job.id for job in self.jobs]
        self.holder: dict[str, tuple[str, int, float] | None] = dict.fromkeys(self.ids)
        self.believed: dict[str, dict[str, int]] = {"one": {}, "two": {}}
        self.tokens: dict[str, int] = {job.id: job.lease_token for job in self.jobs}
        self.status: dict[str, JobStatus] = dict.fromkeys(self.ids, JobStatus.QUEUED)
        self.started: dict[str, bool] = dict.fromkeys(self.ids, False)
        self.history: dict[str, list[tuple[str, str]]] = {job_id: [("submitted", "queued")] for job_id in self.ids}
        self.spent: dict[str, float] = dict.fromkeys(self.ids, 0.0)

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(director=DIRECTORS, limit=st.integers(1, 2))
    def claim(self, director: str, limit: int) -> None:
        free = [job_id for job_id in self.ids if self.status[job_id] in LIVE and not self._has_live_lease(job_id)]
        claimed = self.store.claim(owner=director, now=self.now, lease_s=LEASE_S, limit=limit)
        assert [job.id for job in claimed] == free[:limit]
        for job in claimed:
            assert job.lease_token > self.tokens[job.id]
            self.tokens[job.id] = job.lease_token
            self.holder[job.id] = (director, job.lease_token, self.now + LEASE_S)
            self.believed[director][job.id] = job.lease_token

    @rule(director=DIRECTORS)
    def renew(self, director: str) -> None:
        held = self.store.renew(self.believed[director], now=self.now, lease_s=LEASE_S)
        assert held == {job_id for job_id in self.believed[director] if self._holds(director, job_id)}
        for job_id in held:
            self.holder[job_id] = (director, self.believed[director][job_id], self.now + LEASE_S)

    @rule(director=DIRECTORS)
    def release(self, director: str) -> None:
        mine = [job_id for job_id in self.believed[director] if self._holds(director, job_id)]
        self.store.release(self.believed[director])
        for job_id in mine:
            self.holder[job_id] = None

    @rule(director=DIRECTORS)
    def save_progress(self, director: str) -> None:
        tokens = self.believed[director]
        updates = [JobProgress(job_id, token, 5.0, 20, 1, None, False, ()) for job_id, token in tokens.items()]
        entries = [new_entry(job) for job in self.jobs if job.id in tokens]
        lost = self.store.save_progress(updates, entries, now=self.now)
        assert lost == {job_id for job_id in tokens if not self._holds(director, job_id)}
        for job_id in tokens.keys() - lost:
            self.spent[job_id] += 1.0

    @rule(director=DIRECTORS, number=NUMBERS, action=st.sampled_from(["start", "pause", "complete", "fail"]))
    def director_acts(self, director: str, number: int, action: Action) -> None:
        job_id = self.ids[number]
        token = self.believed[director].get(job_id)
        if token is not None:
            self._act(job_id, action, token=token, may=self._holds(director, job_id))

    @rule(number=NUMBERS, action=st.sampled_from(get_args(Action)))
    def user_acts(self, number: int, action: Action) -> None:
        self._act(self.ids[number], action, token=None, may=True)

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        for job_id in self.ids:
            job = self.store.get(job_id)
            assert job is not None
            assert job.status == self.status[job_id]
            assert job.gpu_seconds == self.spent[job_id]
            holder = self.holder[job_id]
            assert job.lease_owner == (holder[0] if holder else None)
            assert job.status in LIVE or job.lease_owner is None

    @invariant()
    def events_tell_the_whole_history(self) -> None:
        for job_id in self.ids:
            events = self.store.events_after(0, job_id=job_id)
            assert [(event.kind, event.status) for event in events] == self.history[job_id]
            assert [event.id for event in events] == sorted({event.id for event in events})

    def teardown(self) -> None:
        for job_id in self.ids:
            self.store.delete(job_id, actor="ada/laptop", now=self.now)

    def _act(self, job_id: str, action: Action, **how: Any) -> None:
        wanted = TRANSITIONS.get((self.status[job_id], action))
        token, may = how["token"], how["may"]
        try:
            job = self.lifecycle.apply(job_id, action, reason="because", now=self.now, token=token)
        except Fenced:
            assert not may
            return
        except WrongState:
            assert may
            assert wanted is None
            return
        assert may
        assert wanted is not None
        if action == "resume" and self.started[job_id]:
            wanted = JobStatus.IN_PROGRESS
        assert job.status == wanted
        self._note(job, action)

    def _note(self, job: Job, action: Action) -> None:
        self.status[job.id] = job.status
        self.history[job.id].append((action, job.status))
        self.started[job.id] = (self.started[job.id] or action == "start") and action != "retry"
        if job.status not in LIVE:
            self.holder[job.id] = None
            self.tokens[job.id] = max(self.tokens[job.id], job.lease_token)

    def _holds(self, director: str, job_id: str) -> bool:
        holder = self.holder[job_id]
        return holder is not None and holder[:2] == (director, self.believed[director].get(job_id))

    def _has_live_lease(self, job_id: str) -> bool:
        holder = self.holder[job_id]
        return holder is not None and holder[2] > self.now


def test_two_directors_and_a_user_leave_a_job_whole(database: Database) -> None:
    fixture = HealthCheck.function_scoped_fixture
    bounds = settings(max_examples=25, stateful_step_count=30, suppress_health_check=[fixture])
    run_state_machine_as_test(lambda: Farm(database), settings=bounds)  # type: ignore[arg-type]
