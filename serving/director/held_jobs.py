"""The jobs that a Director holds, and which of their takes renders what; the scheduler is told of every change."""

from serving.director.runs import JobRun, TakeRun
from serving.scheduler.cost_model import CostModel
from serving.scheduler.state import CallKey, FarmState, JobSpec, TenantSpec


class HeldJobs:
    """Belongs to one Director. `calls_per_job`: calls of one job that may be out at once; None for any number."""

    def __init__(self, state: FarmState, costs: CostModel, *, calls_per_job: int | None) -> None:
        self._state = state
        self._costs = costs
        self._calls_per_job = calls_per_job
        self.runs: dict[str, JobRun] = {}
        """By the job's id."""
        self._by_content: dict[str, TakeRun] = {}
        """The take that renders each content key now; others with the same key wait for it."""

    def put_tenant(self, spec: TenantSpec) -> None:
        """The share and caps of a tenant whose job is about to be held."""
        self._state.put_tenant(spec)

    def add(self, run: JobRun) -> None:
        """Hold it from now on."""
        self.runs[run.id] = run
        self.tell_scheduler(run)

    def remove(self, job_id: str) -> JobRun | None:
        """Hold it no more; returns it, if it was held. Its takes render nothing any more."""
        run = self.runs.pop(job_id, None)
        if run is not None:
            self._state.drop_job(run.id)
            for take in run.takes:
                self.release_content(take)
        return run

    def holds(self, run: JobRun) -> bool:
        """Whether this very run is held: the job may be held anew, under another token."""
        return self.runs.get(run.id) is run

    def tell_scheduler(self, run: JobRun) -> None:
        """What is left of it, or its terms, have changed."""
        self._state.put_job(self._spec(run))

    def is_stopped(self, run: JobRun) -> bool:
        """Whether it is given no more calls: it fails, or its budget is spent."""
        job = self._state.jobs.get(run.id)
        return job is None or bool(job.held)

    def stop(self, run: JobRun, why: str) -> None:
        """Give it no more calls."""
        self._state.hold_job(run.id, why)

    def take_of(self, call: CallKey) -> TakeRun | None:
        """The take that a call belongs to; None if it is not held."""
        run = self.runs.get(call.job_id)
        return next((take for take in run.takes if take.id.take_key == call.take_key), None) if run else None

    def takes(self) -> list[TakeRun]:
        """Every take of every job."""
        return [take for run in self.runs.values() for take in run.takes]

    def may_render(self, take: TakeRun) -> bool:
        """Whether no other take renders the same content now."""
        return self._by_content.get(take.content_key, take) is take

    def claim_content(self, take: TakeRun) -> None:
        """This take renders its content from now on."""
        self._by_content[take.content_key] = take

    def release_content(self, take: TakeRun) -> None:
        """This take does not render its content any more."""
        if self._by_content.get(take.content_key) is take:
            del self._by_content[take.content_key]

    def lost(self, take: TakeRun) -> None:
        """No host holds it any more: its calls will be told of again, and another take may render its content."""
        self.release_content(take)
        self._state.forget_take(take.id.job_id, take.id.take_key)

    def rest(self, take: TakeRun) -> None:
        """None of its calls is given out; those that wait will be told of again."""
        self._state.rest_take(take.id.job_id, take.id.take_key)

    def has_calls_out(self, take: TakeRun) -> bool:
        """Whether a gang has a call of it that somebody waits for."""
        return self._state.has_calls_out(take.id.job_id, take.id.take_key)

    def _spec(self, run: JobRun) -> JobSpec:
        key, window = run.cost_key, run.capabilities.window
        left = [take for take in run.takes if not take.done]
        paths = (self._costs.path_seconds(key, take.plan, window=window) * take.share_left for take in left)
        return JobSpec(
            id=run.id,
            tenant=run.job.tenant,
            pool=run.job.pool,
            priority=run.job.priority,
            due_at=run.job.due_at,
            created_at=run.job.created_at,
            cost_key=key,
            work_s=sum(self._costs.take_seconds(key, take.plan) * take.share_left for take in left),
            path_s=max(paths, default=0.0),
            max_calls=self._calls_per_job,
        )
