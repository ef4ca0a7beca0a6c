"""A timeline host: holds the timelines of several takes, sends their calls to gangs, and keeps checkpoints.

The Director says which call goes to which gang; the tensors go from here to that gang and back. What a host holds can
be lost at any moment: it goes on from the newest checkpoint to the same bits. A plain class without Ray; what it calls
(gangs, decoders) is anything with the same awaitable methods.
"""

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from serving import settings
from serving.errors import Fault, GangDied, NotHeld, StaleToken, UnknownInputs
from serving.models.latent_rgb import shipped_rgb
from serving.models.registry import open_model
from serving.models.wan import WanModel
from serving.render.conditions import unpack_condition
from serving.render.farm_messages import (
    CallReport,
    CallTimes,
    CheckpointCounts,
    Decoded,
    DecodeOrder,
    OpenCall,
    Outcome,
    Resumed,
    TakeId,
    TakeOpened,
    TakeOrder,
    TakeProgress,
    encode_runs,
)
from serving.render.latent_preview import LatentPreview, learned_rgb
from serving.render.messages import Array, CallInput, CallOutput, TakeInputs
from serving.render.takes import call_input, open_recipe, open_timeline
from serving.render.tensors import as_tensor
from serving.store.artifact_keys import preview_artifact
from serving.store.artifacts import Artifacts
from serving.store.checkpoints import Checkpoints
from serving.store.latents import read_condition, read_prompts, write_latents
from sharding.prompts import count_prompts
from sharding.stitching import Schedule
from sharding.timeline import Call, Timeline

log = logging.getLogger(__name__)

MAX_TOLD_PROBLEMS = 8
"""Failed checkpoints of which a timeline host tells why, of those since it told last."""

MAX_TIMELINE_RUNS = 200
"""Runs of equal steps by which it is told how far the latents of one take are; more are told coarser."""

PREVIEW_EVERY_S = 2.0
"""Seconds between two pictures of a take while it is denoised."""


class GangHandle(Protocol):
    """A gang as a host uses it. A gang that is gone raises GangDied."""

    def keep_inputs(self, key: str, inputs: TakeInputs) -> Awaitable[None]: ...

    def predict(self, call: CallInput, inputs_key: str) -> Awaitable[CallOutput]: ...


class DecoderHandle(Protocol):
    """A decoder as a host uses it; see TakeDecoder for what its answers mean."""

    def decode(self, order: DecodeOrder, start: int, latents_nChw: Array) -> Awaitable[Decoded]: ...


@dataclass(eq=False)
class _HeldTake:
    """A take that is held here."""

    order: TakeOrder
    token: int
    model: WanModel
    schedule: Schedule
    timeline: Timeline
    checkpoints: Checkpoints
    inputs: TakeInputs
    sequence: Iterator[int]
    calls_done: int
    saved_at: float
    """Monotonic seconds at which the last checkpoint was begun."""
    saved_calls: int
    """Calls done at the last checkpoint."""
    durable_at: float
    """Monotonic seconds of the last checkpoint that was written, or when it was opened."""
    closed: bool = False
    """It was let go; calls of it may still be out."""
    saving: asyncio.Task[None] | None = None
    running: dict[tuple[Call, str], asyncio.Task[CallReport]] = field(default_factory=dict)
    """Calls that a gang was sent, by call and gang. A call may be with two, where one of them is stuck."""
    inputs_at: set[str] = field(default_factory=set)
    """Gangs that hold its inputs."""
    announced: set[Call] = field(default_factory=set)
    preview: LatentPreview | None = None
    """None for a model whose latents nobody knows the colours of yet."""
    showing: asyncio.Task[None] | None = None
    """Publishes a preview."""
    shown_at: float = 0.0
    """Monotonic seconds of the last preview."""
    has_preview: bool = False
    """One was published since the take was opened here."""

    @property
    def inputs_key(self) -> str:
        return self.order.content_key

    def progress(self) -> TakeProgress:
        steps = self.timeline.latent_steps()
        count = Counter(steps)
        counts = tuple(count[i] for i in range(self.order.plan.steps + 1))
        reached = encode_runs(steps, most=MAX_TIMELINE_RUNS)
        unsaved_s = time.monotonic() - self.durable_at
        head = self.timeline.finished_head
        return TakeProgress(counts, head, self.calls_done, reached, self.has_preview, unsaved_s)

    def announce(self) -> tuple[OpenCall, ...]:
        """Calls that are ready and that the Director has not been told of."""
        fresh = [call for call in self.timeline.ready() if call not in self.announced]
        self.announced.update(fresh)
        return tuple(self._open_call(call) for call in fresh)

    def opened(self, resumed: Resumed) -> TakeOpened:
        """The answer to a Director that has just opened it: every call that is ready or with a gang."""
        running = tuple((self._open_call(call), gang) for call, gang in self.running)
        self.announced = {call for call, _ in self.running}
        return TakeOpened(self.announce(), running, self.progress(), resumed)

    def show(self, call: Call, content: CallInput, prediction: Tensor) -> None:
        """Note what the clean latents of a call look like by now."""
        if self.preview is not None:
            noisy = torch.from_numpy(content.latents_nChw)
            if content.shares:
                prediction = prediction * torch.tensor(content.shares).view(-1, 1, 1, 1)
            self.preview.show(call.reads.start, self.timeline.solver.clean(call.step, noisy, prediction).numpy())

    def _open_call(self, call: Call) -> OpenCall:
        evaluations = count_prompts(self.order.take.prompt_changes, call.reads)
        expert = self.model.expert_of(self.timeline.solver.timestep(call.step))
        left = self.schedule.calls_left(call.step, call.span)
        return OpenCall(call.step, call.chunk, call.span.start, len(call.reads), evaluations, left, expert)


class TimelineHost:
    """Holds takes. All methods are called by one Director at a time; an older one is refused by its token."""

    def __init__(
        self,
        artifacts: Artifacts,
        decoder: DecoderHandle,
        *,
        checkpoint_every_s: float,
        checkpoint_every_steps: int,
    ) -> None:
        self._artifacts = artifacts
        self._decoder = decoder
        self._checkpoint_every_s = checkpoint_every_s
        self._checkpoint_every_steps = checkpoint_every_steps
        self._takes: dict[TakeId, _HeldTake] = {}
        self._checkpoints = CheckpointCounts()
        """Since the Director was told of them last."""
        self._tokens: dict[TakeId, int] = {}
        """The highest token seen, kept after a take was closed."""
        self._models: dict[str, WanModel] = {}
        # One at a time: diffusers imports its parts when first asked for, which two threads must not do at once.
        self._loader = ThreadPoolExecutor(max_workers=1)
        torch.set_num_threads(1)  # as in a gang: the solver's bits must not depend on the machine's cores

    # ------------------------------------------------------------------------------------------------ takes

    async def open_take(self, order: TakeOrder) -> TakeOpened:
        """Hold a take. One that is held already, for an older Director, is kept as it is and answers to the new token.

        Raises StaleToken, Fault.
        """
        self._check_token(order.take_id, order.token)
        held = self._takes.get(order.take_id)
        if held is not None and held.order.content_key == order.content_key:
            held.token = order.token
            return held.opened("memory")
        opened, resumed = await asyncio.get_running_loop().run_in_executor(self._loader, self._load, order)
        self._check_token(order.take_id, order.token)  # it may have changed meanwhile
        self._takes[order.take_id] = opened
        return opened.opened(resumed)

    async def close_take(self, take_id: TakeId, token: int, *, save: bool) -> None:
        """Let a take go, with a checkpoint if it is to go on elsewhere. Calls that are out end on their gangs, where
        nothing can stop them, and are reported, but change nothing any more. Unknown takes are no error."""
        self._check_token(take_id, token)
        held = self._takes.pop(take_id, None)
        if held is None:
            return
        held.closed = True
        if held.saving is not None:
            await asyncio.wait([held.saving])
        if save:
            await self._save(held)

    def held(self) -> dict[TakeId, int]:
        """The takes held here and the token that each answers to."""
        return {take_id: held.token for take_id, held in self._takes.items()}

    # ------------------------------------------------------------------------------------------------ calls

    async def run_call(
        self,
        take_id: TakeId,
        token: int,
        *,
        step: int,
        chunk: int,
        gang: str,
        handle: GangHandle | None,
        timeout_s: float,
    ) -> CallReport:
        """Send a ready call to a gang and take its prediction in. Asked again for a call that this gang has, it
        answers with the outcome of the first; without a handle it does nothing else. Raises StaleToken, NotHeld.
        """
        held = self._held(take_id, token)
        call = next((call for call in held.timeline.ready() if (call.step, call.chunk) == (step, chunk)), None)
        if call is not None and (call, gang) not in held.running and handle is not None:
            held.running[call, gang] = asyncio.ensure_future(self._run(held, call, gang, handle, timeout_s))
        if call is None or (call, gang) not in held.running:
            return self._report(held, "not_ready", 0.0, "the timeline has gone on without it")
        return await asyncio.shield(held.running[call, gang])

    async def _run(self, held: _HeldTake, call: Call, gang: str, handle: GangHandle, timeout_s: float) -> CallReport:
        started = time.monotonic()
        outcome: Outcome = "done"
        detail = ""
        seconds: float | None = None
        times: CallTimes | None = None
        try:
            content = call_input(held.timeline, call, take=held.order.take)
            sent = time.monotonic()
            output = await asyncio.wait_for(self._predict(held, content, gang, handle), timeout_s)
            answered = time.monotonic()
            seconds = output.seconds
            prediction = as_tensor(output.prediction_nChw)
            if held.closed:
                outcome, detail = "not_ready", "the take was let go"
            elif held.timeline.accept(call, prediction):
                held.show(call, content, prediction)
                held.calls_done += 1
                wait_s = max(0.0, answered - sent - seconds)
                times = CallTimes(sent - started, wait_s, seconds, time.monotonic() - answered)
            else:
                outcome, detail = "not_ready", "another gang was faster"
        except TimeoutError:
            outcome, detail = "timed_out", f"no answer within {timeout_s:.1f} s"
        except GangDied as error:
            outcome, detail = "gang_died", str(error)
        except ValueError as error:  # the timeline refused it: not finite, or of another shape
            outcome, detail = "bad_prediction", str(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            outcome, detail = "call_raised", f"{type(error).__name__}: {error}"
        finally:
            held.running.pop((call, gang), None)
        if outcome == "done":
            self._after_call(held)
        return self._report(held, outcome, time.monotonic() - started if seconds is None else seconds, detail, times)

    async def _predict(self, held: _HeldTake, content: CallInput, gang: str, handle: GangHandle) -> CallOutput:
        if gang not in held.inputs_at:
            held.inputs_at.add(gang)
            await handle.keep_inputs(held.inputs_key, held.inputs)
        try:
            return await handle.predict(content, held.inputs_key)
        except UnknownInputs:
            await handle.keep_inputs(held.inputs_key, held.inputs)  # the gang had let them go
            return await handle.predict(content, held.inputs_key)

    def _report(
        self, held: _HeldTake, outcome: Outcome, seconds: float, detail: str, times: CallTimes | None = None
    ) -> CallReport:
        checkpoints, self._checkpoints = self._checkpoints, CheckpointCounts()
        return CallReport(outcome, seconds, detail, held.announce(), held.progress(), times, checkpoints)

    def _after_call(self, held: _HeldTake) -> None:
        """Begin a preview and a checkpoint if they are due."""
        showing = held.showing is not None and not held.showing.done()  # a store that fails gets one at a time
        if not showing and time.monotonic() - held.shown_at >= PREVIEW_EVERY_S:
            self._show(held)
        calls_per_step = held.order.take.calls / held.order.plan.steps
        due = (
            held.calls_done - held.saved_calls >= self._checkpoint_every_steps * calls_per_step
            or time.monotonic() - held.saved_at >= self._checkpoint_every_s
        )
        if due and held.saving is None and not held.timeline.done:
            held.saving = asyncio.ensure_future(self._save(held))
            held.saving.add_done_callback(lambda task: self._saved(held, task))

    def _show(self, held: _HeldTake) -> None:
        """Publish a picture of the take as it is, after the one before it."""
        if held.preview is not None:
            held.shown_at = time.monotonic()
            held.showing = asyncio.ensure_future(self._publish_preview(held, held.preview, held.showing))

    async def _publish_preview(
        self, held: _HeldTake, preview: LatentPreview, before: asyncio.Task[None] | None
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        picture = await asyncio.to_thread(preview.png)
        try:
            if picture is not None:
                await asyncio.to_thread(self._artifacts.put, preview_artifact(held.order.content_key), picture)
                held.has_preview = True
        except Fault as error:  # a picture is not worth a retry
            log.info("its preview failed: %s", error, extra={"action": "preview_failed", **held.order.take_id.ids})

    # ------------------------------------------------------------------------------------------------ checkpoints

    async def _save(self, held: _HeldTake) -> None:
        """Write a checkpoint of the timeline as it is now."""
        begun_at = held.saved_at = time.monotonic()
        held.saved_calls = held.calls_done
        snapshot = held.timeline.snapshot()
        try:
            num_bytes = await asyncio.to_thread(
                held.checkpoints.save, snapshot, token=held.token, sequence=next(held.sequence)
            )
        except Exception as error:
            problems = (*self._checkpoints.problems, (held.order.take_id, f"{type(error).__name__}: {error}"))
            kept = problems[-MAX_TOLD_PROBLEMS:]
            self._checkpoints = replace(self._checkpoints, failed=self._checkpoints.failed + 1, problems=kept)
            raise
        held.durable_at = begun_at
        self._checkpoints = replace(
            self._checkpoints, written=self._checkpoints.written + 1, bytes=self._checkpoints.bytes + num_bytes
        )

    def _saved(self, held: _HeldTake, task: asyncio.Task[None]) -> None:
        held.saving = None
        error = None if task.cancelled() else task.exception()
        if error is not None:  # the take goes on; the next checkpoint may succeed
            take = held.order.take_id
            log.warning("its checkpoint failed: %s", error, extra={"action": "checkpoint_failed", **take.ids})

    def _load(self, order: TakeOrder) -> tuple[_HeldTake, Resumed]:
        torch.set_num_threads(1)
        model = self._model(order.plan.model)
        recipe = open_recipe(order.plan, order.take, capabilities=model.capabilities, solver_of=model.solver)
        checkpoints = Checkpoints(self._artifacts, order.content_key)
        loaded = checkpoints.load_newest()
        given, beside = self._read_condition(order)
        if loaded is None:
            timeline = open_timeline(
                order.plan, order.take, capabilities=model.capabilities, recipe=recipe, given=given
            )
        else:
            timeline = Timeline.restore(loaded.snapshot, recipe)
        calls_done = timeline.num_reported() if loaded is not None else 0
        rgb = shipped_rgb(model.folder) or learned_rgb(self._artifacts, order.weights)
        held = _HeldTake(
            order=order,
            token=order.token,
            model=model,
            timeline=timeline,
            schedule=order.take.schedule(order.plan.steps),
            checkpoints=checkpoints,
            inputs=TakeInputs(read_prompts(self._artifacts, order.prompt_keys), beside),
            sequence=itertools.count(loaded.sequence + 1 if loaded is not None and loaded.token >= order.token else 0),
            calls_done=calls_done,
            saved_at=time.monotonic(),
            saved_calls=calls_done,
            durable_at=time.monotonic(),
            preview=None if rgb is None else LatentPreview(order.take.latents, rgb),
        )
        return held, "noise" if loaded is None else "checkpoint"

    def _read_condition(self, order: TakeOrder) -> tuple[dict[int, Array], dict[str, Array]]:
        if not order.take.conditioned:
            return {}, {}
        return unpack_condition(read_condition(self._artifacts, order.content_key))

    # ------------------------------------------------------------------------------------------------ finishing

    async def finish_take(self, take_id: TakeId, token: int) -> str:
        """Make the latents of a take that is done durable and drop its checkpoints; returns their sha256. It stays
        held until it is closed. Raises StaleToken, ValueError if it is not done.
        """
        held = self._held(take_id, token)
        if not held.timeline.done:
            raise ValueError(f"take {take_id} is not done")
        self._show(held)
        latents = self._latents(held, 0, held.timeline.num_latents)
        sha256 = await asyncio.to_thread(write_latents, self._artifacts, held.order.content_key, latents)
        if held.saving is not None:  # a checkpoint that is still being written would stay
            await asyncio.wait([held.saving])
        await asyncio.to_thread(held.checkpoints.clear)
        return sha256

    async def feed_decoder(self, take_id: TakeId, token: int, *, start: int) -> Decoded:
        """Send the decoder the finished latents of a take's head from `start` on, a bounded number at once.

        A decoder that expects others, because it is new, says so, and is sent those.
        """
        held = self._held(take_id, token)
        until = min(held.timeline.finished_head, start + settings.MAX_FINISHER_BATCH_LATENTS)
        order = DecodeOrder(held.order.plan, held.order.take, held.order.content_key)
        return await self._decoder.decode(order, start, self._latents(held, start, until))

    def _latents(self, held: _HeldTake, start: int, stop: int) -> Array:
        if start >= stop:
            return np.empty((0, 1, 1, 1), np.float32)
        return np.stack([held.timeline.latent(n).numpy() for n in range(start, stop)])

    # ------------------------------------------------------------------------------------------------ inner

    def _held(self, take_id: TakeId, token: int) -> _HeldTake:
        self._check_token(take_id, token)
        if take_id not in self._takes:
            raise NotHeld(f"take {take_id} is not held here")
        return self._takes[take_id]

    def _check_token(self, take_id: TakeId, token: int) -> None:
        if token < self._tokens.get(take_id, 0):
            raise StaleToken(f"take {take_id} answers to token {self._tokens[take_id]}, not {token}")
        self._tokens[take_id] = token

    def _model(self, name: str) -> WanModel:
        if name not in self._models:
            self._models[name] = open_model(name)
        return self._models[name]
