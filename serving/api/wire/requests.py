"""What clients may send, as pydantic models: they check it, and OpenAPI shows them."""

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from cluster.contract.plain_text import make_plain
from cluster.contract.pools_and_nodes import DrainRequest, PoolTerms
from serving.settings import MAX_MODEL_CHARS, MAX_PROMPT_CHARS, MAX_SEED, MAX_SHOT_S, MAX_STEPS

MAX_TAGS = 32
"""Tags of one job."""

MAX_TAG_CHARS = 200
"""Characters of a tag's value, a key's name or a reason."""


EARLIEST_MILLISECONDS = 1e11
"""A number of seconds from here on is later than the year 5138, so it is one of milliseconds."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_TAG = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$"
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class Must:
    """What a field accepts, in a person's words. They are said whatever check inside refuses a value."""

    words: str
    """Completes the sentence "must be ..."."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        words = f"must be {self.words}"
        return core_schema.custom_error_schema(handler(source), custom_error_type="must", custom_error_message=words)


def _one_line(text: str) -> str:
    """Raises ValueError for text that a terminal or a list would not show as one line."""
    if make_plain(text) != text:
        raise ValueError("it must be one line, without control characters")
    return text


def _moment(value: object) -> object:
    """Unix seconds of a time. Raises PydanticCustomError for a time without a zone, and for milliseconds."""
    if isinstance(value, str) and value.isascii() and value.replace(".", "", 1).isdecimal():
        value = float(value)  # as it stands in a URL
    if isinstance(value, str):
        if not _RFC_3339.fullmatch(value):
            words = "must be Unix seconds, or a time with its zone like 2026-12-01T10:00:00Z"
            raise PydanticCustomError("moment", words)
        try:
            return datetime.fromisoformat(value.upper()).timestamp()
        except ValueError as error:
            raise PydanticCustomError("moment", "must be a time that there is") from error
    if isinstance(value, int | float) and value >= EARLIEST_MILLISECONDS and math.isfinite(value):
        seconds = {"seconds": f"{value / 1000:.0f}"}
        raise PydanticCustomError("moment", "must be in seconds; these are milliseconds of {seconds}", seconds)
    return value


TenantName = Annotated[
    str,
    Field(pattern=_NAME, description="Letters, digits, dots, dashes and underscores."),
    Must("a name of at most 64 letters, digits, dots, dashes and underscores that begins with a letter or digit"),
]
Words = Annotated[
    str,
    Field(max_length=MAX_TAG_CHARS),
    AfterValidator(_one_line),
    Must(f"one line of at most {MAX_TAG_CHARS} characters, without control characters"),
]
TagName = Annotated[
    str,
    Field(pattern=_TAG),
    Must("named by at most 63 letters, digits, dots, dashes, slashes and underscores, a letter or digit first"),
]
Priority = Annotated[int, Field(strict=True, ge=0, le=100), Must("a whole number from 0 to 100")]
Money = Annotated[
    float, Field(strict=True, gt=0, le=1e9, allow_inf_nan=False), Must("a number of US dollars above 0, at most 1e9")
]
_Seconds = Annotated[float, Field(ge=0, lt=EARLIEST_MILLISECONDS)]
_DateTime = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]

Moment = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False),
    BeforeValidator(_moment, json_schema_input_type=_Seconds | _DateTime),
]
"""Unix seconds, or a time as RFC 3339 has it."""

Steps = Annotated[int, Field(strict=True, ge=1, le=MAX_STEPS), Must(f"a whole number from 1 to {MAX_STEPS}")]
DueTime = Annotated[Moment, Field(strict=True, gt=0)]
Tags = Annotated[dict[TagName, Words], Field(max_length=MAX_TAGS)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobOptions(_Body):
    """How a job is to be treated. What is left out is the default, or in a new version as it was in the one before."""

    pool: Annotated[Words, Field(max_length=64)] | None = Field(
        default=None, description="Pool that renders it; default: the first that serves the model."
    )
    steps: Steps | None = Field(
        default=None, description="Denoising steps instead of those of the storyboard's quality."
    )
    priority: Priority | None = Field(default=None, description="0 to 100; higher goes first. Default 50.")
    due_at: DueTime | None = Field(
        default=None, description="When the film should be there: Unix seconds, or a time with its zone (RFC 3339)."
    )
    budget_usd: Money | None = Field(default=None, description="US dollars after which nothing more is scheduled.")
    tags: Tags | None = Field(default=None, description="Words of your own, to find jobs by.")
    tenant: TenantName | None = Field(default=None, description="For administrators: whose job it is.")


class NewJob(JobOptions):
    """A storyboard and how it is to be treated."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "storyboard": {
                        "version": 1,
                        "title": "A red ball",
                        "shots": [{"id": "ball", "prompt": "a red ball rolls to the right", "seconds": 2.0}],
                    },
                    "priority": 60,
                    "tags": {"project": "demo"},
                },
                {"storyboard": "version: 1\nshots:\n  - {id: ball, prompt: a red ball, seconds: 2}\n"},
            ]
        }
    )

    storyboard: Annotated[dict[str, Any] | str, Must("the storyboard as an object, or as YAML text")] = Field(
        description="The storyboard as an object, or as YAML text."
    )


class JobChanges(_Body):
    """What may be changed while a job goes on; null takes a limit away."""

    priority: Priority | None = None
    due_at: DueTime | None = None
    budget_usd: Money | None = None

    @field_validator("priority")
    @classmethod
    def _is_a_number(cls, priority: int | None) -> int | None:
        if priority is None:
            raise ValueError("a job always has a priority, 0 to 100")
        return priority


class Reason(_Body):
    """Why something is done, for the job's log."""

    reason: Words = ""


class NewKey(_Body):
    """A key to be made."""

    tenant: TenantName = Field(description="Whose key; those of `admin` may manage the farm.", examples=["studio"])
    name: Words = Field("", description="What the key is for.", examples=["render script"])


class TenantSettings(_Body):
    """A tenant's share and limits; null is the farm's default, or no limit where the farm has none."""

    weight: Annotated[float, Field(strict=True, gt=0, le=1000, allow_inf_nan=False)] = Field(
        default=1.0, description="Share of the farm."
    )
    max_concurrent_jobs: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    max_concurrent_calls: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    requests_per_minute: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None


class NewTerms(PoolTerms):
    """What may be changed of a pool while it runs. What is left out is the default, not as it was before."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"min_gangs": 0, "max_gangs": 8}, {"mode": "external", "replicas": 3}]}
    )


class Drain(DrainRequest):
    """How a node is to be emptied."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"cause": "spot", "reason": "the cloud takes it back", "deadline_s": 110.0}]}
    )


class NewWebhook(_Body):
    """An address that is told of jobs."""

    url: Annotated[str, AfterValidator(_one_line), Field(max_length=2000, examples=["https://example.com/longtake"])]


Pixels = Annotated[int, Field(strict=True, ge=1, le=99_999), Must("a whole number of pixels")]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000), Must("a whole number above 0")]

_ONE_NAME = "is not supported: send the picture as input_reference"
_NO_VIDEO = "is not supported: Longtake begins films from words and pictures"
_MODELS_OWN = "cannot be chosen: it is the model's own"
_NOT_SENT = "is not supported: watch /v1/jobs/{id}/events or add a webhook, and fetch /v1/videos/{id}/content"

REFUSED = {
    **dict.fromkeys(("image", "image_reference", "image_url"), _ONE_NAME),
    "video_reference": _NO_VIDEO,
    **dict.fromkeys(("guidance_scale", "guidance_scale_2", "flow_shift", "boundary_ratio", "scheduler"), _MODELS_OWN),
    **dict.fromkeys(("response_format", "stream", "callback_url"), _NOT_SENT),
}
"""Fields of other video servers that are refused, and why."""


class InputReference(_Body):
    """A picture that was sent before, or that is in the request itself."""

    file_id: str | None = Field(default=None, max_length=80, description="An asset: sha256: and its hash.")
    image_url: str | None = Field(default=None, description="The picture as a data: URL. No address is fetched.")


class RemixedVideo(_Body):
    """What OpenAI's `POST /videos/{id}/remix` takes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "a blue ball rolls to the right"}]})

    prompt: Annotated[
        str, Field(min_length=1, max_length=MAX_PROMPT_CHARS), Must(f"text of 1 to {MAX_PROMPT_CHARS} characters")
    ] = Field(description="What is seen instead.")


class NewVideo(_Body):
    """What OpenAI's `POST /videos` takes, `shots`, and what other servers take beside if its meaning is plain. Lengths
    may be any up to the limits of a storyboard."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "a red ball rolls to the right", "seconds": "8", "size": "96x64"},
                {
                    "prompt": "Two balls",
                    "shots": [
                        {"id": "red", "prompt": "a red ball rolls", "seconds": 2},
                        {"id": "blue", "prompt": "a blue ball rolls", "seconds": 2, "transition": "continue"},
                    ],
                },
            ]
        },
    )

    prompt: Annotated[
        str, Field(min_length=1, max_length=MAX_PROMPT_CHARS), Must(f"text of 1 to {MAX_PROMPT_CHARS} characters")
    ] = Field(description="What is seen; with `shots` the title of the film.")
    model: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_CHARS)] | None = Field(
        default=None, description="A model of GET /v1/models; default: that of the farm's first pool."
    )
    seconds: (
        Annotated[
            Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,3})?$")]
            | Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)],
            Must("a number of seconds above 0"),
        ]
        | None
    ) = Field(
        default=None,
        description=f"Length of the one take; above 0, at most {MAX_SHOT_S:g}. Default 4. Not with `shots`.",
    )
    size: (
        Annotated[
            str,
            Field(pattern=r"^[0-9]{1,5}[xX*][0-9]{1,5}$", examples=["96x64"]),
            Must("written width x height in pixels, like 1280x720"),
        ]
        | None
    ) = Field(default=None, description="Width x height in pixels; default: what the model was made for.")
    width: Pixels | None = Field(default=None, description="Instead of `size`, with `height`.")
    height: Pixels | None = Field(default=None, description="Instead of `size`, with `width`.")
    fps: Count | None = Field(default=None, description="Frames per second; default: the model's.")
    num_frames: Count | None = Field(default=None, description="Instead of `seconds`: the length in frames.")
    negative_prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARS)] | None = Field(
        default=None, description="What is not wanted."
    )
    num_inference_steps: Steps | None = Field(default=None, description="Denoising steps; default: the quality's.")
    user: Words | None = Field(default=None, description="Kept as the tag `user` of the job.")
    metadata: Annotated[dict[TagName, Words], Field(max_length=MAX_TAGS - 1)] | None = Field(
        default=None, description="Kept as tags of the job."
    )
    n: Annotated[Literal[1], Must("1: a request makes one video")] | None = None
    input_reference: InputReference | str | None = Field(
        default=None,
        description="The picture that the video begins with: a file of the form, an asset's id, or an object.",
        json_schema_extra={"format": "binary"},
    )
    shots: list[dict[str, Any]] | None = Field(default=None, description="Shots of a storyboard, instead of one take.")
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED), Must(f"a whole number from 0 to {MAX_SEED}")] | None = (
        Field(default=None, description="Default 0.")
    )
    quality: Literal["draft", "standard", "final"] | None = Field(default=None, description="Default standard.")

    @property
    def tags(self) -> dict[str, str]:
        """What the job is to be found by."""
        return {**(self.metadata or {}), **({"user": self.user} if self.user is not None else {})}
