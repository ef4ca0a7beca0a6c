"""The latents of a job as the API answers them."""

from typing import Literal

from pydantic import Field

from serving.api.answer import Answer, Milliseconds


class CallInFlight(Answer):
    """A call that a gang has now."""

    start: int = Field(description="First latent of the chunk.")
    stop: int = Field(description="The latent after its last.")
    step: int = Field(description="The step that it is predicted for, from 0.")
    gang: str
    since: float = Field(description="Unix seconds when the gang was given it.")
    try_: int = Field(alias="try", description="1 if it never failed before.")


class TimelineTake(Answer):
    """How far each latent of a take is."""

    key: str
    latents: int
    steps: int = Field(description="Denoising steps in all.")
    draft_steps: int = Field(default=0, description="The first of them, if they make a draft that the others refine.")
    reached: list[tuple[int, int]] = Field(
        description="Run-length code in the order of latents: the step reached, and by how many latents in a row. "
        "A very ragged timeline is told coarser, by the least step of neighbours."
    )
    exact: bool = Field(description="False if only the counts are known: then the furthest come first.")
    in_flight: list[CallInFlight]
    retries: int


class TimelineView(Answer):
    """The latents of a job as they are now."""

    object: Literal["timeline"] = "timeline"
    job: str
    at: Milliseconds = Field(description="Unix seconds when this was so.")
    live: bool = Field(description="Whether the Director said so; else it is what the store knows.")
    takes: list[TimelineTake]
