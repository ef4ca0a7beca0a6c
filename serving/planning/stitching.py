"""Which stitching a take gets, and why. Pure."""

from collections.abc import Iterator
from dataclasses import replace

from serving.errors import Problem
from serving.models.registry import models_that_take
from serving.storyboard.schema import Storyboard
from sharding.capabilities import Capabilities
from sharding.stitching import JOINT, MIN_DRAFT_STEPS, STITCHING_KINDS, Stitching, StitchingKind

MIN_DRAFTED_STEPS = 2 * MIN_DRAFT_STEPS
"""Steps of a take below which a chain is better: on pocket at 4 steps 9 % slips drafted, 0.8 % chained."""


def choose_stitching(
    asked: StitchingKind | None, capabilities: Capabilities, *, latents: int, window: int, steps: int
) -> tuple[Stitching, str]:
    """The stitching of a take of `latents`, of which a call holds `window` at most, and why; `asked` is the
    storyboard's. The reason completes "joint, because ..."."""
    if latents <= window:
        return JOINT, "it is one chunk"
    if asked is not None:
        return replace(capabilities.stitching, kind=asked), "the storyboard asks for it"
    if capabilities.stitching.kind == "drafted" and steps < MIN_DRAFTED_STEPS:
        return replace(
            capabilities.stitching, kind="chained"
        ), f"a draft and its refinement need {MIN_DRAFTED_STEPS} steps"
    if capabilities.stitching.needs_context:
        return capabilities.stitching, "the model reads finished latents, and does best with it"
    return capabilities.stitching, "it is what the model can do"


def stitchings_of(capabilities: Capabilities) -> list[StitchingKind]:
    """What a model can do, its own first."""
    own = capabilities.stitching.kind
    able = [kind for kind in STITCHING_KINDS if capabilities.pictures.context or not Stitching(kind).needs_context]
    return [own, *(kind for kind in able if kind != own)]


def refused_stitching(storyboard: Storyboard, capabilities: Capabilities, *, model_name: str) -> Iterator[Problem]:
    """What is wrong with the stitching that a storyboard asks for, if anything."""
    asked = storyboard.stitching
    if asked is None or asked in stitchings_of(capabilities):
        return
    others = ", ".join(models_that_take("context"))
    message = f"{model_name} reads no finished latents beside others, and can do joint alone; models that can: {others}"
    yield storyboard.lines.problem(("stitching",), message, value=asked)
