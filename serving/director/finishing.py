"""From finished latents to the film: takes are made durable and decoded while they render, then joined.

Decoding loses nothing: what fails is tried again from what is durable. Nothing here gives calls to gangs.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from serving.director.held_jobs import HeldJobs
from serving.director.outcomes import DECODE_BACKOFF, MAX_DECODE_TRIES, NoRoomOrStore, Outcomes
from serving.director.patient_store import PatientStore
from serving.director.ports import DecoderPort
from serving.director.reporting.counters import Counters
from serving.director.runs import JobRun, Stage, TakeRun
from serving.director.take_hosts import TakeHosts
from serving.errors import ArtifactMissing, ArtifactsUnavailable, HostLost, LongtakeError, NotHeld, StaleToken
from serving.render.farm_messages import AssembleOrder, Decoded, DecodeOrder
from serving.scheduler.state import FarmState
from serving.store.artifact_keys import (
    checkpoints_folder,
    frames_artifact,
    head_artifact,
    latents_artifact,
    preview_artifact,
)
from serving.store.artifacts import Artifacts

log = logging.getLogger(__name__)

DECODE_AT_LATENTS = 4
"""Finished latents at a take's head that are worth a message to the decoder while the take still renders."""


class Finishing:
    """Finishes the takes and films of one Director. `clock` gives Unix seconds."""

    def __init__(
        self,
        held: HeldJobs,
        state: FarmState,
        hosts: TakeHosts,
        decoder: DecoderPort,
        outcomes: Outcomes,
        artifacts: Artifacts,
        store: PatientStore,
        counters: Counters,
        clock: Callable[[], float],
    ) -> None:
        self._held = held
        self._state = state
        self._hosts = hosts
        self._decoder = decoder
        self._outcomes = outcomes
        self._artifacts = artifacts
        self._store = store
        self._counters = counters
        self._clock = clock
        self._decoding: set[TakeRun] = set()
        """Takes that a decoder is asked about now, or is to be asked about again soon."""

    def is_decoding(self, take: TakeRun) -> bool:
        """Whether its decoder is fed."""
        return take in self._decoding

    async def find_cached(self, take: TakeRun) -> None:
        """What is there of a take need not be made again. A film needs latents too: its manifest names them. Raises
        ArtifactsUnavailable."""
        exists = self._artifacts.exists
        if not await asyncio.to_thread(exists, latents_artifact(take.content_key)):
            return
        has_frames = await asyncio.to_thread(exists, frames_artifact(take.content_key))
        if take.stage in (Stage.WAITING, Stage.OPENING):
            take.found(frames=has_frames)
            await self._find_pictures(take)

    async def _find_pictures(self, take: TakeRun) -> None:
        """What can be looked at of a take that others have rendered."""
        frames = take.plan.frames - take.plan.surplus
        preview, head = preview_artifact(take.content_key), head_artifact(take.content_key, frames)
        there = await asyncio.to_thread(self._artifacts.existing, (preview, head))
        take.has_preview = preview in there
        take.head_frames = frames if head in there else take.head_frames

    async def clear_checkpoints(self, take: TakeRun) -> None:
        """Those that a host had no time to remove; what stays now goes by retention."""
        with contextlib.suppress(ArtifactsUnavailable):
            await asyncio.to_thread(self._artifacts.delete_folder, checkpoints_folder(take.content_key))

    def after_report(self, run: JobRun, take: TakeRun) -> None:
        """Begin what a take's progress allows: decode its head, make its latents durable."""
        assert take.progress is not None
        if take.stage is Stage.RESTING and not take.progress.done:
            return
        if take.progress.done and take.stage in (Stage.RENDERING, Stage.RESTING):
            take.finish()
            self._outcomes.spawn(self._finish_take(run, take), run)
        grown = take.progress.finished_head - take.decoded.latents
        if take not in self._decoding and (grown >= DECODE_AT_LATENTS or (take.progress.done and grown > 0)):
            self._decode(run, take, self._feed)

    async def _finish_take(self, run: JobRun, take: TakeRun) -> None:
        try:
            await self._hosts.finish(take)
        except LongtakeError as error:
            if take.stage is Stage.FINISHING:
                self._outcomes.take_lost(run, take, error)
            return
        if take.stage is not Stage.FINISHING:
            return  # it was let go meanwhile: its latents are found when it is opened again
        take.rendered()
        self._held.tell_scheduler(run)
        log.info("take %s is rendered", take.plan.key, extra={"action": "take_rendered", **take.id.ids})
        await self._store.note(run, "take_rendered", f"take {take.plan.key} is rendered", {"take": take.plan.key})
        self.advance(run)

    # ------------------------------------------------------------------------------------------------ decoding

    def _decode(self, run: JobRun, take: TakeRun, decode: Callable[[JobRun, TakeRun], Awaitable[None]]) -> None:
        """Have a take decoded beside the loop, and go on with what that allows."""
        self._decoding.add(take)

        async def decoding() -> None:
            try:
                await decode(run, take)
            except Exception as error:
                await self._decode_failed(run, take, error)
            finally:
                self._decoding.discard(take)
            if take.progress and take.held:
                self.after_report(run, take)
            self.advance(run)

        self._outcomes.spawn(decoding(), run)

    async def _feed(self, run: JobRun, take: TakeRun) -> None:
        """Send the decoder the head of a take, until it has all that is finished."""
        try:
            while take.host is not None and take.progress and take.decoded.latents < take.progress.finished_head:
                self._hear_decoder(run, take, await self._hosts.feed_decoder(take))
                take.decode_failures = 0
        except (HostLost, NotHeld, StaleToken) as error:
            if take.held:
                self._outcomes.take_lost(run, take, error)
            else:
                if isinstance(error, HostLost) and take.host is not None:
                    self._counters.host_lost(take.host)
                take.host = None  # its latents are durable: they are decoded from there

    async def _decode_stored(self, run: JobRun, take: TakeRun) -> None:
        try:
            order = DecodeOrder(run.plan, take.plan, take.content_key)
            self._hear_decoder(run, take, await self._decoder.decode_stored(order))
        except ArtifactMissing as error:  # its latents were swept or lost: it is rendered again
            about = {"action": "render_again", **take.id.ids}
            log.warning("take %s is rendered again: %s", take.plan.key, error, extra=about)
            take.begin_again()
            take.head_frames, take.has_preview = 0, False  # they went with the latents
            self._held.tell_scheduler(run)

    def _hear_decoder(self, run: JobRun, take: TakeRun, decoded: Decoded) -> None:
        self._counters.decoded(run.job.pool, decoded)
        take.report_decoded(decoded)

    async def _decode_failed(self, run: JobRun, take: TakeRun, error: Exception) -> None:
        """Try again a while later, from what is durable or from the first latent: decoding loses nothing."""
        take.decode_failures += 1
        about = {"tries": take.decode_failures, **take.id.ids}
        log.warning("decoding take %s failed: %s", take.plan.key, error, extra={"action": "decode_failed", **about})
        if take.decode_failures >= MAX_DECODE_TRIES and not isinstance(error, NoRoomOrStore):
            message = f"take {take.plan.key} could not be decoded: {error}"
            await self._outcomes.fail(run, {"code": "decode_failed", "message": message})
            return
        await asyncio.sleep(DECODE_BACKOFF.wait_s(take.decode_failures))

    # ------------------------------------------------------------------------------------------------ the film

    def advance(self, run: JobRun) -> None:
        """Move takes that are rendered on to frames, and a job whose takes all are on to its film."""
        if run.id not in self._held.runs:
            return
        for take in run.takes:
            if take.stage is Stage.RENDERED and take.decoded.complete:
                self._take_done(run, take)
            elif take.stage is Stage.RENDERED and take not in self._decoding:
                self._decode(
                    run, take, self._decode_stored if take.host is None or take.decode_failures else self._feed
                )
        self._wake_sharers(run)
        if all(take.stage is Stage.DECODED for take in run.takes) and not run.assembling:
            run.assembling = True
            self._outcomes.spawn(self._assemble(run), run)

    def _take_done(self, run: JobRun, take: TakeRun) -> None:
        take.has_frames()
        self._held.release_content(take)
        cached = " from what was there" if take.cached else ""
        log.info("take %s is done%s", take.plan.key, cached, extra={"action": "take_done", **take.id.ids})
        self._outcomes.spawn(self._hosts.close(take, save=False), run)
        words = f"take {take.plan.key} is done"
        self._outcomes.spawn(self._store.note(run, "take_done", words, {"take": take.plan.key}), run)

    def _wake_sharers(self, run: JobRun) -> None:
        """Takes of other jobs that waited for one of this job's look again whether it is there."""
        done = {take.content_key: take for take in run.takes if take.stage is Stage.DECODED}
        for other in self._held.runs.values():
            for take in other.takes:
                if other is not run and take.stage is Stage.WAITING and take.content_key in done:
                    take.made_by(done[take.content_key])
                    self._held.tell_scheduler(other)
                    asyncio.get_running_loop().call_soon(self.advance, other)

    async def _assemble(self, run: JobRun) -> None:
        order = self._film_order(run)
        try:
            assembled = await self._outcomes.trying(run, lambda: self._decoder.assemble(order))
        except ArtifactMissing as error:  # frames that were damaged or swept: made again from the latents
            await self._make_again(run, error)
            return
        if assembled is not None:
            self._counters.assembled(run.job.pool, assembled)
            await self._outcomes.complete(run, assembled.film)

    def _film_order(self, run: JobRun) -> AssembleOrder:
        now = self._clock()
        return AssembleOrder(
            job_id=run.id,
            plan=run.plan,
            content_keys=tuple(take.content_key for take in run.takes),
            numerics=run.numerics,
            timings={
                "total_s": now - (run.job.started_at or now),
                "gang_s": sum(take.gpu_seconds for take in run.takes) / run.ranks,
            },
            gangs=self._state.num_gangs(run.job.pool),
        )

    async def _make_again(self, run: JobRun, error: ArtifactMissing) -> None:
        """Make the takes again that are not there, if that was not done too often."""
        log.warning("takes are made again: %s", error, extra={"action": "make_again", "job": run.id})
        run.assembling, run.assemblies = False, run.assemblies + 1
        if run.assemblies == MAX_DECODE_TRIES:
            await self._outcomes.fail(run, {"code": "finishing_failed", "message": str(error)[-1000:]})
            return
        for take in run.takes:
            take.begin_again()
            await self.find_cached(take)
        self._held.tell_scheduler(run)
        self.advance(run)
