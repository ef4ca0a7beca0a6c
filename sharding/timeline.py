"""The timeline: the latents of one take and the step that each has reached. The heart of the project.

A take of N latents is denoised by many gangs as if by one machine. At step i overlapping chunks cover it; a gang
turns a call (step, chunk) into a prediction; overlapping predictions are fused with weights that sum to one; then
each latent takes one solver step, with a history of its own. There is no barrier: a latent advances as soon as every
chunk that covers or reads it has reported, and a call is ready as soon as every latent it reads has reached its step.
A latent may be given, and is finished from the start; a call may have context, latents beside its span that it reads
and does not denoise, at its own step or a later one. At a renewed step a latent arrives as the clean estimate of the
step before and is given new noise: so levels are visited again, and a draft becomes the start of a refinement.

The result is a function of the noise, the solver and the cover alone. Whoever calls may run ready calls in any order,
on any gang, twice or again after a loss: predictions are fused in the order of their chunks, and what comes late or
double changes nothing. Pure: no threads, no clocks, no I/O.

Legend: N latents of the take, n latents of one call, C channels, h and w height and width of a latent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharding.chunks import Cover
from sharding.fusion import weigh
from sharding.solver import History, Solver, VisitingSolver
from sharding.spans import NO_CONTEXT, Context, LatentSpan
from sharding.stitching import Schedule


@dataclass(frozen=True, order=True)
class Call:
    """One unit of work: predict `span` at `step`. `reads` is what the model is given: the span and its context."""

    step: int
    chunk: int
    span: LatentSpan
    reads: LatentSpan


@dataclass(frozen=True)
class Snapshot:
    """All that a timeline holds between two events, in values that share no memory with it."""

    latents: Tensor
    """float32 [N, C, h, w]"""
    steps: tuple[int, ...]
    """The step that each latent has reached."""
    histories: tuple[History, ...]
    """What the solver remembers of each latent."""
    predictions: Mapping[tuple[int, int], Tensor]
    """Accepted but not yet fused everywhere: (step, chunk) -> float32 [n, C, h, w] over the chunk's span."""


@dataclass(frozen=True)
class _Row:
    """The chunks of one step."""

    calls: tuple[Call, ...]
    """One for each chunk, also for those that have nothing to denoise."""
    weights: tuple[Tensor, ...]
    present: tuple[tuple[int, ...], ...]
    """Per call: the latents that must have reached its step; none: all of its span is given, and it is not done."""
    ahead: tuple[tuple[int, ...], ...]
    """Per call: its clean context, latents that must have reached a later step..."""
    ahead_at: tuple[int, ...]
    """...which is this one."""
    readers: tuple[tuple[int, ...], ...]
    """Per latent: the chunks that cover it or read it at this step, ascending."""
    holders: tuple[tuple[Call, ...], ...]
    """Per latent: calls of earlier steps that read it at this one."""


@dataclass(frozen=True)
class Recipe:
    """What a take is denoised by: everything beside the noise that its latents depend on, but the model."""

    solver: Solver
    cover: Cover
    """Names the spans of a step."""
    weigh_spans: Callable[[Sequence[LatentSpan]], Sequence[Tensor]] = weigh
    """Fusing weights of the spans of a step, summing to one at every latent."""
    context: Callable[[int, LatentSpan], Context] = lambda step, span: NO_CONTEXT
    """What the call for a span of this step reads beside it. Context at a later step must be covered by no chunk that
    waits, directly or not, for the span itself; else the take never ends."""
    shares: tuple[float, ...] = ()
    """Per latent: its noise level as a share of the step's, 0..1; empty: 1 for all. A latent with 0 is given: it never
    changes. One between is denoised along with the rest, from the noise that it begins with (Euler solvers only)."""
    renewed: frozenset[int] = frozenset()
    """Steps to which a latent comes clean (the estimate of the step before), and that it begins with new noise of the
    step's level. A solver's history ends there."""
    step_noise: Callable[[int, int], Tensor] | None = None
    """Unit normal noise [C, h, w] of (latent, step), for renewed steps and for solvers that add some."""

    @classmethod
    def of(
        cls,
        schedule: Schedule,
        *,
        solver_of: Callable[[int], Solver],
        step_noise: Callable[[int, int], Tensor],
        shares: tuple[float, ...] = (),
    ) -> "Recipe":
        """The recipe of a schedule; `solver_of` gives a model's solver of so many steps."""
        solvers = {count: solver_of(count) for count in {visit.of_steps for visit in schedule.visits}}
        solver = VisitingSolver(tuple((solvers[visit.of_steps], visit.step) for visit in schedule.visits))
        again = {i for i, visit in enumerate(schedule.visits) if visit.renewed}
        noisy = {i for i in range(1, schedule.num_steps) if solver.level(i) >= schedule.renew_above}
        return cls(
            solver=solver,
            cover=schedule.cover,
            context=schedule.context,
            shares=shares,
            renewed=frozenset(again | noisy),
            step_noise=step_noise,
        )


class Timeline:
    """The state of one take while it is denoised by `recipe`; `noise`, float32 [N, C, h, w], is what it starts from.

    At given latents `noise` holds what is given, and between: (1 - share) of that and `share` of noise.
    """

    def __init__(self, noise: Tensor, recipe: Recipe) -> None:
        self._recipe = recipe
        self._num_steps = recipe.solver.num_steps
        self._latents = noise.clone()
        self._shares = recipe.shares or (1.0,) * len(noise)
        self._steps = [self._num_steps if share == 0 else 0 for share in self._shares]
        self._histories: list[History] = [()] * len(noise)
        self._predictions: dict[tuple[int, int], Tensor] = {}
        self._rows: dict[int, _Row] = {}
        self._awaited: set[int] = set()
        """Later steps that the calls of some row wait for their context to reach."""
        self._ready = self._find_ready()

    @classmethod
    def restore(cls, snapshot: Snapshot, recipe: Recipe) -> "Timeline":
        """The timeline as it was at `snapshot`; `recipe` must be the one it was made with."""
        timeline = cls(snapshot.latents, recipe)
        timeline._steps = list(snapshot.steps)
        timeline._histories = [_copied(history) for history in snapshot.histories]
        timeline._predictions = {key: value.clone() for key, value in snapshot.predictions.items()}
        timeline._ready = timeline._find_ready()
        return timeline

    def snapshot(self) -> Snapshot:
        """A copy of everything that is needed to go on from here."""
        return Snapshot(
            latents=self._latents.clone(),
            steps=tuple(self._steps),
            histories=tuple(_copied(history) for history in self._histories),
            predictions={key: value.clone() for key, value in self._predictions.items()},
        )

    @property
    def num_latents(self) -> int:
        return len(self._steps)

    @property
    def solver(self) -> Solver:
        """What its latents are stepped by."""
        return self._recipe.solver

    @property
    def num_finished(self) -> int:
        """How many latents have taken their last step."""
        return sum(step == self._num_steps for step in self._steps)

    @property
    def finished_head(self) -> int:
        """How many latents, counted from the take's first without a gap, have taken their last step."""
        return next((n for n, step in enumerate(self._steps) if step < self._num_steps), self.num_latents)

    @property
    def done(self) -> bool:
        return self.finished_head == self.num_latents

    def latent_steps(self) -> tuple[int, ...]:
        """The step that each latent has reached."""
        return tuple(self._steps)

    def num_reported(self) -> int:
        """How many calls of all steps need not be done any more. Walks over every step: ask once and count on."""
        rows = ((step, self._row(step)) for step in range(self._num_steps))
        return sum(self._has_reported(call) for _, row in rows for call in row.calls if row.present[call.chunk])

    def shares_of(self, call: Call) -> tuple[float, ...]:
        """The share of the step's noise level that each latent has which a call reads; 0: it is clean."""
        ahead = self._row(call.step).ahead[call.chunk]
        return tuple(0.0 if n in ahead else self._shares[n] for n in call.reads)

    def latent(self, n: int) -> Tensor:
        """A copy of latent n as it is now, float32 [C, h, w]; at a renewed step without its new noise."""
        return self._latents[n].clone()

    def ready(self) -> tuple[Call, ...]:
        """Every call whose latents have all reached its step and that has not reported, by step and chunk."""
        return tuple(sorted(self._ready))

    def input_of(self, call: Call) -> Tensor:
        """A copy of the latents that a ready call reads, float32 [n, C, h, w]. Raises ValueError if it is not ready."""
        if call not in self._ready:
            raise ValueError(f"{call} is not ready")
        latents = self._latents[call.reads.start : call.reads.stop].clone()
        if call.step in self._recipe.renewed:
            for n in self._row(call.step).present[call.chunk]:
                latents[n - call.reads.start] = self._entered(n, call.step)
        return latents

    def accept(self, call: Call, prediction: Tensor) -> bool:
        """Take in the prediction of a call, float32 [n, C, h, w] over what it reads, and advance what can advance.

        Returns False, and changes nothing, for a call that has reported before. Raises ValueError for one that is not
        of this timeline or not ready yet, or a prediction of another shape or with numbers that are not finite.
        """
        if call not in self._ready:
            if self._has_reported(call):
                return False
            raise ValueError(f"{call} is not ready")
        expected = (len(call.reads), *self._latents.shape[1:])
        if tuple(prediction.shape) != expected or prediction.dtype != torch.float32:
            raise ValueError(
                f"prediction of {call} must be float32 {expected}, not {prediction.dtype} {(*prediction.shape,)}"
            )
        if not bool(torch.isfinite(prediction).all()):
            raise ValueError(f"prediction of {call} holds numbers that are not finite")
        first = call.span.start - call.reads.start
        self._predictions[call.step, call.chunk] = prediction[first : first + len(call.span)].clone()
        self._ready.discard(call)
        self._advance(call)
        return True

    # ------------------------------------------------------------------------------------------ how it advances

    def _advance(self, call: Call) -> None:
        """Step every latent of the call that nothing waits for any more, and those of its context that waited for it;
        then free what no latent needs."""
        row = self._row(call.step)
        self._move(call.step, row.present[call.chunk])
        self._move(row.ahead_at[call.chunk], [n for n in row.ahead[call.chunk] if self._shares[n] > 0])

    def _move(self, step: int, latents: Sequence[int]) -> None:
        """Step those of the latents that are at this step and that every call which reads them there has reported."""
        if step == self._num_steps:
            return
        row = self._row(step)
        moved = [n for n in latents if self._steps[n] == step and self._is_released(n, row)]
        for n in moved:
            fused = self._fused(n, row)
            if self._shares[n] != 1:  # its noise level, and so each step of it, is this share of the others'
                fused = self._shares[n] * fused
            before = self._entered(n, step)
            if step + 1 in self._recipe.renewed:
                self._latents[n], self._histories[n] = self._recipe.solver.clean(step, before, fused), ()
            else:
                self._latents[n], self._histories[n] = self._recipe.solver.step(
                    step, before, fused, self._histories[n], self._noise_of(n, step)
                )
            self._steps[n] += 1
            if self._steps[n] == self._num_steps:
                self._histories[n] = ()  # nothing will read it again
        if not moved:
            return
        if step + 1 < self._num_steps:
            later = self._row(step + 1)
            touched = {k for n in moved for k in later.readers[n]}
            self._ready.update(later.calls[k] for k in touched if self._is_ready(later.calls[k]))
        if step + 1 in self._awaited:
            self._ready.update(self._ready_by_context(moved))
        for k in {k for n in moved for k in row.readers[n]}:
            if all(self._steps[n] > step for n in row.present[k]):
                self._predictions.pop((step, k), None)

    def _is_released(self, n: int, row: _Row) -> bool:
        """Every call that reads latent n at the step of this row has reported."""
        step = self._steps[n]
        here = all((step, k) in self._predictions for k in row.readers[n])
        return here and all(self._has_reported(call) for call in row.holders[n])

    def _entered(self, n: int, step: int) -> Tensor:
        """A copy of latent n as its calls of this step read it: with new noise if the step is a renewed one."""
        latent = self._latents[n].clone()
        if step not in self._recipe.renewed:
            return latent
        noise = self._noise_of(n, step)
        assert noise is not None, "renewed steps need step_noise"
        level = self._shares[n] * self._recipe.solver.level(step)
        return (1 - level) * latent + level * noise

    def _noise_of(self, n: int, step: int) -> Tensor | None:
        return self._recipe.step_noise(n, step) if self._recipe.step_noise else None

    def _ready_by_context(self, moved: Sequence[int]) -> set[Call]:
        """The calls that are ready, among those that have waited for one of these latents as context."""
        rows = [self._row(step) for step in set(self._steps) if step < self._num_steps]
        return {
            call
            for row in rows
            for call in row.calls
            if not set(row.ahead[call.chunk]).isdisjoint(moved) and self._is_ready(call)
        }

    def _fused(self, n: int, row: _Row) -> Tensor:
        """The weighted mean of the predictions of latent n, added up in the order of their chunks."""
        total: Tensor | None = None
        for k in row.readers[n]:
            call = row.calls[k]
            if n in call.span:
                at = n - call.span.start
                part = row.weights[k][at] * self._predictions[call.step, k][at]
                total = part if total is None else total + part
        assert total is not None, f"latent {n} is covered by no chunk"
        return total

    def _is_ready(self, call: Call) -> bool:
        row = self._row(call.step)
        present, at = row.present[call.chunk], row.ahead_at[call.chunk]
        arrived = bool(present) and all(self._steps[n] == call.step for n in present)
        clean = all(self._steps[n] == at or self._shares[n] == 0 for n in row.ahead[call.chunk])
        return arrived and clean and (call.step, call.chunk) not in self._predictions

    def _has_reported(self, call: Call) -> bool:
        if not 0 <= call.step < self._num_steps:
            return False
        row = self._row(call.step)
        if row.calls[call.chunk : call.chunk + 1] != (call,):
            return False
        done = all(self._steps[n] > call.step for n in row.present[call.chunk])
        return done or (call.step, call.chunk) in self._predictions

    def _find_ready(self) -> set[Call]:
        steps = {step for step in self._steps if step < self._num_steps}
        return {call for step in steps for call in self._row(step).calls if self._is_ready(call)}

    def _row(self, step: int) -> _Row:
        if step not in self._rows:
            self._rows[step] = self._make_row(step)
            self._awaited.update(self._rows[step].ahead_at)
        return self._rows[step]

    def _make_row(self, step: int) -> _Row:
        spans = self._recipe.cover(step)
        calls, present, ahead, ahead_at = [], [], [], []
        readers: list[list[int]] = [[] for _ in range(self.num_latents)]
        for k, span in enumerate(spans):
            context = self._recipe.context(step, span)
            reads = LatentSpan(max(0, span.start - context.before), min(self.num_latents, span.stop + context.after))
            calls.append(Call(step, k, span, reads))
            at = self._num_steps if context.at is None else context.at
            moving = [n for n in (reads if at == step else span) if self._shares[n] > 0]
            needed = any(n in span for n in moving)
            present.append(tuple(moving) if needed else ())
            ahead.append(tuple(n for n in reads if n not in span) if at > step and needed else ())
            ahead_at.append(at)
            for n in present[k]:
                readers[n].append(k)
        return _Row(
            tuple(calls), tuple(self._recipe.weigh_spans(spans)), tuple(present), tuple(ahead), tuple(ahead_at),
            tuple(map(tuple, readers)), self._holders_at(step),
        )  # fmt: skip

    def _holders_at(self, step: int) -> tuple[tuple[Call, ...], ...]:
        """Per latent: the calls of earlier steps that read it at this one. Only renewed steps are read so."""
        holders: list[list[Call]] = [[] for _ in range(self.num_latents)]
        for earlier in range(step if step in self._recipe.renewed else 0):
            row = self._row(earlier)
            for call in row.calls:
                if row.ahead_at[call.chunk] == step:
                    for n in row.ahead[call.chunk]:
                        holders[n].append(call)
        return tuple(map(tuple, holders))


def head_first(call: Call) -> tuple[int, int, int]:
    """Sort key: the head of the take before its tail, so that its first latents are finished early."""
    return call.span.start, call.step, call.chunk


def _copied(history: History) -> History:
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in history)
