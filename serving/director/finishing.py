"""From finished latents to the film: takes are made durable and decoded while they render, then joined.

Decoding loses nothing: what fails is tried again from what is durable. Nothing here gives calls to gangs.
"""

import asyncio
import contextlib
import logging

from serving import settings
from serving.director.context import Desk, NoRoomOrStore
from serving.director.outcomes import Endings
from serving.director.runs import JobRun, Stage, TakeRun
from serving.errors import ArtifactMissing, ArtifactsUnavailable, HostLost, LongtakeError, NotHeld, StaleToken
from serving.render.farm_messages import AssembleOrder, DecodeOrder
from serving.store.artifact_keys import checkpoints_folder

log = logging.getLogger(__name__)

DECODE_AT_LATENTS = 4
"""Finished latents at a take's head that are worth a message to the decoder while the take still renders."""


class Finishing:
    """Finishes the takes and films of one Director."""

    def __init__(self, desk: Desk, endings: Endings) -> None:
        self._desk = desk
        self._endings = endings

    async def clear_checkpoints(self, take: TakeRun) -> None:
        """Those that a host had no time to remove; what stays now goes by retention."""
        with contextlib.suppress(ArtifactsUnavailable):
            await asyncio.to_thread(self._desk.artifacts.delete_folder, checkpoints_folder(take.content_key))

    def after_report(self, run: JobRun, take: TakeRun) -> None:
        """Begin what a take's progress allows: decode its head, make its latents durable."""
        assert take.progress is not None
        if take.resting and not take.progress.done:
            return
        if take.progress.done and not take.finishing and take.stage is Stage.RENDERING:
            take.finishing = True
            self._desk.spawn(self._finish_take(run, take), run)
        grown = take.progress.finished_head - take.decoded_latents
        if not take.feeding and (grown >= DECODE_AT_LATENTS or (take.progress.done and grown > 0)):
            take.feeding = True
            self._desk.spawn(self._feed(run, take), run)

    async def _finish_take(self, run: JobRun, take: TakeRun) -> None:
        assert take.host is not None
        try:
            await self._desk.hosts[take.host].finish_take(take.id, self._desk.generation)
        except LongtakeError as error:
            self._endings.host_failed(run, take, error)
            return
        finally:
            take.finishing = False
        take.stage = Stage.RENDERED
        self._desk.state.put_job(self._desk.spec(run))
        log.info("take %s is rendered", take.plan.key, extra={"action": "take_rendered", **take.id.ids})
        await self._desk.note(run, "take_rendered", f"take {take.plan.key} is rendered", {"take": take.plan.key})
        self.advance(run)

    async def _feed(self, run: JobRun, take: TakeRun) -> None:
        """Send the decoder the head of a take, until it has all that is finished."""
        try:
            while take.host is not None and take.progress and take.decoded_latents < take.progress.finished_head:
                decoded = await self._desk.hosts[take.host].feed_decoder(
                    take.id, self._desk.generation, start=take.decoded_latents
                )
                self._desk.counting.decoded(run.job.pool, decoded)
                take.hear_decoded(decoded)
                take.decode_failures = 0
                if decoded.complete:
                    take.decode_complete = True
        except (HostLost, NotHeld, StaleToken) as error:
            if take.stage is Stage.RENDERING:
                self._endings.host_failed(run, take, error)
            else:
                if isinstance(error, HostLost) and take.host is not None:
                    self._desk.counting.host_lost(take.host)
                take.host = None  # its latents are durable: they are decoded from there
        except Exception as error:
            await self._decode_failed(run, take, error)
        finally:
            take.feeding = False
        if take.progress and take.stage is Stage.RENDERING:
            self.after_report(run, take)
        self.advance(run)

    async def _decode_stored(self, run: JobRun, take: TakeRun) -> None:
        try:
            decoded = await self._desk.decoder.decode_stored(DecodeOrder(run.plan, take.plan, take.content_key))
            self._desk.counting.decoded(run.job.pool, decoded)
            take.hear_decoded(decoded)
            take.decode_complete = decoded.complete
        except ArtifactMissing as error:  # its latents were swept or lost: it is rendered again
            log.warning(
                "take %s is rendered again: %s", take.plan.key, error, extra={"action": "render_again", **take.id.ids}
            )
            take.begin_again()
            take.head_frames, take.has_preview = 0, False  # they went with the latents
            self._desk.state.put_job(self._desk.spec(run))
        except Exception as error:
            await self._decode_failed(run, take, error)
        finally:
            take.feeding = False
        self.advance(run)

    async def _decode_failed(self, run: JobRun, take: TakeRun, error: Exception) -> None:
        """Try again a while later, from what is durable or from the first latent: decoding loses nothing."""
        take.decode_failures += 1
        about = {"tries": take.decode_failures, **take.id.ids}
        log.warning("decoding take %s failed: %s", take.plan.key, error, extra={"action": "decode_failed", **about})
        if take.decode_failures >= settings.MAX_DECODE_TRIES and not isinstance(error, NoRoomOrStore):
            message = f"take {take.plan.key} could not be decoded: {error}"
            await self._endings.fail_run(run, {"code": "decode_failed", "message": message})
            return
        await asyncio.sleep(settings.DECODE_RETRY_S * 2 ** min(take.decode_failures, settings.MAX_DECODE_TRIES))

    def advance(self, run: JobRun) -> None:
        """Move takes that are rendered on to frames, and a job whose takes all are on to its film."""
        if run.id not in self._desk.runs:
            return
        for take in run.takes:
            if take.stage is Stage.RENDERED and take.decode_complete:
                take.stage = Stage.DECODED
                self._desk.by_content.pop(take.content_key, None)
                cached = " from what was there" if take.cached else ""
                log.info("take %s is done%s", take.plan.key, cached, extra={"action": "take_done", **take.id.ids})
                self._desk.spawn(self._endings.close(take, save=False), run)
                self._desk.spawn(
                    self._desk.note(run, "take_done", f"take {take.plan.key} is done", {"take": take.plan.key}), run
                )
            elif take.stage is Stage.RENDERED and not take.feeding:
                take.feeding = True
                decode = self._decode_stored if take.host is None or take.decode_failures else self._feed
                self._desk.spawn(decode(run, take), run)
        self._wake_sharers(run)
        if all(take.stage is Stage.DECODED for take in run.takes) and not run.finishing:
            run.finishing = True
            self._desk.spawn(self._assemble(run), run)

    def _wake_sharers(self, run: JobRun) -> None:
        """Takes of other jobs that waited for one of this job's look again whether it is there."""
        done = {take.content_key: take for take in run.takes if take.stage is Stage.DECODED}
        for other in self._desk.runs.values():
            for take in other.takes:
                if other is not run and take.stage is Stage.WAITING and take.content_key in done:
                    take.stage, take.cached, take.decode_complete = Stage.RENDERED, True, True
                    take.decoded_frames = take.plan.frames - take.plan.surplus
                    there = done[take.content_key]
                    take.head_frames, take.has_preview = there.head_frames, there.has_preview
                    self._desk.state.put_job(self._desk.spec(other))
                    asyncio.get_running_loop().call_soon(self.advance, other)

    async def _assemble(self, run: JobRun) -> None:
        now = self._desk.clock()
        order = AssembleOrder(
            job_id=run.id,
            plan=run.plan,
            content_keys=tuple(take.content_key for take in run.takes),
            numerics=run.numerics,
            timings={
                "total_s": now - (run.job.started_at or now),
                "gang_s": sum(take.gpu_seconds for take in run.takes) / run.ranks,
            },
            gangs=self._desk.state.num_gangs(run.job.pool),
        )

        try:
            assembled = await self._endings.retrying(run, lambda: self._desk.decoder.assemble(order))
        except ArtifactMissing as error:  # frames that were damaged or swept: made again from the latents
            log.warning("takes are made again: %s", error, extra={"action": "make_again", "job": run.id})
            run.finishing, run.assemblies = False, run.assemblies + 1
            if run.assemblies == settings.MAX_DECODE_TRIES:
                await self._endings.fail_run(run, {"code": "finishing_failed", "message": str(error)[-1000:]})
                return
            for take in run.takes:
                take.begin_again()
                await self._desk.find_cached(take)
            self._desk.state.put_job(self._desk.spec(run))
            self.advance(run)
            return
        if assembled is None:
            return
        self._desk.counting.assembled(run.job.pool, assembled)
        await self._endings.write_all_down()
        await self._endings.end(run, "complete", reason="its film is there", film=assembled.film)
