"""What the Director, timeline hosts, gangs and decoders of a farm say to each other: frozen, small, easy to pickle.

Arrays are numpy, since torch tensors pickle slowly. Spans and counts are latents unless they say frames.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from serving.planning.plan import FilmPlan, TakePlan

Outcome = Literal["done", "gang_died", "call_raised", "timed_out", "bad_prediction", "not_ready"]
"""How a call ended. `not_ready`: the timeline has gone on without it or is not there yet, or the take was let go."""


@dataclass(frozen=True)
class TakeId:
    """One take of one job."""

    job_id: str
    take_key: str

    @property
    def ids(self) -> dict[str, str]:
        """As fields of a log line."""
        return {"job": self.job_id, "take": self.take_key}


@dataclass(frozen=True)
class TakeOrder:
    """To a timeline host: hold this take and go on with it from its newest checkpoint, or from noise."""

    take_id: TakeId
    token: int
    """The Director's generation: a host obeys only the highest that it has seen for a take."""
    plan: FilmPlan
    take: TakePlan
    content_key: str
    prompt_keys: dict[str, str]
    """Artifact key of the embedding of every text of the take."""
    weights: str
    """Hash of the model's weights."""


@dataclass(frozen=True)
class ConditionOrder:
    """To the encoder: make what the pictures of a take become."""

    plan: FilmPlan
    take: TakePlan
    content_key: str
    tenant: str
    """Whose the pictures are."""


@dataclass(frozen=True)
class OpenCall:
    """A call whose latents are all there."""

    step: int
    chunk: int
    start: int
    """First latent of its span."""
    latents: int
    """Latents that it reads."""
    evaluations: int
    """Prompts that it is predicted for."""
    calls_left: int
    """Calls that come one after another from this one on, itself among them, until the take is done."""
    expert: int = 0
    """Which of the model's experts predicts it, from the noisiest."""


Runs = tuple[tuple[int, int], ...]
"""Run-length code of steps: (step, number of latents in a row that have reached it)."""


@dataclass(frozen=True)
class TakeProgress:
    """How far a take is."""

    step_counts: tuple[int, ...]
    """Latents that have reached each step, from 0 to the number of steps."""
    finished_head: int
    """Latents from the take's first that have taken their last step."""
    calls_done: int
    """Calls that need not be done again."""
    reached: Runs = ()
    """The step that each latent has reached, in the order of latents; empty if only the counts are known."""

    has_preview: bool = False
    """A picture of its latents can be looked at."""

    unsaved_s: float = 0.0
    """Seconds since its last checkpoint, or since it was opened."""

    @property
    def finished(self) -> int:
        """Latents that have taken their last step, anywhere in the take."""
        return self.step_counts[-1]

    @property
    def done(self) -> bool:
        return self.finished == sum(self.step_counts)


Resumed = Literal["noise", "checkpoint", "memory"]
"""Where an opened take goes on from: `memory` where the host still held it for an earlier Director."""


@dataclass(frozen=True)
class TakeOpened:
    """From a timeline host: the take is held."""

    ready: tuple[OpenCall, ...]
    running: tuple[tuple[OpenCall, str], ...]
    """Calls that are with a gang, for an earlier Director: run_call for this gang waits for them."""
    progress: TakeProgress
    resumed: Resumed


@dataclass(frozen=True)
class CallTimes:
    """Where the seconds of a call that was done went."""

    input_s: float
    """Until its input was put together."""
    wait_s: float
    """On its way to the gang and back, and beside others there."""
    compute_s: float
    """Until it was predicted."""
    answer_s: float
    """Until the timeline had taken it in."""

    def stages(self) -> dict[str, float]:
        """Seconds by stage."""
        return {"input": self.input_s, "wait": self.wait_s, "compute": self.compute_s, "answer": self.answer_s}


@dataclass(frozen=True)
class CheckpointCounts:
    """Checkpoints of all takes of a host, since it told of them last."""

    written: int = 0
    failed: int = 0
    bytes: int = 0
    """Of those written."""
    problems: tuple[tuple[TakeId, str], ...] = ()
    """Takes whose checkpoint failed, and why; the last few."""


@dataclass(frozen=True)
class CallReport:
    """From a timeline host: how a call ended."""

    outcome: Outcome
    seconds: float
    """Gang-seconds that it took, so far as known."""
    detail: str
    ready: tuple[OpenCall, ...]
    """Calls that became ready through it."""
    progress: TakeProgress
    times: CallTimes | None = None
    """Only if the call was done."""
    checkpoints: CheckpointCounts = CheckpointCounts()


@dataclass(frozen=True)
class Decoded:
    """From a timeline host: how far the decoder has come with a take."""

    latents: int
    frames: int
    complete: bool
    """All frames are durable."""
    head_frames: int = field(default=0, compare=False)
    """Frames of the newest head that can be watched; 0: none that this decoder knows of."""
    seconds: float = field(default=0.0, compare=False)
    """That the decoder worked for this answer."""


@dataclass(frozen=True)
class DecodeOrder:
    """To a decoder: which take it is asked about."""

    plan: FilmPlan
    take: TakePlan
    content_key: str


@dataclass(frozen=True)
class AssembleOrder:
    """To a decoder: join the decoded takes of a job into its film."""

    job_id: str
    plan: FilmPlan
    content_keys: tuple[str, ...]
    """Of the takes, in the order of the film."""
    numerics: dict[str, str]
    timings: dict[str, float]
    gangs: int
    """Gangs of the pool when it was done."""


@dataclass(frozen=True)
class Assembled:
    """From a decoder: the film is among the artifacts."""

    film: dict[str, Any]
    """What Job.film holds."""
    encode_s: float
    """Seconds spent on assembling, encoding and measuring."""
    seam_jumps: tuple[float, ...]
    """The jump ratio of every seam between chunks; of those where nothing else moves, none."""


@dataclass(frozen=True)
class GangHello:
    """From a renderer to the Director, repeatedly: this gang is here."""

    gang: str
    """Unique forever: a gang that was rebuilt has a new name."""
    pool: str
    numerics: dict[str, str]
    """What the bytes of its predictions depend on, weights included."""
    node: str
    """That of its leader."""
    draining: bool
    pids: tuple[int, ...] = ()
    """Process ids of its ranks, rank 0 first."""
    nodes: tuple[str, ...] = ()
    """Ray's ids of the nodes that they are on."""
    leader: str = ""
    """Unique forever; gangs that it forms one after the other share it."""
    moves: bool = False
    """If it drains: because of a node that is emptied, and not because it is one too many."""


def encode_runs(steps: Sequence[int], *, most: int) -> Runs:
    """The step that each latent has reached, in at most `most` runs (at least 1).

    If that takes more, neighbours are put together in groups of 2, 4, ... and each group counts as the least of its
    steps: a latent is never told to be further than it is.
    """
    size, code = 1, _runs(steps)
    while len(code) > most:
        size *= 2
        groups = [steps[start : start + size] for start in range(0, len(steps), size)]
        code = _runs([min(group) for group in groups for _ in group])
    return code


def _runs(steps: Sequence[int]) -> Runs:
    return tuple((step, sum(1 for _ in same)) for step, same in itertools.groupby(steps))
