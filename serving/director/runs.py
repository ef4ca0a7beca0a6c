"""What the Director remembers of the jobs that it renders now: the stage, progress and costs of takes. No I/O.

Everything here can be made again from the store, the artifacts and the timeline hosts; nothing here is the only copy.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from serving.planning.plan import FilmPlan, TakePlan
from serving.render.farm_messages import Decoded, TakeId, TakeProgress
from serving.store.records import Job, JobProgress, LedgerEntry, Take, TakeStatus
from sharding.capabilities import Capabilities
from sharding.spans import Grid, Latents


class Stage(Enum):
    """Where a take is on its way to frames."""

    WAITING = "waiting"
    """For a place on a timeline host, or for another job that renders the same take."""
    OPENING = "opening"
    RENDERING = "rendering"
    """Held by a timeline host; its calls are given out, its head is decoded."""
    RENDERED = "rendered"
    """Its latents are durable; what is left is to decode them."""
    DECODED = "decoded"
    """Its frames are durable."""


_STATUS: dict[Stage, TakeStatus] = {
    Stage.WAITING: "waiting",
    Stage.OPENING: "waiting",
    Stage.RENDERING: "rendering",
    Stage.RENDERED: "rendered",
    Stage.DECODED: "decoded",
}


@dataclass(eq=False)
class TakeRun:
    """One take of a job that is being rendered."""

    id: TakeId
    index: int
    plan: TakePlan
    content_key: str
    stage: Stage
    cached: bool = False
    host: int | None = None
    """Index of the timeline host that holds it."""
    progress: TakeProgress | None = None
    """As its host, or one before it, said last; None where it was never opened."""
    decoded_latents: int = 0
    decoded_frames: int = 0
    decode_complete: bool = False
    """All its frames are durable."""
    head_frames: int = 0
    """Frames of the longest head that can be watched; 0: there is none."""
    has_preview: bool = False
    """A picture of its latents can be looked at."""
    decode_failures: int = 0
    """Times in a row that its decoder failed."""
    feeding: bool = False
    """A task that feeds the decoder is under way."""
    finishing: bool = False
    """A task that makes its latents durable is under way."""
    resting: bool = False
    """Its host is about to move: none of its calls is given out."""
    failures: int = 0
    """Times in a row that its host or decoder failed."""
    not_before: float = 0.0
    """Unix seconds before which it is not opened again."""
    saved_at: float | None = None
    """Unix seconds of its last checkpoint, or of its opening, as its host said last."""
    latents_counted: int = 0
    """Latents of it that the metrics have counted as finished."""
    counted: bool = False
    """The metrics have counted that its latents are there."""
    retries: int = 0
    gpu_seconds: float = 0.0
    wasted_gpu_seconds: float = 0.0

    @classmethod
    def taken_up(cls, job_id: str, index: int, plan: TakePlan, content_key: str, stored: Take | None) -> "TakeRun":
        """A take of a job that has just been claimed; `stored` is what the store says of it. How far it was is shown
        until a host has opened it and says how far it is."""
        take = cls(TakeId(job_id, plan.key), index, plan, content_key, Stage.WAITING)
        if stored is not None and stored.content_key == content_key:
            take.head_frames, take.has_preview = stored.head_frames, stored.has_preview
        if stored is not None and stored.content_key == content_key and stored.step_counts:
            take.progress = TakeProgress(tuple(stored.step_counts), 0, stored.calls_done)
            take.latents_counted, take.counted = stored.latents_finished, stored.status in ("rendered", "decoded")
        return take

    def hear(self, progress: TakeProgress, now: float) -> None:
        """Its host says how far it is."""
        self.progress, self.saved_at = progress, now - progress.unsaved_s
        self.has_preview = self.has_preview or progress.has_preview

    def hear_decoded(self, decoded: Decoded) -> None:
        """A decoder says how far it is with it."""
        self.decoded_latents, self.decoded_frames = decoded.latents, decoded.frames
        self.head_frames = max(self.head_frames, decoded.head_frames)

    def count(self, written: Take) -> tuple[int, Literal["rendered", "cache"] | None]:
        """A record of it is in the store: latents that were finished for it since the last, and, once in its life, by
        which way its latents came to be there. What was in work before is no find."""
        latents = 0 if self.cached else max(0, written.latents_finished - self.latents_counted)
        self.latents_counted += latents
        if self.counted or written.status not in ("rendered", "decoded"):
            return latents, None
        self.counted = True
        found = self.cached and (self.progress is None or self.progress.calls_done == 0)
        return latents, "cache" if found else "rendered"

    def begin_again(self) -> None:
        """Nobody holds it any more; it is to be opened anew, from its newest checkpoint if it has one. How far it was
        is the best guess until then."""
        self.stage, self.host = Stage.WAITING, None
        self.cached = self.finishing = self.decode_complete = self.resting = False
        self.decoded_latents = self.decoded_frames = 0

    @property
    def done(self) -> bool:
        return self.stage in (Stage.RENDERED, Stage.DECODED)

    @property
    def calls_done(self) -> int:
        if self.done:
            return self.plan.calls
        return self.progress.calls_done if self.progress else 0

    @property
    def share_left(self) -> float:
        """Part of its calls still to do, 0..1."""
        return 1 - self.calls_done / self.plan.calls

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
            frames_decoded=self.decoded_frames,
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
    """What the cost model knows its calls by."""
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
    finishing: bool = False
    """Its film is being assembled."""
    assemblies: int = 0
    """Times that its film could not be assembled for want of a take's frames."""
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
        decoded = sum(take.decoded_frames for take in self.takes)
        frames = sum(take.plan.frames - take.plan.surplus for take in self.takes)
        percent = 95.0 * calls / self.plan.calls + 4.0 * decoded / frames
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
