"""Storyboard to film in one process tree: the farm's timeline, gangs, decoder and assembler, without a farm.

One loop: give ready calls to idle gangs, take in their predictions, pass finished latents on to the finisher. The film
depends on the plan and the numerics key alone; the order of calls, the number of gangs and their deaths change nothing.
"""

import contextlib
import hashlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch

from serving import settings
from serving.errors import Fault, ModelError, OutOfSpace
from serving.models.wan import WanModel
from serving.models.weight_shapes import check_weight_shapes
from serving.planning.content_keys import take_texts
from serving.planning.plan import FilmPlan, TakePlan
from serving.render.conditions import NO_PICTURES, arrays_of, make_condition
from serving.render.local.call_cost import CallCost, record_cost
from serving.render.local.finisher import publish, remove_partial, run_finisher
from serving.render.local.gang_pool import CallAnswer, GangPool
from serving.render.local.kept_latents import write_latents
from serving.render.local.processes import begin_server, start_process
from serving.render.local.progress import Progress
from serving.render.manifest import build_manifest, write_manifest
from serving.render.messages import (
    FilmDone,
    FilmInputs,
    FinishedLatents,
    FinisherError,
    GangCall,
    HeadFinished,
    TakeInputs,
)
from serving.render.takes import call_input, open_recipe, open_timeline
from serving.render.threads import one_thread
from sharding.denoiser import Condition
from sharding.gang_shape import GangShape
from sharding.timeline import Call, Timeline, head_first

ONE_RANK = GangShape()

WAIT_S = 1.0
"""Seconds to wait for an event before looking again."""


def render_film(
    plan: FilmPlan,
    *,
    model: WanModel,
    out: Path,
    gangs: int | None = None,
    shape: GangShape = ONE_RANK,
    keep_latents: Path | None = None,
    pictures: Mapping[str, bytes] = NO_PICTURES,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Render the film to `out` and its manifest beside it; returns the manifest.

    `gangs` of `shape`, a process for each rank (default: as many as there are GPUs for, or cores if there is none).
    `keep_latents` is for the finished latents of each take; `pictures` are the files of its assets by sha256. On any
    error or interrupt before the film is complete no file is left. Raises ModelError for weights that are not the
    model's, before any gang starts; OutOfSpace; Fault.
    """
    started = time.monotonic()
    num_gangs = gangs or gangs_of_this_machine(shape)
    with ExitStack() as stack:
        stack.callback(remove_partial, out)
        stack.enter_context(one_thread())  # the text encoder and the solver run here
        begin_server()
        check_weight_shapes(model.checkpoint)
        conditions = [make_condition(plan, take, model, pictures) for take in plan.takes]
        inputs = _film_inputs(plan, model, conditions)
        finisher = stack.enter_context(_finisher(plan, model.name, out))
        pool: GangPool[Ticket] = GangPool(model.name, inputs, num_gangs, shape=shape)
        stack.callback(pool.close)
        render = _Render(plan, model, conditions, pool, finisher, on_progress)
        done = render.run()
        publish(done.partial, out)
    elapsed = time.monotonic() - started
    latents_sha256 = [take.sha256() for take in render.takes]
    if shape.ranks == 1:  # what is remembered is the cost of one rank
        record_cost(model, plan, render.cost)
    manifest = build_manifest(
        plan,
        name=out.name,
        film=done.film,
        weights_sha256=model.weights_hash(),
        numerics=pool.numerics,
        latents_sha256=latents_sha256,
        timings={
            "total_s": elapsed,
            "gang_s": render.cost.seconds,
            "decode_s": done.decode_s,
            "encode_s": done.film.encode_s,
        },
        gangs=num_gangs,
    )
    write_manifest(manifest, out.parent)
    if keep_latents is not None:
        takes = zip(render.takes, latents_sha256, strict=True)
        write_latents([(take.plan.key, sha256, take.latents()) for take, sha256 in takes], keep_latents)
    return manifest


def gangs_of_this_machine(shape: GangShape) -> int:
    """Gangs of a shape that this machine has GPUs for, or cores if it has no GPU; at least one."""
    if torch.cuda.is_available():
        places = torch.cuda.device_count()
    else:
        places = multiprocessing.cpu_count() // shape.threads
    return min(settings.MAX_GANGS, max(1, places // shape.ranks))


@dataclass(eq=False)
class _Take:
    """A take while it is rendered."""

    index: int
    plan: TakePlan
    timeline: Timeline
    sent: int = 0
    """Latents passed on to the finisher."""
    in_flight: set[Call] = field(default_factory=set)

    def waiting(self) -> list[Call]:
        """Ready calls that no gang has, head first."""
        return sorted((call for call in self.timeline.ready() if call not in self.in_flight), key=head_first)

    def take_unsent(self) -> np.ndarray:
        """The next finished latents that the finisher does not have yet, float32 [n, C, h, w]; n may be 0."""
        until = min(self.timeline.finished_head, self.sent + settings.MAX_FINISHER_BATCH_LATENTS)
        latents = [self.timeline.latent(n).numpy() for n in range(self.sent, until)]
        self.sent = until
        return np.stack(latents) if latents else np.empty((0,), np.float32)

    def latents(self) -> torch.Tensor:
        return torch.stack([self.timeline.latent(n) for n in range(self.plan.latents)])

    def sha256(self) -> str:
        """Of the finished latents, float32 little-endian [N, C, h, w]."""
        return hashlib.sha256(self.latents().numpy().astype("<f4").tobytes()).hexdigest()


Ticket = tuple[_Take, Call]


class _Render:
    """The state of one render and the loop that moves it."""

    def __init__(
        self,
        plan: FilmPlan,
        model: WanModel,
        conditions: Sequence[Condition],
        pool: GangPool[Ticket],
        finisher: Connection,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._plan = plan
        self._pool = pool
        self._finisher = finisher
        self._on_progress = on_progress
        self.takes = [
            _Take(k, take, self._open(take, model, condition))
            for k, (take, condition) in enumerate(zip(plan.takes, conditions, strict=True))
        ]
        self.cost = CallCost()
        self._calls_done = 0
        self._frames_encoded = 0
        self._first_call: float | None = None
        self._latents_sent = self._latents_decoded = 0
        self._done: FilmDone | None = None

    def run(self) -> FilmDone:
        """Render until the finisher has the whole film."""
        while self._done is None:
            self._give_out()
            wait([*self._pool.connections, self._finisher], timeout=WAIT_S)
            self._take_in()
            self._hear_finisher()
            self._pass_on()
            self._on_progress(self._progress())
        return self._done

    def _open(self, take: TakePlan, model: WanModel, condition: Condition) -> Timeline:
        given = {n: latent.numpy() for n, latent in condition.given.items()}
        recipe = open_recipe(self._plan, take, capabilities=model.capabilities, solver_of=model.solver)
        return open_timeline(self._plan, take, capabilities=model.capabilities, recipe=recipe, given=given)

    def _give_out(self) -> None:
        """Fill idle gangs with ready calls, earlier takes first: the film grows from its head."""
        for take in self.takes:
            if not self._pool.num_idle:
                return
            for call in take.waiting()[: self._pool.num_idle]:
                take.in_flight.add(call)
                self._first_call = self._first_call or time.monotonic()
                content = call_input(take.timeline, call, take=take.plan)
                self._pool.give((take, call), GangCall(take.plan.key, content))

    def _take_in(self) -> None:
        for event in self._pool.events():
            take, call = event.ticket
            take.in_flight.discard(call)
            if isinstance(event, CallAnswer):
                take.timeline.accept(call, torch.from_numpy(event.output.prediction_nChw))
                self._calls_done += 1
                self.cost.add(latents=len(call.reads), seconds=event.output.seconds)

    def _pass_on(self) -> None:
        """Send finished latents, in the order of the film, to a finisher that waits for some.

        Only to one that waits: sending to a busy one would block this loop, and with it every gang.
        """
        if self._latents_decoded < self._latents_sent:
            return
        take = next((take for take in self.takes if take.sent < take.plan.latents), None)
        if take is not None and len(latents := take.take_unsent()):
            self._latents_sent += len(latents)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # why it died is read in _hear_finisher
                self._finisher.send(FinishedLatents(latents))

    def _hear_finisher(self) -> None:
        try:
            while self._finisher.poll():
                message = self._finisher.recv()
                if isinstance(message, FinisherError) and message.model_unfit:
                    raise ModelError(message.text)
                if isinstance(message, FinisherError) and message.disk_full:
                    raise OutOfSpace(message.text)
                if isinstance(message, FinisherError):
                    raise Fault(f"the film could not be finished:\n{message.text}")
                if isinstance(message, FilmDone):
                    self._done = message
                    self._frames_encoded = message.film.frames
                    return
                assert isinstance(message, HeadFinished)
                self._latents_decoded, self._frames_encoded = message.latents, message.frames
        except (EOFError, ConnectionResetError) as error:
            raise Fault("the process that decodes and encodes the film died") from error

    def _progress(self) -> Progress:
        left = None
        if self._calls_done and self._first_call is not None:
            pace = (time.monotonic() - self._first_call) / self._calls_done
            left = pace * (self._plan.calls - self._calls_done)
        return Progress(
            calls_done=self._calls_done,
            calls_total=self._plan.calls,
            latents_finished=sum(take.timeline.num_finished for take in self.takes),
            latents_total=self._plan.latents,
            frames_encoded=self._frames_encoded,
            frames_total=self._plan.frames,
            seconds_left=left,
        )


def _film_inputs(plan: FilmPlan, model: WanModel, conditions: Sequence[Condition]) -> FilmInputs:
    """Every prompt and negative of the film, encoded once, with what the takes' pictures became."""
    texts = sorted({text for take in plan.takes for text in take_texts(take)})
    embeddings = {text: e.numpy() for text, e in zip(texts, model.encode_prompts(texts), strict=True)}
    return FilmInputs(
        {
            take.key: TakeInputs({text: embeddings[text] for text in take_texts(take)}, arrays_of(condition.beside))
            for take, condition in zip(plan.takes, conditions, strict=True)
        }
    )


@contextmanager
def _finisher(plan: FilmPlan, model_name: str, out: Path) -> Iterator[Connection]:
    process, connection = start_process(run_finisher, plan, model_name, out, name="longtake-finisher")
    try:
        yield connection
    finally:
        connection.close()
        process.terminate()
        process.join()
