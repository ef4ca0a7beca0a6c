"""What clients may send, as pydantic models: they check it, and OpenAPI shows them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cluster.contract.pools_and_nodes import DrainRequest, PoolTerms
from serving.settings import MAX_MODEL_CHARS, MAX_PROMPT_CHARS, MAX_SEED, MAX_SHOT_S, MAX_STEPS

MAX_TAGS = 32
"""Tags of one job."""

MAX_TAG_CHARS = 200
"""Characters of a tag's value, a key's name or a reason."""


_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_TAG = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$"
_NO_CONTROL = r"^[^\x00-\x1f\x7f]*$"

TenantName = Annotated[str, Field(pattern=_NAME, description="Letters, digits, dots, dashes and underscores.")]
Words = Annotated[str, Field(max_length=MAX_TAG_CHARS, pattern=_NO_CONTROL)]
Priority = Annotated[int, Field(strict=True, ge=0, le=100)]
Money = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
UnixSeconds = Annotated[float, Field(gt=0, le=1e11, allow_inf_nan=False)]
Tags = Annotated[dict[Annotated[str, Field(pattern=_TAG)], Words], Field(max_length=MAX_TAGS)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobOptions(_Body):
    """How a job is to be treated. What is left out is the default, or in a new version as it was in the one before."""

    pool: Annotated[str, Field(max_length=64, pattern=_NO_CONTROL)] | None = Field(
        default=None, description="Pool that renders it; default: the first that serves the model."
    )
    steps: Annotated[int, Field(strict=True, ge=1, le=MAX_STEPS)] | None = Field(
        default=None, description="Denoising steps instead of those of the storyboard's quality."
    )
    priority: Priority | None = Field(default=None, description="0 to 100; higher goes first. Default 50.")
    due_at: UnixSeconds | None = Field(default=None, description="Unix seconds at which the film should be there.")
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

    storyboard: dict[str, Any] | str = Field(description="The storyboard as an object, or as YAML text.")


class JobChanges(_Body):
    """What may be changed while a job goes on; null takes a limit away."""

    priority: Priority | None = None
    due_at: UnixSeconds | None = None
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

    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = Field(1.0, description="Share of the farm.")
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

    url: Annotated[str, Field(max_length=2000, pattern=_NO_CONTROL, examples=["https://example.com/longtake"])]


class NewVideo(BaseModel):
    """What OpenAI's `POST /videos` takes, and `shots`. Lengths may be any up to the limits of a storyboard."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
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

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS)] = Field(
        description="What is seen; with `shots` the title of the film."
    )
    model: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_CHARS)] | None = Field(
        default=None, description="A model of GET /v1/models; default: that of the farm's first pool."
    )
    seconds: Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,3})?$")] | Annotated[float, Field(gt=0)] | None = (
        Field(
            None, description=f"Length of the one take; above 0, at most {MAX_SHOT_S:g}. Default 4. Not with `shots`."
        )
    )
    size: Annotated[str, Field(pattern=r"^[0-9]{1,5}x[0-9]{1,5}$", examples=["96x64"])] | None = Field(
        default=None, description="Width x height in pixels; default: what the model was made for."
    )
    shots: list[dict[str, Any]] | None = Field(default=None, description="Shots of a storyboard, instead of one take.")
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = Field(default=None, description="Default 0.")
    quality: Literal["draft", "standard", "final"] | None = Field(default=None, description="Default standard.")
