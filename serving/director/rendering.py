"""Calls are given to gangs and heard of again. A call's whole way through the Director stands here, from top to bottom.

Which call goes where is the policy's affair, what follows from a failure that of failures.py; here it is carried out.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serving.director.finishing import Finishing
from serving.director.held_jobs import HeldJobs
from serving.director.outcomes import Outcomes
from serving.director.patient_store import PatientStore
from serving.director.pools.gangs import Gangs
from serving.director.reporting.counters import Counters
from serving.director.runs import JobRun, Stage, TakeRun
from serving.director.take_hosts import TakeHosts
from serving.errors import HostLost, NotHeld, StaleToken
from serving.render.farm_messages import CallReport, OpenCall
from serving.scheduler.failures import CallVerdict, FailureKind
from serving.scheduler.policy import assign
from serving.scheduler.state import Assignment, CallKey, FarmState, Flight, ReadyCall
from serving.telemetry.metrics import Loss

log = logging.getLogger(__name__)

LOSSES: Mapping[FailureKind, Loss] = {
    "gang_died": "died",
    "timed_out": "hung",
    "call_raised": "broken",
    "bad_prediction": "broken",
}
"""As what the loss of a gang that must be replaced is counted, by how its call ended."""

JOIN_S = 1.0
"""Seconds that a host waits for a gang to begin a call; of no meaning for one that the gang has already."""


class Rendering:
    """Renders the takes of one Director. `wake` is set when there may be something to give out; `clock` gives Unix
    seconds."""

    def __init__(
        self,
        held: HeldJobs,
        state: FarmState,
        gangs: Gangs,
        hosts: TakeHosts,
        outcomes: Outcomes,
        finishing: Finishing,
        store: PatientStore,
        counters: Counters,
        wake: asyncio.Event,
        clock: Callable[[], float],
    ) -> None:
        self._held = held
        self._state = state
        self._gangs = gangs
        self._hosts = hosts
        self._outcomes = outcomes
        self._finishing = finishing
        self._store = store
        self._counters = counters
        self._wake = wake
        self._clock = clock

    def tell_ready(self, take: TakeRun, calls: Sequence[OpenCall]) -> None:
        """The scheduler may give these calls of a take to gangs. Those of a take that moves are told of again when it
        is open elsewhere."""
        if take.stage is Stage.RESTING:
            return
        job_id, key = take.id.job_id, take.id.take_key
        ready = [
            ReadyCall(
                CallKey(job_id, key, call.step, call.chunk),
                call.latents,
                call.evaluations,
                call.start,
                call.calls_left,
                expert=call.expert,
                take_index=take.index,
            )
            for call in calls
        ]
        self._state.calls_ready(job_id, ready, self._clock())
        self._wake.set()

    def give_out(self) -> None:
        """Give ready calls to gangs."""
        for assignment in assign(self._state, self._clock()):
            take = self._held.take_of(assignment.call)
            if take is not None:
                run = self._held.runs[take.id.job_id]
                self._outcomes.spawn(self._run_call(run, take, assignment), run)

    async def _run_call(self, run: JobRun, take: TakeRun, given: Assignment) -> None:
        """Have a host send a call to a gang, and hear how it ended."""
        key, host = given.call, take.host
        if not run.started:
            run.started = True
            self._outcomes.spawn(self._outcomes.start(run), run)
        flight = self._state.calls.get(key)
        if flight is None or host is None:
            return
        try:
            report = await self._hosts.run_call(
                take,
                step=key.step,
                chunk=key.chunk,
                gang=given.gang,
                handle=self._gangs.handle(given.gang),
                timeout_s=given.deadline_s,
            )
        except (HostLost, NotHeld, StaleToken) as error:
            self._call_lost(run, take, flight, error)
            if take.host == host:
                self._outcomes.take_lost(run, take, error)
        else:
            self._hear(run, take, flight.call, given.gang, report)

    def _call_lost(self, run: JobRun, take: TakeRun, flight: Flight, error: Exception) -> None:
        """Its host is gone, and nobody will report it."""
        call, now = flight.call, self._clock()
        if self._state.calls.get(call.key) is flight:
            run.charge(take, start=call.start, latents=call.latents, seconds=now - flight.since, useful=False)
            self._counters.call_lost(run.job.pool)
            self._state.call_failed(call.key, flight.gang, "host_lost", str(error), now)

    def _hear(self, run: JobRun, take: TakeRun, call: ReadyCall, gang: str, report: CallReport) -> None:
        """Take in how a call ended."""
        # A call that only waited beside the one that its gang died of has cost nothing and is no fault of its own.
        waited = report.outcome == "gang_died" and not self._gangs.was_working_on(gang, call.key)
        self._counters.call_ended(run.job.pool, report, waited=waited)
        if not waited:
            useful = report.outcome == "done"
            run.charge(take, start=call.start, latents=call.latents, seconds=report.seconds, useful=useful)
        if run.id not in self._held.runs or not take.held:
            self._state.call_moot(call.key, gang)
            if not self._held.holds(run):
                self._outcomes.spawn(self._outcomes.charge_late(run), run)
            return
        now = self._clock()
        take.report(report.progress, now)
        take.losses = 0
        match report.outcome:
            case "done":
                self._call_done(run.job.pool, call, gang, report)
            case "not_ready":
                self._state.call_moot(call.key, gang)
            case _ if waited:
                self._state.call_failed(call.key, gang, "drained", report.detail, now)
            case kind:
                self._call_failed(run, take, call, gang, kind, report.detail)
        self.tell_ready(take, report.ready)
        self._outcomes.check_budget(run)
        self._finishing.after_report(run, take)

    def _call_done(self, pool: str, call: ReadyCall, gang: str, report: CallReport) -> None:
        flight = self._state.calls.get(call.key)
        if flight is not None and flight.gang == gang:
            self._counters.call_measured(pool, expected_s=flight.expected_s, seconds=report.seconds)
        self._state.call_finished(call.key, gang, report.seconds)

    def _call_failed(
        self, run: JobRun, take: TakeRun, call: ReadyCall, gang: str, kind: FailureKind, detail: str
    ) -> None:
        """Carry out what follows from a failure: the gang is replaced, the call tried again, or the job fails."""
        now, key = self._clock(), call.key
        take.retries += 1
        verdict = self._state.call_failed(key, gang, kind, detail, now)
        place = {"step": key.step, "chunk": key.chunk, "gang": gang}
        words = "a call of take %s (step %d, chunk %d) failed, %s: %s"
        about = {"action": "call_failed", **place, "pool": run.job.pool, "outcome": kind, **take.id.ids}
        log.warning(words, take.plan.key, key.step, key.chunk, kind.replace("_", " "), detail, extra=about)
        if kind == "gang_died" or (verdict is not None and verdict.replace_gang):
            self._gangs.condemn(gang, now, why=LOSSES[kind])
        if verdict is None:
            return
        if verdict.retry_at is not None:
            reason, data = f"a call is tried again: {kind.replace('_', ' ')}", {"take": take.plan.key, **place}
            self._outcomes.spawn(self._store.note(run, "retry", reason, data), run)
        else:
            self._outcomes.spawn(self._outcomes.fail(run, _error_of(verdict, take, key, detail)), run)

    async def join(self, run: JobRun, take: TakeRun, call: OpenCall, gang: str) -> None:
        """Wait for a call that an earlier Director gave out."""
        if not self._held.holds(run) or take.host is None:
            return
        try:
            report = await self._hosts.run_call(
                take, step=call.step, chunk=call.chunk, gang=gang, handle=None, timeout_s=JOIN_S
            )
        except (HostLost, NotHeld, StaleToken) as error:
            self._outcomes.take_lost(run, take, error)
            return
        self._counters.call_ended(run.job.pool, report, waited=False)
        if report.outcome != "done":
            self.tell_ready(take, [call])
        else:
            run.charge(take, start=call.start, latents=call.latents, seconds=report.seconds, useful=True)
        take.report(report.progress, self._clock())
        self.tell_ready(take, report.ready)
        self._finishing.after_report(run, take)


def _error_of(verdict: CallVerdict, take: TakeRun, key: CallKey, detail: str) -> dict[str, Any]:
    """What the job says that a call made fail, with every attempt as evidence."""
    attempts = [{"gang": one.gang, "kind": one.kind, "detail": one.detail, "at": one.at} for one in verdict.evidence]
    what = "killed" if verdict.code == "poison_call" else "failed on"
    message = f"call (step {key.step}, chunk {key.chunk}) of take {take.plan.key} {what} {len(attempts)} gangs"
    return {"code": verdict.code, "message": f"{message}; the last: {detail[-500:]}", "attempts": attempts}
