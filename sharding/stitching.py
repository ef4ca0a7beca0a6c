"""Stitching: how the chunks of a take agree on one movement, as a schedule of steps.

    joint    chunks overlap and advance together; their predictions are fused at every step
    chained  each chunk is denoised beside the finished end of the one before
    drafted  a chain of few steps decides the movement, then all chunks refine it jointly
    keyed    the spans between given latents are denoised apart, each beside both its ends

Chained, drafted and keyed takes need a model that reads clean latents beside those that it denoises. A take of one
window has nothing to agree on: it is denoised as the model's own pipeline does it, whatever its stitching.

Pure, and counts without a solver, so that a plan needs none.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from sharding.chunks import ChunkLimits, plan_chunks
from sharding.spans import NO_CONTEXT, Context, LatentSpan

StitchingKind = Literal["joint", "chained", "drafted", "keyed"]
STITCHING_KINDS: tuple[StitchingKind, ...] = get_args(StitchingKind)


MIN_DRAFT_STEPS = 4
"""Steps of a draft at least: with two of eight, 8 % of a take's frames slipped in phase on pocket, with four 0.1 %."""


@dataclass(frozen=True)
class Stitching:
    """A way to stitch, and its settings. Raises ValueError if a setting is out of its range."""

    kind: StitchingKind = "joint"
    sweeps: float = 0.0
    """Share of a joint take's steps, 0 to below 1, that visit a noisy level again, after new noise."""
    sweeps_until: float = 0.36
    """The levels that are visited again: this share of all, above 0 to 1, from the second noisiest on."""
    renew_above: float = 2.0
    """Noise level from which every step of a joint take begins with new noise (FlowLong, arXiv 2605.20910); above 1:
    none does."""
    overlap_early: int = -1
    """Latents that neighbours share in the first steps of a joint take or a refinement; -1: one."""
    overlap_late: int = -1
    """The same in the last steps; -1: a quarter of the window."""
    context: int = 2
    """Latents of the chunk before that a chunk of a chain reads, at least 1."""
    draft: float = 0.25
    """Share of a drafted take's steps, above 0 and below 1, that make the draft; MIN_DRAFT_STEPS at least."""
    draft_kept: float = 0.5
    """Share of the levels, 0 to below 1, that the refinement of a draft leaves out at the noisy end."""

    def __post_init__(self) -> None:
        ranges = {
            "sweeps": 0 <= self.sweeps < 1, "sweeps_until": 0 < self.sweeps_until <= 1, "context": self.context >= 1,
            "overlap_early": self.overlap_early >= -1, "overlap_late": self.overlap_late >= -1,
            "renew_above": self.renew_above > 0, "draft": 0 < self.draft < 1, "draft_kept": 0 <= self.draft_kept < 1,
        }  # fmt: skip
        if self.kind not in STITCHING_KINDS:
            raise ValueError(f"stitching must be one of {', '.join(STITCHING_KINDS)}, not {self.kind!r}")
        for name, fits in ranges.items():
            if not fits:
                raise ValueError(f"{name} of a stitching cannot be {getattr(self, name)}")

    @property
    def needs_context(self) -> bool:
        """Only a model that reads clean latents beside others can do it."""
        return self.kind != "joint"


JOINT = Stitching()
"""Overlapping chunks that advance together, nothing more: for any model."""


@dataclass(frozen=True)
class Visit:
    """What one step does: one level of a solver of so many steps."""

    of_steps: int
    step: int
    renewed: bool = False
    """Latents come to it clean and are given new noise."""


@dataclass(frozen=True)
class Row:
    """The chunks of one step."""

    spans: tuple[LatentSpan, ...]
    context: Mapping[LatentSpan, Context] = field(default_factory=dict)
    followers: Mapping[LatentSpan, int] = field(default_factory=dict)
    """Chunks of the same chain that wait for this one, directly or not."""


@dataclass(frozen=True)
class Schedule:
    """The steps of one take."""

    visits: tuple[Visit, ...]
    row: Callable[[int], Row]
    chain_steps: int = 0
    """Steps, from the first on, that chunks of a chain take one after another."""
    renew_above: float = math.inf
    """Noise level from which every step but the first is renewed as well."""

    @property
    def num_steps(self) -> int:
        return len(self.visits)

    def cover(self, step: int) -> tuple[LatentSpan, ...]:
        """The spans that are denoised at a step, in order of their start."""
        return self.row(step).spans

    def context(self, step: int, span: LatentSpan) -> Context:
        """What the chunk of a span reads beside it."""
        return self.row(step).context.get(span, NO_CONTEXT)

    def calls_left(self, step: int, span: LatentSpan) -> int:
        """Calls that come one after another from this one on, itself among them, until the take is done."""
        return self.row(step).followers.get(span, 0) * self.chain_steps + self.num_steps - step

    def at_once(self, step: int, spans: Sequence[LatentSpan]) -> int:
        """How many of these chunks of a step can be worked on at once: one of each chain."""
        followers = self.row(step).followers if step < self.chain_steps else {}
        return sum(not followers.get(span) for span in spans)

    @property
    def longest_chain(self) -> int:
        """Calls that come one after another in the whole take: its time on any number of gangs."""
        return max(self.calls_left(0, span) for span in self.cover(0))


def schedule(stitching: Stitching, *, num_latents: int, window: int, steps: int, given: Sequence[int] = ()) -> Schedule:
    """The schedule of a take of `num_latents`, `window` at most in a call, with `steps` evaluations of each latent (by
    chunks that cover it once). `given` are the latents that are there from the start, ascending."""
    if num_latents <= window:
        whole = Row((LatentSpan(0, num_latents),))
        return Schedule(_plain(steps), lambda step: whole)
    most = ChunkLimits(window).shortest - 1
    early, late = (min(overlap, most) for overlap in (stitching.overlap_early, stitching.overlap_late))
    limits = ChunkLimits(window, early, late)
    if stitching.kind == "joint":
        return Schedule(
            _swept(steps, share=stitching.sweeps, until=stitching.sweeps_until),
            lambda step: Row(plan_chunks(num_latents, limits, step, steps)),
            renew_above=stitching.renew_above,
        )
    size, whole_take = min(stitching.context, window - 1), LatentSpan(0, num_latents)
    if stitching.kind == "drafted" and steps > 1:
        draft = min(max(MIN_DRAFT_STEPS, round(steps * stitching.draft)), steps - 1)
        levels = round((steps - draft) / (1 - stitching.draft_kept))
        refinement = tuple(Visit(levels, k, renewed=k == levels - steps + draft) for k in range(levels))
        chain = _row(_chain(whole_take, window=window, size=size, at=draft))
        return Schedule(
            _plain(draft) + refinement[levels - steps + draft :],
            lambda step: chain if step < draft else Row(plan_chunks(num_latents, limits, step, steps)),
            chain_steps=draft,
        )
    keys = given if stitching.kind == "keyed" else ()
    chains = _row(_between(keys, num_latents=num_latents, window=window, size=size))
    return Schedule(_plain(steps), lambda step: chains, chain_steps=steps)


def _plain(steps: int) -> tuple[Visit, ...]:
    return tuple(Visit(steps, i) for i in range(steps))


def _swept(steps: int, *, share: float, until: float) -> tuple[Visit, ...]:
    """`steps` visits of fewer levels: those after the first and until this share of all take what is over."""
    levels = max(1, steps - math.floor(steps * share))
    again = range(1, max(2, math.floor(levels * until) + 1))
    if levels == steps or levels < 2:
        return _plain(steps)
    extra = {k: len(range(n, steps - levels, len(again))) for n, k in enumerate(again)}
    return tuple(Visit(levels, k, renewed=visit > 0) for k in range(levels) for visit in range(1 + extra.get(k, 0)))


_Piece = tuple[LatentSpan, Context, int]
"""A span, what it reads beside it, and how many of its chain follow it."""


def _row(pieces: Iterable[_Piece]) -> Row:
    found = list(pieces)
    return Row(
        tuple(span for span, _, _ in found),
        {span: context for span, context, _ in found},
        {span: followers for span, _, followers in found},
    )


def _chain(
    span: LatentSpan, *, window: int, size: int, before: int = 0, after: int = 0, at: int | None = None
) -> Iterator[_Piece]:
    """A span in pieces: the first beside `before` latents, each other beside `size` of the one before it, the last also
    beside `after` that follow."""
    pieces: list[tuple[LatentSpan, Context]] = []
    start = span.start
    while start < span.stop:
        left, room = span.stop - start, window - before
        fits = left + after <= room
        piece = LatentSpan(start, start + (left if fits else min(room, max(1, left - 1))))
        pieces.append((piece, Context(before, after if fits else 0, at)))
        start, before = piece.stop, size
    for index, (piece, context) in enumerate(pieces):
        yield piece, context, len(pieces) - 1 - index


def _between(keys: Sequence[int], *, num_latents: int, window: int, size: int) -> Iterator[_Piece]:
    """Spans from key to key, each beside both of them; one that is too long for a call in a chain from its first."""
    for left, right in itertools.pairwise([-1, *keys, num_latents]):
        before, after = (min(int(is_key), window - 1) for is_key in (left >= 0, right < num_latents))
        if left + 1 < right:
            span = LatentSpan(left + 1, right)
            yield from _chain(span, window=window, size=size, before=before, after=after)
        if right < num_latents:
            yield LatentSpan(right, right + 1), NO_CONTEXT, 0
