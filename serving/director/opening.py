"""Takes are opened on timeline hosts that have room, and leave a host that is about to move."""

import asyncio
import logging
from collections.abc import Callable

from serving.director.finishing import Finishing
from serving.director.held_jobs import HeldJobs
from serving.director.outcomes import Outcomes
from serving.director.rendering import Rendering
from serving.director.reporting.counters import Counters
from serving.director.runs import JobRun, Stage, TakeRun
from serving.director.take_hosts import TakeHosts
from serving.errors import LongtakeError
from serving.render.farm_messages import TakeOpened

log = logging.getLogger(__name__)


class Opening:
    """Opens the takes of one Director. `wake` is set when a take may be opened; `clock` gives Unix seconds."""

    def __init__(
        self,
        held: HeldJobs,
        hosts: TakeHosts,
        outcomes: Outcomes,
        finishing: Finishing,
        rendering: Rendering,
        counters: Counters,
        wake: asyncio.Event,
        clock: Callable[[], float],
    ) -> None:
        self._held = held
        self._hosts = hosts
        self._outcomes = outcomes
        self._finishing = finishing
        self._rendering = rendering
        self._counters = counters
        self._wake = wake
        self._clock = clock

    def open_takes(self) -> None:
        """Open takes where there is room: higher priorities first, then tenants with fewer takes open, then by age."""
        now = self._clock()
        room = self._hosts.room(self._held.takes())
        for run in self._in_order():
            for take in run.takes:
                if max(room) <= 0:
                    return
                if take.stage is Stage.WAITING and take.not_before <= now and self._held.may_render(take):
                    host = room.index(max(room))
                    room[host] -= 1
                    take.open_on(host)
                    self._held.claim_content(take)
                    self._outcomes.spawn(self._open(run, take, host), run)

    def _in_order(self) -> list[JobRun]:
        active: dict[str, int] = {}
        for run in self._held.runs.values():
            open_takes = sum(take.host is not None for take in run.takes)
            active[run.job.tenant] = active.get(run.job.tenant, 0) + open_takes
        waiting = [run for run in self._held.runs.values() if run.prepared and not self._held.is_stopped(run)]
        return sorted(waiting, key=lambda run: (-run.job.priority, active[run.job.tenant], run.job.created_at))

    async def _open(self, run: JobRun, take: TakeRun, host: int) -> None:
        if take.stage is not Stage.OPENING or take.host != host:
            return  # it was let go before this could begin
        try:
            await self._finishing.find_cached(take)  # another job may have rendered it, or a host that was lost since
            if take.done:
                self._found(run, take)
                return
            if take.host != host:
                return
            opened = await self._hosts.open(run, take)
        except LongtakeError as error:
            self._outcomes.take_lost(run, take, error)
            return
        if take.stage is not Stage.OPENING or take.host != host or not self._held.holds(run):  # it was let go meanwhile
            await self._hosts.close_at(host, take, save=False)
            return
        moves = self._hosts.moves(take)
        take.opened(moves=moves)
        take.report(opened.progress, self._clock())
        self._counters.host_works(host)
        self._log_opened(take, opened, host)
        self._held.tell_scheduler(run)
        if moves:
            await self.release(take)
            return
        self._rendering.tell_ready(take, opened.ready)
        for call, gang in opened.running:
            self._outcomes.spawn(self._rendering.join(run, take, call, gang), run)
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
        self._held.release_content(take)
        self._held.tell_scheduler(run)
        self._finishing.advance(run)
        self._outcomes.spawn(self._finishing.clear_checkpoints(take), run)

    # ------------------------------------------------------------------------------------------------ leaving a host

    def on_host(self, host: int) -> list[TakeRun]:
        """Takes that a host renders, opens, or makes durable: those that must leave it before it moves."""
        return [take for take in self._held.takes() if take.host == host and (take.held or take.stage is Stage.OPENING)]

    def rest(self, take: TakeRun) -> None:
        """Give out nothing more of a take, until it is opened again."""
        if take.stage is Stage.RENDERING:
            take.rest()
        self._held.rest(take)

    def needs_host(self, take: TakeRun) -> bool:
        """Whether a call of it is out, it is being decoded or opened, or its latents are being made durable."""
        under_way = take.stage in (Stage.OPENING, Stage.FINISHING)
        return under_way or self._held.has_calls_out(take) or self._finishing.is_decoding(take)

    async def release(self, take: TakeRun) -> None:
        """Have its host save a take that rests, or whose latents are still being made durable, and let it go; it is
        opened again where there is room."""
        if take.stage not in (Stage.RESTING, Stage.FINISHING) or take.id.job_id not in self._held.runs:
            return
        take.release()
        self._held.lost(take)
        try:
            await self._hosts.close(take, save=True)
        finally:
            take.begin_again()
            self._wake.set()
