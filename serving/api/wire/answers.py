"""What the API answers, as pydantic models: only OpenAPI reads them. The answers themselves are made in *_json
functions, and a test holds the two together.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field

from cluster.contract.pools_and_nodes import NodeState, PoolDecision, PoolDemand, PoolSupply, PoolTerms, SpotPolicy
from serving.store.records import JobStatus


class Problem(BaseModel):
    """One thing wrong in what was sent."""

    path: str = Field(
        description="Where, as a user would write it; empty for the whole.", examples=["shots[2].seconds"]
    )
    message: str
    value: str | None = Field(description="The offending value, shortened.")
    nearest: str | None = Field(description="What was probably meant.")
    line: int | None = Field(description="Line of the storyboard, from 1, where it was sent as text.")


class ProblemDocument(BaseModel):
    """An error as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="For programs: does not change.", examples=["invalid_request"])
    problems: list[Problem] | None = Field(default=None, description="What is wrong, where a request was refused.")
    allowed: list[str] | None = Field(default=None, description="What the job can be asked to do instead.")


class OpenAIErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error as OpenAI has it."""

    error: OpenAIErrorBody


class Cost(BaseModel):
    """What was spent so far: useful and wasted GPU-seconds apart, money together."""

    gpu_seconds: float
    wasted_gpu_seconds: float
    usd: float


class Take(BaseModel):
    """A run of shots without a cut."""

    key: str
    shots: list[str]
    status: Literal["waiting", "rendering", "rendered", "decoded"]
    progress: float
    latents: int
    latents_finished: int
    frames: int
    frames_decoded: int
    calls: int
    calls_done: int
    cached: bool = Field(description="It was there already and is not rendered for this job.")
    retries: int
    step_counts: list[int] = Field(description="Latents that have reached each denoising step.")
    cost: Cost
    preview: str | None = Field(description="A picture of its latents as they are now.")
    head: str | None = Field(description="A film of its frames so far.")


class Film(BaseModel):
    """A finished film."""

    sha256: str
    frames: int
    seconds: float
    url: str
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None


class JobFailure(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class Links(BaseModel):
    """Paths below the address of the API."""

    self: str
    events: str
    film: str | None
    manifest: str | None


class Job(BaseModel):
    """One version of one film. Times are unix seconds."""

    id: str
    object: Literal["job"]
    status: JobStatus
    reason: str = Field(description="Why it has this status, in words.")
    progress: float = Field(ge=0, le=100)
    title: str
    version: int
    family: str = Field(description="Id of the first version.")
    parent: str | None = Field(description="Id of the version that this one was made from.")
    tenant: str
    kind: Literal["native", "video"]
    model: str
    pool: str
    steps: int | None = Field(description="Denoising steps, where they are others than those of the quality.")
    priority: int
    due_at: int | None
    at_risk: bool = Field(description="Its due time will probably be missed.")
    budget_usd: float | None
    tags: dict[str, str]
    created_at: int
    started_at: int | None
    finished_at: int | None
    eta: int | None = Field(description="When it should be finished.")
    takes: list[Take]
    cost: Cost
    film: Film | None
    error: JobFailure | None
    links: Links
    quote: "Quote | None" = Field(default=None, description="Of revise and finalize: what will be rendered.")


class JobList(BaseModel):
    """A page of jobs. The next page begins after `last_id`."""

    object: Literal["list"]
    data: list[Job]
    first_id: str | None
    last_id: str | None
    has_more: bool
    counts: dict[JobStatus, int] | None = Field(
        default=None, description="With `counts=true`: jobs of each status that the caller sees, on any page."
    )


class CallInFlight(BaseModel):
    """A call that a gang has now."""

    start: int = Field(description="First latent of the chunk.")
    stop: int = Field(description="The latent after its last.")
    step: int = Field(description="The step that it is predicted for, from 0.")
    gang: str
    since: float = Field(description="Unix seconds when the gang was given it.")
    try_: int = Field(alias="try", description="1 where it never failed before.")


class TimelineTake(BaseModel):
    """How far each latent of a take is."""

    key: str
    latents: int
    steps: int = Field(description="Denoising steps in all.")
    reached: list[tuple[int, int]] = Field(
        description="Run-length code in the order of latents: the step reached, and by how many latents in a row. "
        "A very ragged timeline is told coarser, by the least step of neighbours."
    )
    exact: bool = Field(description="False where only the counts are known: then the furthest come first.")
    in_flight: list[CallInFlight]
    retries: int


class TimelineView(BaseModel):
    """The latents of a job as they are now."""

    object: Literal["timeline"]
    job: str
    at: float = Field(description="Unix seconds when this was so.")
    live: bool = Field(description="Whether the Director said so; else it is what the store knows.")
    takes: list[TimelineTake]


class LogLine(BaseModel):
    """One event of the farm's log."""

    id: int
    object: Literal["log_line"]
    at: float = Field(description="Unix seconds.")
    level: Literal["info", "warning", "error"]
    action: str = Field(description="What happened, for programs.", examples=["call_failed"])
    message: str = Field(description="What happened, for people; without the farm's insides unless an admin asks.")
    job: str | None
    fields: dict[str, Any] = Field(description="Further ids and numbers: take, pool, gang, step, outcome...")


class LogLineList(BaseModel):
    """A page of log lines, oldest first. The next page begins after `last_id`."""

    object: Literal["list"]
    data: list[LogLine]
    first_id: int | None
    last_id: int | None
    has_more: bool = Field(description="With `after`: there are newer lines. Without: there are older ones.")


class StatusMeaning(BaseModel):
    """What a status means for a job that has it."""

    status: JobStatus
    is_live: bool = Field(description="Its calls may be rendered now.")
    is_over: bool = Field(description="Nothing more happens to it by itself.")
    actions: list[str] = Field(
        description="What may be asked for: paths below the job.", examples=[["pause", "cancel"]]
    )


class Me(BaseModel):
    """Who is asking."""

    object: Literal["caller"]
    tenant: str
    is_admin: bool = Field(description="Whether they may manage the farm and see all jobs.")
    needs_keys: bool = Field(description="Whether the farm asks for keys.")
    statuses: list[StatusMeaning] = Field(description="Every status that a job can have, the same for every caller.")


class QuoteTake(BaseModel):
    """What one take costs."""

    key: str
    shots: list[str]
    calls: int
    gpu_seconds: float
    usd: float
    cached: bool = Field(description="It is there already and costs nothing.")


class Quote(BaseModel):
    """What a film costs, and when it may be there."""

    object: Literal["quote"]
    pool: str
    calls: int
    gpu_seconds: float
    usd: float
    starts_at: int | None
    finishes_at: int | None
    due_feasible: bool | None = Field(description="null where no due time was given or nothing is known yet.")
    frames: int
    seconds: float
    takes: list[QuoteTake]


class Change(BaseModel):
    """One difference between two storyboards; what is missing on a side is null there."""

    path: str
    before: Any
    after: Any


class TakeChange(BaseModel):
    """What became of a take."""

    key: str
    change: Literal["same", "changed", "added", "removed"]


class Diff(BaseModel):
    """How one job differs from another."""

    object: Literal["diff"]
    job: str
    against: str
    changes: list[Change]
    takes: list[TakeChange]


class Explanation(BaseModel):
    """Why a job is where it is, in words, and what is behind them."""

    object: Literal["explanation"]
    job: str
    status: JobStatus
    words: str
    reasons: list[str]
    position: int | None = Field(description="1 is next; null while it renders or does not wait for gangs.")
    ahead_gpu_seconds: float
    starts_at: int | None
    finishes_at: int | None
    at_risk: bool


class Model(BaseModel):
    """A model that the farm serves."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    description: str
    pools: list[str]
    qualities: dict[str, int] = Field(description="Denoising steps that each quality stands for.")
    fps: int | None = Field(description="Of its films where a storyboard says nothing else; null: not known here.")
    width: int | None = Field(description="Pixels, likewise.")
    height: int | None = Field(description="Pixels, likewise.")
    size_multiple: int | None = Field(description="A storyboard may choose any width and height that it divides.")


class ModelList(BaseModel):
    """All models of the farm."""

    object: Literal["list"]
    data: list[Model]


class Pool(BaseModel):
    """Gangs of one shape that serve one model."""

    name: str
    model: str
    gang_shape: str
    min_gangs: int
    max_gangs: int
    gpus_per_rank: int
    price_per_gpu_second: float = Field(description="US dollars.")
    is_scaled: bool = Field(description="Whether the number of gangs follows the backlog; else it is fixed.")
    terms: PoolTerms
    spot_applied: SpotPolicy = Field(description="As deployed; that of the terms comes with the next deployment.")
    demand: PoolDemand | None
    supply: PoolSupply | None
    decision: PoolDecision | None = Field(description="Null for a pool of a fixed size.")
    live: dict[str, Any] | None = Field(description="What the Director says of it; null where it cannot be reached.")


class PoolList(BaseModel):
    """All pools of the farm."""

    object: Literal["list"]
    data: list[Pool]


class NodeList(BaseModel):
    """The machines of the farm, those that are gone too while the cluster remembers them."""

    object: Literal["list"]
    data: list[NodeState]


class Usage(BaseModel):
    """GPU-seconds and money of a tenant, or of a shot of a job."""

    tenant: str | None = None
    take: str | None = None
    shot: str | None = None
    gpu_seconds: float
    wasted_gpu_seconds: float
    usd: float


class UsageList(BaseModel):
    """The ledger, summed up."""

    object: Literal["list"]
    data: list[Usage]


class ApiKey(BaseModel):
    """A key; its secret is shown once, by the request that makes it."""

    id: str
    object: Literal["api_key"]
    tenant: str
    name: str
    created_at: int
    revoked_at: int | None
    secret: str | None = None


class ApiKeyList(BaseModel):
    """Keys, those that were revoked too."""

    object: Literal["list"]
    data: list[ApiKey]


class Tenant(BaseModel):
    """A tenant's share and limits; null is the farm's default."""

    name: str
    object: Literal["tenant"]
    weight: float
    max_concurrent_jobs: int | None
    max_concurrent_calls: int | None
    requests_per_minute: int | None


class TenantList(BaseModel):
    """Tenants with settings of their own."""

    object: Literal["list"]
    data: list[Tenant]


class Webhook(BaseModel):
    """An address that is told of a tenant's jobs; its secret is shown once, by the request that makes it."""

    id: str
    object: Literal["webhook"]
    tenant: str
    url: str
    enabled: bool
    created_at: int
    secret: str | None = None


class WebhookList(BaseModel):
    """Webhook endpoints of a tenant."""

    object: Literal["list"]
    data: list[Webhook]


class Delivery(BaseModel):
    """A message to a webhook endpoint."""

    id: str
    object: Literal["delivery"]
    job: str
    type: str
    attempts: int = Field(description="Tries that failed.")
    created_at: int
    due_at: int | None = Field(description="When it is tried next; null where nothing more will be tried.")
    delivered_at: int | None
    error: str | None


class DeliveryList(BaseModel):
    """The last messages to an endpoint."""

    object: Literal["list"]
    data: list[Delivery]


class AuditEntry(BaseModel):
    """Something that a person did."""

    id: int
    at: int
    tenant: str
    actor: str
    action: str
    target: str
    result: str
    detail: str


class AuditList(BaseModel):
    """A page of the audit log, newest first. The next page begins before `last_id`."""

    object: Literal["list"]
    data: list[AuditEntry]
    first_id: int | None
    last_id: int | None
    has_more: bool


class Deleted(BaseModel):
    """What was deleted."""

    id: str
    object: str
    deleted: bool


class Health(BaseModel):
    """Whether the Api works, and what of the rest it reaches."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = {}


class VideoFailure(BaseModel):
    """Why a video failed."""

    code: str
    message: str


class OpenAIVideo(BaseModel):
    """A video as OpenAI has it."""

    id: str
    object: Literal["video"]
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int = Field(ge=0, le=100)
    created_at: int
    completed_at: int | None
    expires_at: int | None
    prompt: str
    seconds: str
    size: str
    remixed_from_video_id: str | None
    error: VideoFailure | None


class VideoList(BaseModel):
    """A page of videos."""

    object: Literal["list"]
    data: list[OpenAIVideo]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(BaseModel):
    """A deleted video."""

    id: str
    object: Literal["video.deleted"]
    deleted: bool
