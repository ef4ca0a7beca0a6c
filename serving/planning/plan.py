"""What a film takes to render, as plain frozen data: its takes, their shots, prompts and chunks, and what they cost.

compile.py makes plans; render, the command line and the manifest read them. Counts are frames unless they say latents.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from serving.errors import Problem
from serving.pictures.fitting import Fitting
from sharding.spans import FrameSpan
from sharding.stitching import Schedule, Stitching, schedule

Transition = Literal["cut", "continue", "dissolve"]
"""How a shot begins."""

Json = dict[str, object]
"""An object for JSON."""


@dataclass(frozen=True)
class ShotPlan:
    """One shot as it will be seen."""

    id: str
    prompt: str
    """Characters written out, style added; cut to what the model reads."""
    negative: str
    seconds: float
    """As requested."""
    frames: int
    """As rendered: the request rounded to whole frames, at least one."""
    film: FrameSpan
    """Where it lies in the film."""
    transition: Transition
    dissolve_seconds: float | None
    """As requested, where it begins with a dissolve; the take says how many frames that is."""


@dataclass(frozen=True)
class TakePrompt:
    """A prompt of a take and the latent at which it begins."""

    text: str
    negative: str
    start_latent: int


PicturePlace = Literal["first", "last", "keyframe"]
"""Which key of a shot a picture stood at: image, last_image or keyframes."""


@dataclass(frozen=True)
class TakePicture:
    """A picture of a take and the latent that it becomes."""

    asset: str
    """sha256 of its bytes, hexadecimal."""
    place: PicturePlace
    shot: str
    """Id of the shot that has it."""
    latent: int
    strength: float
    frame: int
    """Frame of the take that was asked for."""
    real_frame: int
    """Frame of the take at which it lands: the last one of its latent."""


@dataclass(frozen=True)
class TakePlan:
    """One latent timeline: a maximal run of shots joined by `continue`.

    Its frames are, in order: `head` handles, the shots, `tail` handles, and `surplus` that only fills the model's grid.
    """

    key: str
    """The id of its first shot; its noise hangs on it."""
    seed: int
    shots: tuple[ShotPlan, ...]
    latents: int
    frames: int
    """Frames that the latents decode to."""
    head: int
    """Frames before the first shot, seen only through the dissolve into this take."""
    tail: int
    """Frames after the last shot, seen only through the dissolve out of this take."""
    dissolve_in: int
    """Frames of the dissolve into this take, centred on the cut; 0 if it begins with a cut."""
    prompts: tuple[TakePrompt, ...]
    """By start_latent, which ascends from 0."""
    pictures: tuple[TakePicture, ...]
    """By latent, of which each has at most one."""
    references: tuple[str, ...]
    """Assets: pictures of the characters in it, for models that take references."""
    conditioned: bool
    """Its model reads something beside words, made once for the take (sharding.denoiser.Condition)."""
    shares: tuple[float, ...]
    """Per latent: its noise level as a share of its step's; 0: it is given. Empty if all have the step's."""
    window: int
    """The most latents of one of its chunks."""
    stitching: Stitching
    """How its chunks agree."""
    stitching_reason: str
    """Why it is this one."""
    chunks_per_step: tuple[int, ...]
    calls: int
    """Chunks over all steps: what gangs are sent."""
    evaluations: int
    """Calls, each counted once per prompt that it needs: what the model is asked to predict, before guidance."""
    latents_evaluated: int
    """Latents over all evaluations: what costs time."""
    longest_chain: int
    """Calls that come one after another: its time on any number of gangs."""
    ready_calls: int
    """Calls that wait for no other."""
    calls_at_once: int
    """The most calls that gangs can work on at once."""

    def schedule(self, steps: int) -> Schedule:
        """Its steps: which noise level each visits, its chunks, and what they read beside them."""
        given = given_latents(self.shares)
        return schedule(self.stitching, num_latents=self.latents, window=self.window, steps=steps, given=given)

    def draft_steps(self, steps: int) -> int:
        """Those that make a draft, the first; 0 if it has none."""
        return self.schedule(steps).chain_steps if self.stitching.kind == "drafted" else 0

    @property
    def shot_frames(self) -> int:
        """Frames of its shots, handles not counted."""
        return sum(shot.frames for shot in self.shots)

    @property
    def surplus(self) -> int:
        """Frames rendered only because the model's grid has no length between."""
        return self.frames - self.head - self.shot_frames - self.tail

    @property
    def assets(self) -> tuple[str, ...]:
        """Every picture that it is made from, each once, in order of their hashes."""
        return tuple(sorted({*(picture.asset for picture in self.pictures), *self.references}))

    @property
    def prompt_changes(self) -> tuple[int, ...]:
        """The latents at which the second prompt and those after it begin."""
        return tuple(prompt.start_latent for prompt in self.prompts[1:])


def given_latents(shares: Sequence[float]) -> tuple[int, ...]:
    """Latents of a take that are there from the start, by their shares of the noise."""
    return tuple(n for n, share in enumerate(shares) if share == 0)


@dataclass(frozen=True)
class FilmPlan:
    """Everything that a film needs to be rendered on any number of gangs."""

    title: str
    model: str
    width: int
    height: int
    fps: int
    steps: int
    identity: float
    """rho: how much starting noise the takes share, 0..1."""
    seed: int
    takes: tuple[TakePlan, ...]
    frames: int
    """Frames of the film: the sum of its shots'."""
    calls: int
    evaluations: int
    """As in TakePlan, over all takes."""
    latents_evaluated: int
    overlap_waste: float
    """Latents predicted / (latents * steps) - 1: the redundant work of overlapping chunks, prompts counted once."""
    storyboard_hash: str
    fitting: Fitting
    """How its pictures are brought to its size."""
    warnings: tuple[Problem, ...] = ()
    """What the storyboard says and the film will not show, such as the end of a prompt that is too long."""

    @property
    def latents(self) -> int:
        """Latents of all takes."""
        return sum(take.latents for take in self.takes)


def warnings_json(plan: FilmPlan) -> list[Json]:
    """A plan's warnings as the API, `longtake plan --json` and the manifest say them."""
    return [{"path": warning.path, "message": warning.message} for warning in plan.warnings]


def plan_json(plan: FilmPlan) -> Json:
    """The plan for `longtake plan --json` and the film's manifest. Spans are [first, one past the last]."""
    return {
        "title": plan.title,
        "model": plan.model,
        "width": plan.width,
        "height": plan.height,
        "fps": plan.fps,
        "steps": plan.steps,
        "seed": plan.seed,
        "identity": plan.identity,
        "frames": plan.frames,
        "seconds": plan.frames / plan.fps,
        "latents": plan.latents,
        "calls": plan.calls,
        "evaluations": plan.evaluations,
        "latents_evaluated": plan.latents_evaluated,
        "overlap_waste": plan.overlap_waste,
        "storyboard_hash": plan.storyboard_hash,
        "warnings": warnings_json(plan),
        "takes": [_take_json(take, plan.fps) for take in plan.takes],
    }


def _take_json(take: TakePlan, fps: int) -> Json:
    return {
        "key": take.key,
        "seed": take.seed,
        "shots": [_shot_json(shot, fps) for shot in take.shots],
        "latents": take.latents,
        "frames": take.frames,
        "head": take.head,
        "tail": take.tail,
        "surplus": take.surplus,
        "dissolve_in": take.dissolve_in,
        "prompts": [
            {"text": prompt.text, "negative": prompt.negative, "start_latent": prompt.start_latent}
            for prompt in take.prompts
        ],
        **_pictures_json(take, fps),
        "stitching": {**asdict(take.stitching), "reason": take.stitching_reason},
        "longest_chain": take.longest_chain,
        "chunks_per_step": list(take.chunks_per_step),
        "calls": take.calls,
        "evaluations": take.evaluations,
        "latents_evaluated": take.latents_evaluated,
    }


def _pictures_json(take: TakePlan, fps: int) -> Json:
    """Nothing for a take of words alone. Frames and seconds are of the film."""
    start = take.shots[0].film.start - take.head
    pictures = [
        {
            "asset": picture.asset,
            "shot": picture.shot,
            "place": picture.place,
            "strength": picture.strength,
            "latent": picture.latent,
            "requested_frame": start + picture.frame,
            "real_frame": start + picture.real_frame,
            "real_seconds": (start + picture.real_frame) / fps,
        }
        for picture in take.pictures
    ]
    return {
        **({"pictures": pictures} if pictures else {}),
        **({"references": list(take.references)} if take.references else {}),
    }


def _shot_json(shot: ShotPlan, fps: int) -> Json:
    return {
        "id": shot.id,
        "prompt": shot.prompt,
        "negative": shot.negative,
        "transition": shot.transition,
        "dissolve_seconds": shot.dissolve_seconds,
        "requested_seconds": shot.seconds,
        "real_seconds": shot.frames / fps,
        "frames": shot.frames,
        "film": [shot.film.start, shot.film.stop],
    }
