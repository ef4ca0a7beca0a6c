"""What the Director remembers of the jobs that it renders now: the stage, progress and costs of takes. No I/O.

Everything here can be made again from the store, the artifacts and the timeline hosts; nothing here is the only copy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from serving.planning.plan import FilmPlan, TakePlan
from serving.render.farm_messages import Decoded, TakeId, TakeProgress
from serving.store.records import Job, JobProgress, LedgerEntry, Take, TakeStatus
from sharding.capabilities import Capabilities
from sharding.spans import Grid, Latents


class Stage(Enum):
    """Where a take is on its way to frames. Its frames are decoded beside that, from its first latents on."""

    WAITING = "waiting"
    """For a place on a timeline host, or for another job that renders the same take."""
    OPENING = "opening"
    """A timeline host is making it ready."""
    RENDERING = "rendering"
    """Held by a timeline host; its calls are given out."""
    RESTING = "resting"
    """Its host is about to move: its calls that are out may end, no other is given out."""
    FINISHING = "finishing"
    """All its latents are there; its host makes them durable."""
    RELEASING = "releasing"
    """Its host saves it and lets it go; then it waits to be opened elsewhere."""
    RENDERED = "rendered"
    """Its latents are durable; what is left is to decode them."""
    DECODED = "decoded"
    """Its frames are durable."""


NEXT: Mapping[Stage, frozenset[Stage]] = {
    Stage.WAITING: frozenset({Stage.OPENING, Stage.RENDERED}),
    Stage.OPENING: frozenset({Stage.RENDERING, Stage.RESTING, Stage.RENDERED, Stage.WAITING}),
    Stage.RENDERING: frozenset({Stage.RESTING, Stage.FINISHING, Stage.WAITING}),
    Stage.RESTING: frozenset({Stage.FINISHING, Stage.RELEASING, Stage.WAITING}),
    Stage.FINISHING: frozenset({Stage.RENDERED, Stage.RELEASING, Stage.WAITING}),
    Stage.RELEASING: frozenset({Stage.WAITING}),
    Stage.RENDERED: frozenset({Stage.DECODED, Stage.WAITING}),
    Stage.DECODED: frozenset({Stage.WAITING}),
}
"""Which stages may follow which. To WAITING a take goes back that lost its host, or of which something durable is
missing; from WAITING and OPENING it is RENDERED at once if it was there already."""

_HELD = frozenset({Stage.RENDERING, Stage.RESTING, Stage.FINISHING})

_STATUS: dict[Stage, TakeStatus] = {
    Stage.WAITING: "waiting",
    Stage.OPENING: "waiting",
    Stage.RENDERING: "rendering",
    Stage.RESTING: "rendering",
    Stage.FINISHING: "rendering",
    Stage.RELEASING: "waiting",
    Stage.RENDERED: "rendered",
    Stage.DECODED: "decoded",
}

NOTHING_DECODED = Decoded(latents=0, frames=0, complete=False)

Source = Literal["rendered", "cache"]
"""By which way the latents of a take came to be there, as the metrics count it."""


@dataclass(eq=False)
class TakeRun:
    """One take of a job that is being rendered."""

    id: TakeId
    index: int
    plan: TakePlan
    content_key: str
    stage: Stage = Stage.WAITING
    """Changed by the methods below alone."""
    cached: bool = False
    """Its latents were there already, and were not rendered for this job."""
    host: int | None = None
    """Index of the timeline host that holds it, or opens it."""
    progress: TakeProgress | None = None
    """As its host, or one before it, reported last; None if it was never opened."""
    decoded: Decoded = NOTHING_DECODED
    """As its decoder reported last."""
    head_frames: int = 0
    """Frames of the longest head that can be watched; 0: there is none."""
    has_preview: bool = False
    """A picture of its latents can be looked at."""
    decode_failures: int = 0
    """Times in a row that its decoder failed."""
    losses: int = 0
    """Times in a row that its host lost it."""
    not_before: float = 0.0
    """Unix seconds before which it is not opened again."""
    saved_at: float | None = None
    """Unix seconds of its last checkpoint, or of its opening, as its host reported last."""
    latents_counted: int = 0
    """Latents of it that the metrics have counted as finished."""
    counted_as: Source | None = None
    """As what the metrics have counted its latents; None before they are there."""
    retries: int = 0
    gpu_seconds: float = 0.0
    wasted_gpu_seconds: float = 0.0

    @classmethod
    def claimed(cls, job_id: str, index: int, plan: TakePlan, content_key: str, stored: Take | None) -> "TakeRun":
        """A take of a job that has just been claimed; `stored` is what the store knows of it. How far it was is shown
        until a host has opened it and reports how far it is."""
        take = cls(TakeId(job_id, plan.key), index, plan, content_key)
        if stored is not None and stored.content_key == content_key:
            take.head_frames, take.has_preview = stored.head_frames, stored.has_preview
        if stored is not None and stored.content_key == content_key and stored.step_counts:
            take.progress = TakeProgress(tuple(stored.step_counts), 0, stored.calls_done)
            take.latents_counted = stored.latents_finished
            if stored.status in ("rendered", "decoded"):
                take.counted_as = "cache" if stored.cached else "rendered"
        return take

    # ------------------------------------------------------------------------------------------------ its stages

    def open_on(self, host: int) -> None:
        """It goes to a timeline host."""
        self._go(Stage.OPENING)
        self.host = host

    def opened(self, *, moves: bool) -> None:
        """Its host holds it; `moves`: that host is about to move to another node."""
        self._go(Stage.RESTING if moves else Stage.RENDERING)

    def rest(self) -> None:
        """Its host is about to move."""
        self._go(Stage.RESTING)

    def finish(self) -> None:
        """All its latents are there."""
        self._go(Stage.FINISHING)

    def rendered(self) -> None:
        """Its latents are durable."""
        self._go(Stage.RENDERED)

    def release(self) -> None:
        """Its host is to save it and let it go."""
        self._go(Stage.RELEASING)

    def found(self, *, frames: bool) -> None:
        """Its latents are there already, and perhaps its frames: it needs no host."""
        self._is_there()
        if frames:
            self._go(Stage.DECODED)
        else:
            self.decoded = NOTHING_DECODED

    def made_by(self, other: "TakeRun") -> None:
        """Another job's take has rendered and decoded the same content meanwhile."""
        self._is_there()
        self.head_frames, self.has_preview = other.head_frames, other.has_preview

    def _is_there(self) -> None:
        self._go(Stage.RENDERED)
        self.host, self.cached = None, True
        self.decoded = Decoded(self.plan.latents, self.plan.frames - self.plan.surplus, complete=True)

    def has_frames(self) -> None:
        """Its frames are durable too."""
        self._go(Stage.DECODED)

    def begin_again(self) -> None:
        """No host holds it; it is to be opened anew, from its newest checkpoint if it has one. How far it was is the
        best guess until then."""
        self._go(Stage.WAITING)
        self.host, self.cached, self.decoded = None, False, NOTHING_DECODED

    def _go(self, stage: Stage) -> None:
        if stage not in NEXT[self.stage]:
            raise ValueError(f"take {self.plan.key} is {self.stage.value} and cannot be {stage.value} next")
        self.stage = stage

    @property
    def held(self) -> bool:
        """Whether a timeline host holds it and it is not done."""
        return self.stage in _HELD

    @property
    def done(self) -> bool:
        """Whether its latents are durable."""
        return self.stage in (Stage.RENDERED, Stage.DECODED)

    # ------------------------------------------------------------------------------------------------ how far it is

    def report(self, progress: TakeProgress, now: float) -> None:
        """Its host reports how far it is."""
        self.progress, self.saved_at = progress, now - progress.unsaved_s
        self.has_preview = self.has_preview or progress.has_preview

    def report_decoded(self, decoded: Decoded) -> None:
        """A decoder reports how far it is with it."""
        self.decoded = decoded
        self.head_frames = max(self.head_frames, decoded.head_frames)

    def count(self, written: Take) -> tuple[int, Source | None]:
        """A record of it is in the store: returns the latents that were finished for it since the last, and, once in
        its life, by which way its latents came to be there. A take that was in work before was not found."""
        found = self.cached and (self.progress is None or self.progress.calls_done == 0)
        latents = 0 if found else max(0, written.latents_finished - self.latents_counted)
        self.latents_counted += latents
        if self.counted_as is not None or written.status not in ("rendered", "decoded"):
            return latents, None
        self.counted_as = "cache" if found else "rendered"
        return latents, self.counted_as

    @property
    def calls_done(self) -> int:
        if self.done:
            return self.plan.calls
        return self.progress.calls_done if self.progress else 0

    @property
    def share_left(self) -> float:
        """Part of its calls still to do, 0..1."""
        return 1 - self.calls_done / self.plan.calls if self.plan.calls else 0.0

    def record(self) -> Take:
        """The take as the store keeps it."""
        steps = len(self.plan.chunks_per_step)
        counts = (
            [0] * steps + [self.plan.latents] if self.done else list(self.progress.step_counts) if self.progress else []
        )
        return Take(
            job_id=self.id.job_id,
            index=self.index,
            key=self.plan.key,
            content_key=self.content_key,
            status=_STATUS[self.stage],
            latents=self.plan.latents,
            frames=self.plan.frames - self.plan.surplus,
            calls_total=self.plan.calls,
            calls_done=self.calls_done,
            latents_finished=self.plan.latents if self.done else self.progress.finished if self.progress else 0,
            frames_decoded=self.decoded.frames,
            head_frames=self.head_frames,
            has_preview=self.has_preview,
            step_counts=counts,
            cached=self.cached,
            retries=self.retries,
            gpu_seconds=self.gpu_seconds,
            wasted_gpu_seconds=self.wasted_gpu_seconds,
            shots=[shot.id for shot in self.plan.shots],
        )


@dataclass(eq=False)
class JobRun:
    """One job that this Director holds the lease of."""

    job: Job
    plan: FilmPlan
    capabilities: Capabilities
    """Of its model."""
    cost_key: str
    """Under which the cost model knows its calls."""
    numerics: dict[str, str]
    prompt_keys: dict[str, str]
    """Artifact key of the embedding of every text of the film."""
    takes: list[TakeRun]
    ranks: int
    """Of each gang: GPUs, or cores."""
    price_per_gpu_second: float
    spent_usd: float
    """Charged so far, what is not written down yet included."""
    ledger: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """(take, shot) -> useful and wasted GPU-seconds that are not written down yet."""
    prepared: bool = False
    """Its prompts are encoded; its takes may be opened."""
    unwritten: list[LedgerEntry] = field(default_factory=list)
    started: bool = False
    warned: bool = False
    """The owner was told that most of the budget is spent."""
    assembling: bool = False
    """Its film is being assembled."""
    assemblies: int = 0
    """Times that its film could not be assembled because a take's frames were missing."""
    eta_at: float | None = None
    at_risk: bool = False
    saved: dict[int, Take] = field(default_factory=dict)
    """Its takes as they were last written to the store, by index."""

    @property
    def id(self) -> str:
        return self.job.id

    def charge(self, take: TakeRun, *, start: int, latents: int, seconds: float, useful: bool) -> None:
        """Put the GPU-seconds of a call of so many seconds down to the shots that its latents belong to."""
        gpu_s = seconds * self.ranks
        shots = shots_of(take.plan, self.capabilities.grid, start, start + latents)
        for shot in shots:
            entry = self.ledger.setdefault((take.plan.key, shot), [0.0, 0.0])
            entry[0 if useful else 1] += gpu_s / len(shots)
        if useful:
            take.gpu_seconds += gpu_s
        else:
            take.wasted_gpu_seconds += gpu_s
        self.spent_usd += gpu_s * self.price_per_gpu_second

    def close_ledger(self, now: float) -> list[LedgerEntry]:
        """Entries that are not known to be written down. An entry sent twice counts once, so they are kept until
        `ledger_written` is told of them."""
        self.unwritten += [
            LedgerEntry(
                job_id=self.id,
                tenant=self.job.tenant,
                pool=self.job.pool,
                take=take,
                shot=shot,
                useful_s=useful,
                wasted_s=wasted,
                usd=(useful + wasted) * self.price_per_gpu_second,
                at=now,
            )
            for (take, shot), (useful, wasted) in self.ledger.items()
        ]
        self.ledger = {}
        return list(self.unwritten)

    def ledger_written(self, entries: list[LedgerEntry]) -> list[LedgerEntry]:
        """These are in the store. Returns those of which that was not known."""
        ids = {entry.id for entry in entries}
        written = [entry for entry in self.unwritten if entry.id in ids]
        self.unwritten = [entry for entry in self.unwritten if entry.id not in ids]
        return written

    def progress_written(self, progress: JobProgress) -> None:
        """This is in the store."""
        self.saved |= {take.index: take for take in progress.takes}

    def progress(self) -> JobProgress:
        """How far it is, for the store, with the takes that have changed since it was last written. Rendering is 95 of
        100; decoding and assembling are the rest."""
        calls = sum(take.calls_done for take in self.takes)
        decoded = sum(take.decoded.frames for take in self.takes)
        frames = sum(take.plan.frames - take.plan.surplus for take in self.takes)
        rendered = calls / self.plan.calls if self.plan.calls else 1.0
        percent = 95.0 * rendered + 4.0 * decoded / frames
        return JobProgress(
            job_id=self.id,
            token=self.job.lease_token,
            progress=min(99.0, percent),
            calls_total=self.plan.calls,
            calls_done=calls,
            eta_at=self.eta_at,
            at_risk=self.at_risk,
            takes=tuple(record for take in self.takes if (record := take.record()) != self.saved.get(take.index)),
        )


def shots_of(take: TakePlan, grid: Grid, start: int, stop: int) -> list[str]:
    """The shot of each latent of a span, handles counted to the shot beside them."""
    ends, end = [], take.head
    for shot in take.shots:
        end += shot.frames
        ends.append(end)
    names = []
    for latent in range(start, stop):
        frame = grid.frames_in(Latents(latent)).start
        index = next((k for k, end in enumerate(ends) if frame < end), len(ends) - 1)
        names.append(take.shots[index].id)
    return names
