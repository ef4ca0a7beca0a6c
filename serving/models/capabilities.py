"""What a Wan checkpoint can do: from its configs, the defaults of its family, and `longtake.json` in its folder.

`longtake.json` says what a model was made for if that differs from the published Wan models. All keys are optional:
`{"window": 8, "width": 96, "height": 64, "fps": 16, "guidance": [3.0], "pictures": ["first", "last"],
"stitching": {"kind": "drafted"}}`; the keys of `stitching` are those of sharding.stitching.Stitching.
"""

import difflib
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.errors import ModelError, Problem
from serving.models.checkpoint import Architecture, Checkpoint
from serving.models.config_files import read_config
from sharding.capabilities import Capabilities, PictureSupport
from sharding.spans import Grid
from sharding.stitching import Stitching

FILE = "longtake.json"


@dataclass(frozen=True)
class MadeFor:
    """What the makers of a family of models trained and tuned it for."""

    window: int
    """Latents."""
    width: int
    height: int
    fps: int
    guidance: tuple[float, ...]


# From the model cards and example calls of Wan-AI's repositories: 81 frames at 16 fps, the 5B 121 frames at 24 fps.
WAN_21 = MadeFor(window=21, width=832, height=480, fps=16, guidance=(5.0,))
WAN_22_A14B = MadeFor(window=21, width=1280, height=720, fps=16, guidance=(4.0, 3.0))
WAN_22_5B = MadeFor(window=31, width=1280, height=704, fps=24, guidance=(5.0,))


class MadeForFile(BaseModel):
    """The keys of `longtake.json`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    window: Annotated[int, Field(ge=2, le=1024)] | None = None
    """Latents; W of the chunk schedule."""
    width: Annotated[int, Field(ge=1, le=16384)] | None = None
    """Pixels."""
    height: Annotated[int, Field(ge=1, le=16384)] | None = None
    """Pixels."""
    fps: Annotated[int, Field(ge=1, le=240)] | None = None
    """Frames per second."""
    later_windows: Literal["shown", "slice"] | None = None
    """What windows behind a picture read on a model that reads pictures beside its latents: the picture, in a latent of
    its own (docs/decisions/0011), or a slice of the take's clip without it."""
    pictures: list[Literal["first", "last", "keyframes", "strength", "context"]] | None = None
    """What it takes beside prompts."""
    stitching: dict[str, str | int | float] | None = None
    """How the chunks of its takes agree if a storyboard does not say."""
    guidance: Annotated[list[Annotated[float, Field(ge=1, le=100)]], Field(min_length=1, max_length=2)] | None = None
    """Guidance scale per expert, from the noisiest; one number serves all. 1.0 means no guidance."""


def describe_capabilities(checkpoint: Checkpoint) -> Capabilities:
    """The capabilities of a checkpoint, without loading any of its weights. Raises ModelError."""
    architecture = checkpoint.architecture
    family, file = _family_of(architecture), _read_file(checkpoint)
    capabilities = Capabilities(
        grid=Grid(frames_per_latent=architecture.frames_per_latent),
        window=file.window or family.window,
        latent_channels=architecture.latent_channels,
        pixels_per_cell=architecture.pixels_per_cell,
        size_multiple=architecture.pixels_per_cell * math.lcm(*architecture.patch),
        width=file.width or family.width,
        height=file.height or family.height,
        fps=file.fps or family.fps,
        guidance=_guidance_per_expert(checkpoint, tuple(file.guidance or family.guidance)),
        pictures=_pictures_of(checkpoint, file),
        stitching=_stitching_of(checkpoint, file),
        max_width=architecture.max_positions * architecture.pixels_per_cell * architecture.patch[1],
        max_height=architecture.max_positions * architecture.pixels_per_cell * architecture.patch[0],
    )
    _refuse_unfit(checkpoint, capabilities)
    return capabilities


def _pictures_of(checkpoint: Checkpoint, file: MadeForFile) -> PictureSupport:
    """What the family takes, unless the file says otherwise: the 5B was trained for a first picture alone."""
    architecture = checkpoint.architecture
    if architecture.reads_pictures:
        last = architecture.image_dim is None or architecture.reads_two_embeddings
        return PictureSupport(
            first=True, last=last, sections=True, needs_first=True, needs_last=architecture.reads_two_embeddings,
            shown=file.later_windows != "slice",
        )  # fmt: skip
    if architecture.is_vace:
        return PictureSupport(first=True, last=True, keyframes=True, references=True, always=True)
    if not architecture.expand_timesteps:
        if file.pictures:
            raise ModelError(f"{checkpoint.name!r}: {FILE}: pictures are for models with expand_timesteps")
        return PictureSupport()
    taken = set(file.pictures if file.pictures is not None else ["first"])
    if "strength" in taken and architecture.scheduler_class != "FlowMatchEulerDiscreteScheduler":
        raise ModelError(f"{checkpoint.name!r}: {FILE}: a strength needs a FlowMatchEulerDiscreteScheduler")
    return PictureSupport(given=True, **dict.fromkeys(taken, True))


def _stitching_of(checkpoint: Checkpoint, file: MadeForFile) -> Stitching:
    try:
        stitching = Stitching(**(file.stitching or {}))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        keys = ", ".join(Stitching.__dataclass_fields__)
        raise ModelError(f"{checkpoint.name!r}: {FILE}: stitching: {error}; its keys are {keys}") from error
    if stitching.needs_context and not _pictures_of(checkpoint, file).context:
        raise ModelError(f"{checkpoint.name!r}: {FILE}: stitching {stitching.kind} needs context among pictures")
    return stitching


def _family_of(architecture: Architecture) -> MadeFor:
    if architecture.expand_timesteps:
        return WAN_22_5B
    return WAN_21 if architecture.boundary_ratio is None else WAN_22_A14B


def _read_file(checkpoint: Checkpoint) -> MadeForFile:
    path = checkpoint.folder / FILE
    if not path.exists():
        return MadeForFile()
    try:
        return MadeForFile.model_validate(read_config(path, checkpoint.name, mark_allowed=True).values)
    except ValidationError as error:
        problems = [str(_problem_of(detail)) for detail in error.errors()]
        raise ModelError(f"{checkpoint.name!r}: {path}:\n" + "\n".join(problems)) from error


def _problem_of(detail: Any) -> Problem:
    keys = list(MadeForFile.model_fields)
    key = str(detail["loc"][0])
    where = key + "".join(f"[{index}]" for index in detail["loc"][1:] if isinstance(index, int))
    if detail["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(key, keys, n=1)
        return Problem(where, f"unknown key, allowed are {', '.join(keys)}", nearest=nearest[0] if nearest else None)
    return Problem(where, str(detail["msg"]), value=repr(detail["input"])[:60])


def _guidance_per_expert(checkpoint: Checkpoint, guidance: tuple[float, ...]) -> tuple[float, ...]:
    num_experts = len(checkpoint.architecture.expert_components)
    if len(guidance) == 1:
        return guidance * num_experts
    if len(guidance) != num_experts:
        raise ModelError(f"{checkpoint.name!r}: {FILE}: guidance has {len(guidance)} entries for {num_experts} expert")
    return guidance


def _refuse_unfit(checkpoint: Checkpoint, capabilities: Capabilities) -> None:
    multiple = capabilities.size_multiple
    sides = (
        ("width", capabilities.width, capabilities.max_width),
        ("height", capabilities.height, capabilities.max_height),
    )
    for key, pixels, most in sides:
        if pixels % multiple:
            raise ModelError(f"{checkpoint.name!r}: {FILE}: {key} must be a multiple of {multiple}, not {pixels}")
        if most is not None and pixels > most:
            raise ModelError(
                f"{checkpoint.name!r}: {FILE}: {key} must be at most {most} pixels, the positions that the transformer"
                f" knows, not {pixels}"
            )
    if capabilities.window > checkpoint.architecture.max_positions:
        raise ModelError(
            f"{checkpoint.name!r}: {FILE}: window must be at most {checkpoint.architecture.max_positions} latents,"
            f" the positions that the transformer knows, not {capabilities.window}"
        )
