"""Takes are opened on timeline hosts, and their calls given to gangs and heard of again.

Which call goes where is the policy's affair, what follows from a failure that of failures.py; here it is carried out.
"""

import logging
from collections.abc import Mapping, Sequence

from serving.director.context import Desk
from serving.director.finishing import Finishing
from serving.director.outcomes import Endings
from serving.director.runs import JobRun, Stage, TakeRun
from serving.errors import HostLost, LongtakeError, NotHeld, StaleToken
from serving.planning.content_keys import take_texts
from serving.render.farm_messages import CallReport, OpenCall, Outcome, TakeOpened, TakeOrder
from serving.scheduler.policy import assign
from serving.scheduler.state import Assignment, CallKey, ReadyCall
from serving.telemetry.metrics import Loss

log = logging.getLogger(__name__)

LOSSES: Mapping[Outcome, Loss] = {
    "gang_died": "died",
    "timed_out": "hung",
    "call_raised": "broken",
    "bad_prediction": "broken",
}
"""What a gang that must be replaced is lost by, by how its call ended."""


class Rendering:
    """Renders the takes of one Director."""

    def __init__(self, desk: Desk, endings: Endings, finishing: Finishing) -> None:
        self._desk = desk
        self._endings = endings
        self._finishing = finishing

    def give_out(self) -> None:
        """Open takes where there is room, and give ready calls to gangs."""
        now = self._desk.clock()
        if now - self._desk.renewed_at > self._desk.config.lease_s and self._desk.runs:
            return  # the leases may be somebody else's by now: nothing new before they are renewed
        self._open_takes(now)
        for assignment in assign(self._desk.state, now):
            take = self._desk.take(assignment.call)
            if take is not None:
                self._desk.spawn(self._run_call(take, assignment), self._desk.runs[take.id.job_id])

    def _open_takes(self, now: float) -> None:
        most = self._desk.config.takes_per_host
        room = [0 if host in self._desk.leaving else most for host in range(len(self._desk.hosts))]
        active: dict[str, int] = {}
        for run in self._desk.runs.values():
            for take in run.takes:
                if take.host is not None:
                    room[take.host] -= 1
                    active[run.job.tenant] = active.get(run.job.tenant, 0) + 1
        waiting = [run for run in self._desk.runs.values() if run.prepared and not self._desk.is_held(run)]
        for run in sorted(
            waiting, key=lambda run: (-run.job.priority, active.get(run.job.tenant, 0), run.job.created_at)
        ):
            for take in run.takes:
                if max(room) <= 0:
                    return
                other = self._desk.by_content.get(take.content_key)
                if take.stage is Stage.WAITING and take.not_before <= now and (other is None or other is take):
                    host = room.index(max(room))
                    room[host] -= 1
                    take.host, take.stage = host, Stage.OPENING
                    self._desk.by_content[take.content_key] = take
                    self._desk.spawn(self._open(run, take, host), run)

    async def _open(self, run: JobRun, take: TakeRun, host: int) -> None:
        if take.stage is not Stage.OPENING or take.host != host:
            return  # it was let go before this could begin
        order = TakeOrder(
            take.id,
            self._desk.generation,
            run.plan,
            take.plan,
            take.content_key,
            {text: run.prompt_keys[text] for text in take_texts(take.plan)},
            run.numerics["weights"],
        )
        try:
            await self._desk.find_cached(
                take
            )  # another job may have rendered it meanwhile, or a host that was lost since
            if take.done:
                self._found(run, take)
                return
            opened = await self._desk.hosts[host].open_take(order)
        except LongtakeError as error:
            self._endings.host_failed(run, take, error)
            return
        if take.stage is not Stage.OPENING or self._desk.runs.get(run.id) is not run:  # it was let go meanwhile
            take.host = host
            await self._endings.close(take, save=False)
            return
        take.stage = Stage.RENDERING
        take.hear(opened.progress, self._desk.clock())
        self._desk.counting.host_works(host)
        self._desk.state.put_job(self._desk.spec(run))
        self._tell_ready(take, opened.ready)
        self._log_opened(take, opened, host)
        if take.resting:  # its host was told to move while it opened it
            await self.hand_back(take)
            return
        for call, gang in opened.running:
            self._desk.spawn(self._join(take, call, gang), run)
        self._finishing.after_report(run, take)

    def _log_opened(self, take: TakeRun, opened: TakeOpened, host: int) -> None:
        done, calls = opened.progress.calls_done, take.plan.calls
        places = {"noise": "begins from noise", "checkpoint": "goes on from its checkpoint", "memory": "is still held"}
        fields = {"resumed": opened.resumed, "calls_done": done, "calls": calls, "host": host}
        words = "take %s %s: %d of %d calls are done"
        extra = {"action": "open_take", **fields, **take.id.ids}
        log.info(words, take.plan.key, places[opened.resumed], done, calls, extra=extra)

    def _found(self, run: JobRun, take: TakeRun) -> None:
        """It need not be rendered after all."""
        take.host = None
        self._desk.by_content.pop(take.content_key, None)
        self._desk.state.put_job(self._desk.spec(run))
        self._finishing.advance(run)
        self._desk.spawn(self._finishing.clear_checkpoints(take), run)

    def _tell_ready(self, take: TakeRun, calls: Sequence[OpenCall]) -> None:
        if take.resting:  # it is opened anew soon, and its calls told of then
            return
        ready = [
            ReadyCall(
                CallKey(take.id.job_id, take.id.take_key, call.step, call.chunk),
                call.latents,
                call.evaluations,
                call.start,
                expert=call.expert,
                take_index=take.index,
            )
            for call in calls
        ]
        self._desk.state.calls_ready(take.id.job_id, ready, self._desk.clock())
        self._desk.wake.set()

    async def _run_call(self, take: TakeRun, given: Assignment) -> None:
        key, host = given.call, take.host
        run = self._desk.runs[key.job_id]
        if not run.started:
            run.started = True
            self._desk.spawn(self._endings.start(run), run)
        flight = self._desk.state.calls.get(key)
        if flight is None or host is None:
            return
        try:
            report = await self._desk.hosts[host].run_call(
                take.id,
                self._desk.generation,
                step=key.step,
                chunk=key.chunk,
                gang=given.gang,
                handle=self._desk.gangs.handle(given.gang),
                timeout_s=given.deadline_s,
            )
        except (HostLost, NotHeld, StaleToken) as error:
            wasted = self._desk.clock() - flight.since
            if self._desk.state.calls.get(key) is flight:
                run.charge(take, start=flight.call.start, latents=flight.call.latents, seconds=wasted, useful=False)
                self._desk.counting.call_lost(run.job.pool)
                self._desk.state.call_failed(key, given.gang, "host_lost", str(error), self._desk.clock())
            if take.host == host:
                self._endings.host_failed(run, take, error)
            return
        self._hear(run, take, flight.call, given.gang, report)

    async def _join(self, take: TakeRun, call: OpenCall, gang: str) -> None:
        """Wait for a call that an earlier Director gave out."""
        run = self._desk.runs.get(take.id.job_id)
        if run is None or take.host is None:
            return
        try:
            report = await self._desk.hosts[take.host].run_call(
                take.id, self._desk.generation, step=call.step, chunk=call.chunk, gang=gang, handle=None, timeout_s=1.0
            )
        except (HostLost, NotHeld, StaleToken) as error:
            self._endings.host_failed(run, take, error)
            return
        self._desk.counting.call_ended(run.job.pool, report, waited=False)
        if report.outcome != "done":
            self._tell_ready(take, [call])
        else:
            run.charge(take, start=call.start, latents=call.latents, seconds=report.seconds, useful=True)
        take.hear(report.progress, self._desk.clock())
        self._tell_ready(take, report.ready)
        self._finishing.after_report(run, take)

    def _hear(self, run: JobRun, take: TakeRun, call: ReadyCall, gang: str, report: CallReport) -> None:
        """Take in how a call ended."""
        pool, now = run.job.pool, self._desk.clock()
        # A call that only waited beside the one that its gang died of has cost nothing.
        waited = report.outcome == "gang_died" and not self._desk.gangs.was_working_on(gang, call.key)
        self._desk.counting.call_ended(pool, report, waited=waited)
        if not waited:
            useful = report.outcome == "done"
            run.charge(take, start=call.start, latents=call.latents, seconds=report.seconds, useful=useful)
        if run.id not in self._desk.runs or take.stage is not Stage.RENDERING:
            self._desk.state.call_moot(call.key, gang)
            if self._desk.runs.get(run.id) is not run:
                self._desk.spawn(self._endings.charge_late(run), run)
            return
        take.hear(report.progress, now)
        take.failures = 0
        if report.outcome == "done":
            self._count_measured(pool, call, gang, report)
            self._desk.state.call_finished(call.key, gang, report.seconds)
        elif report.outcome == "not_ready":
            self._desk.state.call_moot(call.key, gang)
        else:
            self._hear_failure(run, take, call, gang, report, now)
        self._tell_ready(take, report.ready)
        self._endings.check_budget(run)
        self._finishing.after_report(run, take)

    def _count_measured(self, pool: str, call: ReadyCall, gang: str, report: CallReport) -> None:
        flight = self._desk.state.calls.get(call.key)
        if flight is not None and flight.gang == gang:
            self._desk.counting.call_measured(pool, expected_s=flight.expected_s, seconds=report.seconds)

    def _hear_failure(
        self, run: JobRun, take: TakeRun, call: ReadyCall, gang: str, report: CallReport, now: float
    ) -> None:
        outcome = report.outcome
        assert outcome != "done"
        assert outcome != "not_ready"
        if report.outcome == "gang_died" and not self._desk.gangs.was_working_on(gang, call.key):
            # It only waited beside the call that the gang was working on: no fault of its own.
            self._desk.state.call_failed(call.key, gang, "drained", report.detail, now)
            return
        take.retries += 1
        verdict = self._desk.state.call_failed(call.key, gang, outcome, report.detail, now)
        fields = {
            "step": call.key.step,
            "chunk": call.key.chunk,
            "gang": gang,
            "pool": run.job.pool,
            "outcome": outcome,
        }
        words = "a call of take %s (step %d, chunk %d) failed, %s: %s"
        told = (take.plan.key, call.key.step, call.key.chunk, outcome.replace("_", " "), report.detail)
        log.warning(words, *told, extra={"action": "call_failed", **fields, **take.id.ids})
        if report.outcome == "gang_died" or (verdict is not None and verdict.replace_gang):
            self._desk.gangs.condemn(gang, now, why=LOSSES[outcome])
        if verdict is None:
            return
        data = {"take": take.plan.key, "step": call.key.step, "chunk": call.key.chunk, "gang": gang}
        if verdict.retry_at is not None:
            reason = f"a call is tried again: {report.outcome.replace('_', ' ')}"
            self._desk.spawn(self._desk.note(run, "retry", reason, data), run)
            return
        evidence = [
            {"gang": one.gang, "kind": one.kind, "detail": one.detail, "at": one.at} for one in verdict.evidence
        ]
        what = "killed" if verdict.code == "poison_call" else "failed on"
        message = (
            f"call (step {call.key.step}, chunk {call.key.chunk}) of take {take.plan.key} {what} {len(evidence)} gangs"
        )
        error = {"code": verdict.code, "message": f"{message}; the last: {report.detail[-500:]}", "attempts": evidence}
        self._desk.spawn(self._endings.fail_run(run, error), run)

    def takes_on(self, host: int) -> list[TakeRun]:
        """Takes that a host holds, or opens."""
        return [take for run in self._desk.runs.values() for take in run.takes if take.host == host]

    def rest(self, take: TakeRun) -> None:
        """Give out nothing more of a take, until it is opened again."""
        take.resting = True
        self._desk.state.rest_take(take.id.job_id, take.id.take_key)

    def is_busy(self, take: TakeRun) -> bool:
        """Whether a call of it is out, or its decoder is fed, or its latents are being made durable."""
        out = self._desk.state.has_calls_out(take.id.job_id, take.id.take_key)
        return out or take.feeding or take.finishing or take.stage is Stage.OPENING

    async def hand_back(self, take: TakeRun) -> None:
        """Have its host save it and let it go; it is opened again where there is room."""
        if take.stage is not Stage.RENDERING or take.id.job_id not in self._desk.runs:
            return
        host, take.not_before = take.host, float("inf")  # not opened elsewhere before it is saved
        self._desk.by_content.pop(take.content_key, None)
        self._desk.state.forget_take(take.id.job_id, take.id.take_key)
        take.begin_again()
        take.host = host
        try:
            await self._endings.close(take, save=True)
        finally:
            take.not_before = 0.0
            self._desk.wake.set()
