"""Whatever happens to the farm, its books agree, no cap is exceeded, and no gang is idle beside a call it may have."""

from collections import Counter
from collections.abc import Sized
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.scheduler.cost_model import CostModel, Curve
from serving.scheduler.failures import NOT_COUNTED, FailureKind
from serving.scheduler.policy import assign
from serving.scheduler.state import MIN_DEADLINE_S, CallKey, FarmState, JobSpec, PoolSpec, ReadyCall, TenantSpec

POOL = "p"


@dataclass
class Known:
    """What the test itself knows of a job."""

    spec: JobSpec
    held: bool = False
    told: int = 0
    waiting: dict[CallKey, float] = field(default_factory=dict)
    """Calls and when they may be given out."""
    avoid: dict[CallKey, set[str]] = field(default_factory=dict)


CAPS = {"free": None, "capped": 3, "heavy": None}
KINDS: tuple[FailureKind, ...] = (
    "gang_died",
    "call_raised",
    "timed_out",
    "bad_prediction",
    "host_lost",
    "drained",
    "preempted",
)
PICK = st.integers(0, 1 << 20)


class FarmLife(RuleBasedStateMachine):
    """Random events. The books are compared with simpler ones that the test keeps beside them."""

    @initialize(slots=st.integers(1, 3), gangs=st.integers(0, 4))
    def begin(self, slots: int, gangs: int) -> None:
        self.state = FarmState(CostModel({"cost": Curve(linear_s=1.0)}))
        self.state.put_pool(PoolSpec(POOL, slots))
        for name, cap in CAPS.items():
            self.state.put_tenant(TenantSpec(name, weight=3.0 if name == "heavy" else 1.0, max_calls=cap))
        self.now, self.made = 1000.0, 0
        self.gangs: set[str] = set()
        self.draining: set[str] = set()
        self.jobs: dict[str, Known] = {}
        self.out: dict[CallKey, str] = {}
        for _ in range(gangs):
            self.join()

    def _name(self, kind: str) -> str:
        self.made += 1
        return f"{kind}{self.made}"

    @rule()
    def join(self) -> None:
        name = self._name("g")
        self.gangs.add(name)
        self.state.gang_joined(name, POOL)

    @precondition(lambda self: self.gangs)
    @rule(pick=PICK)
    def drain(self, pick: int) -> None:
        name = sorted(self.gangs)[pick % len(self.gangs)]
        self.draining.add(name)
        self.state.gang_draining(name)

    @precondition(lambda self: self.gangs)
    @rule(pick=PICK)
    def leave(self, pick: int) -> None:
        name = sorted(self.gangs)[pick % len(self.gangs)]
        self._leave(name)

    def _leave(self, name: str) -> None:
        self.gangs.discard(name)
        self.draining.discard(name)
        lost = {key for key, gang in self.out.items() if gang == name}
        assert set(self.state.gang_left(name, self.now)) == lost
        for key in lost:
            self._wait_again(key, 0.0)

    @rule(
        tenant=st.sampled_from(sorted(CAPS)),
        priority=st.sampled_from([20, 50, 80]),
        due_in=st.none() | st.floats(0, 2000),
        max_calls=st.none() | st.integers(1, 4),
    )
    def submit(self, tenant: str, priority: int, due_in: float | None, max_calls: int | None) -> None:
        name = self._name("j")
        due_at = None if due_in is None else self.now + due_in
        terms = JobSpec(
            id=name,
            tenant=tenant,
            pool=POOL,
            priority=priority,
            due_at=due_at,
            created_at=self.now,
            cost_key="cost",
            work_s=100.0,
            path_s=10.0,
            max_calls=max_calls,
        )
        self.jobs[name] = Known(terms)
        self.state.put_job(terms)

    @precondition(lambda self: self.jobs)
    @rule(
        pick=PICK,
        num=st.integers(1, 5),
        take=st.sampled_from("ab"),
        step=st.integers(0, 2),
        latents=st.integers(1, 9),
    )
    def tell(self, pick: int, num: int, take: str, step: int, latents: int) -> None:
        job = self._job(pick)
        name, first = job.spec.id, job.told
        job.told += num
        calls = [
            ReadyCall(CallKey(name, take, step, first + k), latents, evaluations=1, start=first + k) for k in range(num)
        ]
        self.state.calls_ready(name, calls, self.now)
        self.state.calls_ready(name, calls, self.now)
        job.waiting.update(dict.fromkeys((one.key for one in calls), 0.0))

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, held=st.booleans())
    def hold_or_free(self, pick: int, held: bool) -> None:
        job = self._job(pick)
        job.held = held
        if held:
            self.state.hold_job(job.spec.id, "a reason")
        else:
            self.state.free_job(job.spec.id)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK)
    def drop(self, pick: int) -> None:
        self._drop(self._job(pick).spec.id)

    def _drop(self, name: str) -> None:
        self.state.drop_job(name)
        del self.jobs[name]
        self.out = {key: gang for key, gang in self.out.items() if key.job_id != name}

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, take=st.sampled_from("ab"))
    def forget_take(self, pick: int, take: str) -> None:
        job = self._job(pick)
        self.state.forget_take(job.spec.id, take)
        job.waiting = {key: at for key, at in job.waiting.items() if key.take_key != take}
        self.out = {key: gang for key, gang in self.out.items() if (key.job_id, key.take_key) != (job.spec.id, take)}

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, take=st.sampled_from("ab"))
    def rest_take(self, pick: int, take: str) -> None:
        job = self._job(pick)
        self.state.rest_take(job.spec.id, take)
        job.waiting = {key: at for key, at in job.waiting.items() if key.take_key != take}
        out = any((key.job_id, key.take_key) == (job.spec.id, take) for key in self.out)
        assert self.state.has_calls_out(job.spec.id, take) == out

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, priority=st.sampled_from([20, 50, 80]), due_in=st.none() | st.floats(0, 2000))
    def change_terms(self, pick: int, priority: int, due_in: float | None) -> None:
        job = self._job(pick)
        due_at = None if due_in is None else self.now + due_in
        job.spec = replace(job.spec, priority=priority, due_at=due_at)
        self.state.put_job(job.spec)

    @precondition(lambda self: self.out)
    @rule(pick=PICK, seconds=st.floats(0, 100))
    def finish(self, pick: int, seconds: float) -> None:
        key, gang = self._take_out(pick)
        assert self.state.call_finished(key, gang, seconds)
        assert not self.state.call_finished(key, gang, seconds), "a second report counts"

    @precondition(lambda self: self.out)
    @rule(pick=PICK, kind=st.sampled_from(KINDS))
    def fail(self, pick: int, kind: FailureKind) -> None:
        key, gang = self._take_out(pick)
        verdict = self.state.call_failed(key, gang, kind, "a detail", self.now)
        assert verdict is not None
        assert self.state.call_failed(key, gang, kind, "a detail", self.now) is None
        if verdict.replace_gang:
            self.draining.add(gang)
        if verdict.retry_at is None:
            self.jobs[key.job_id].held = True
            return
        if kind not in NOT_COUNTED:
            self.jobs[key.job_id].avoid.setdefault(key, set()).add(gang)
        self._wait_again(key, verdict.retry_at)

    @precondition(lambda self: self.out)
    @rule(pick=PICK)
    def moot(self, pick: int) -> None:
        key, gang = self._take_out(pick)
        self.state.call_moot(key, gang)

    @rule(seconds=st.sampled_from([0.1, 1.0, 15.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def place(self) -> None:
        given = assign(self.state, self.now)
        lowest = min((self.jobs[one.call.job_id].spec.priority for one in given), default=100)
        for one in given:
            job = self.jobs[one.call.job_id]
            assert one.gang in self.gangs - self.draining
            assert not job.held
            assert job.waiting.pop(one.call) <= self.now, "a call was tried again too early"
            assert one.call not in self.out
            assert one.expected_s > 0
            assert one.deadline_s >= max(MIN_DEADLINE_S, one.expected_s)
            self.out[one.call] = one.gang
        left = self._allowed()
        fresh = [key for key in left if not self.jobs[key.job_id].avoid.get(key)]
        assert all(self.jobs[key.job_id].spec.priority <= lowest for key in fresh), "a lower priority went before"
        idle = {name for name in self.gangs - self.draining if not self.state.gangs[name].calls}
        for key in left:
            assert idle <= self.jobs[key.job_id].avoid.get(key, set()), "a gang is idle beside a call"
        assert assign(self.state, self.now) == [], "a second look found more"

    @invariant()
    def the_books_agree(self) -> None:
        if not hasattr(self, "state"):
            return
        self.state.check_invariants()
        assert {key: flight.gang for key, flight in self.state.calls.items()} == self.out
        assert {name: set(job.waiting) for name, job in self.state.jobs.items()} == {
            name: set(job.waiting) for name, job in self.jobs.items()
        }
        by_tenant = Counter(self.jobs[key.job_id].spec.tenant for key in self.out)
        assert all(cap is None or by_tenant[name] <= cap for name, cap in CAPS.items())
        by_job = Counter(key.job_id for key in self.out)
        assert all(by_job[name] <= (job.spec.max_calls or 1000) for name, job in self.jobs.items())

    def teardown(self) -> None:
        """Nothing is left behind, whatever the order in which all goes."""
        for name in list(self.jobs):
            self._drop(name)
        for name in list(self.gangs):
            self._leave(name)
        self.state.check_invariants()
        assert not self.state.jobs
        assert not self.state.gangs
        assert not self.state.calls
        assert not any(tenant.in_flight or tenant.shares for tenant in self.state.tenants.values())
        pool = self.state.pools[POOL]
        assert not pool.classes
        left: tuple[Sized, ...] = (pool.open_classes, pool.delayed, pool.ghosts, pool.idle, pool.half_idle)
        assert not any(map(len, left))
        assert (pool.num_due, pool.ready_gangs) == (0, 0)

    def _job(self, pick: int) -> Known:
        return self.jobs[sorted(self.jobs)[pick % len(self.jobs)]]

    def _take_out(self, pick: int) -> tuple[CallKey, str]:
        key = sorted(self.out)[pick % len(self.out)]
        return key, self.out.pop(key)

    def _wait_again(self, key: CallKey, retry_at: float) -> None:
        self.out.pop(key, None)
        self.jobs[key.job_id].waiting[key] = retry_at

    def _allowed(self) -> list[CallKey]:
        """Calls that could be given out now."""
        by_tenant = Counter(self.jobs[key.job_id].spec.tenant for key in self.out)
        by_job = Counter(key.job_id for key in self.out)
        open_jobs = [
            job
            for name, job in self.jobs.items()
            if not job.held
            and by_job[name] < (job.spec.max_calls or 1000)
            and by_tenant[job.spec.tenant] < (CAPS[job.spec.tenant] or 1000)
        ]
        return [key for job in open_jobs for key, at in job.waiting.items() if at <= self.now]


TestFarmLife = FarmLife.TestCase
TestFarmLife.settings = settings(max_examples=80, stateful_step_count=50)
