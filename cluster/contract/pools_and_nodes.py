"""What the farm and the cluster tell each other about pools and nodes, as both understand it.

The farm serves it as JSON under /v1/pools and /v1/nodes; the planner and the controller work with it. Standard library
and pydantic alone, so that either side may import it. Gangs are whole; seconds are seconds; times are Unix seconds.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_GANGS = 2048
"""Gangs of one pool."""

MAX_REASON_CHARS = 1000
"""Characters of a reason that a person or a controller gives."""

MAX_DRAIN_S = 86_400.0
"""Seconds; the longest time that a drain may be given."""

Gangs = Annotated[int, Field(strict=True, ge=0, le=MAX_GANGS)]

ScalingMode = Literal["native", "external"]
"""Who decides how many gangs a pool has. native: the planner, from the backlog; external: somebody who writes
`replicas`, an autoscaler of Kubernetes or a person."""

SpotPolicy = Literal["allow", "avoid", "only"]
"""Whether gangs may stand on spot nodes."""

DrainCause = Literal["spot", "maintenance", "scale-down", "operator"]
"""Why a node is emptied."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PoolTerms(_Frozen):
    """What may be changed of a pool while it runs."""

    min_gangs: Gangs = 0
    """Gangs that are kept even when there is nothing to do."""
    max_gangs: Gangs = 1
    """Gangs that the pool never exceeds."""
    mode: ScalingMode = "native"
    replicas: Gangs | None = None
    """Gangs asked for in external mode, clamped to min_gangs and max_gangs; ignored in native mode."""
    spot: SpotPolicy = "allow"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_gangs < max(1, self.min_gangs):
            raise ValueError(f"max_gangs must be at least 1 and at least min_gangs, {self.min_gangs}")
        return self


class PoolDemand(_Frozen):
    """What a pool has to do, as the Director measured it."""

    measured_at: float
    backlog_gpu_s: float
    """GPU-seconds of the calls that are not done. Jobs that are held do not count, and of a job or tenant with a cap on
    its calls no more than those can do within drain_within_s: the rest waits for the cap and not for gangs."""
    gpus_per_gang: int
    """Ranks of one gang; each is a GPU, or a core if there are no GPUs."""
    calls_ready: int
    """Calls that wait for a gang, and not for a cap of their job or tenant."""
    calls_running: int
    """Calls that gangs have."""
    oldest_wait_s: float
    """The longest wait of a call, in seconds."""
    required_gangs: float
    """Gangs needed from now on to keep every due time that can still be kept."""
    due_slack_s: float | None = None
    """Slack of the tightest of those in seconds; None if there is none."""


class PoolSupply(_Frozen):
    """The gangs of a pool."""

    ready: int
    """Gangs that take calls, the idle ones among them."""
    idle: int
    """Gangs that take calls and have none."""
    starting: int
    """Gangs that were asked for and take no calls yet."""
    draining: int
    """Gangs that finish what they have and go."""
    cold_start_s: float
    """Seconds from asking for a gang until it takes calls, as measured, or assumed if none was measured."""


class PoolDecision(_Frozen):
    """How many gangs a pool should have, and why."""

    gangs: int
    reason: str
    """A sentence for people."""
    decided_at: float


class PoolState(_Frozen):
    """One pool in the answer to GET /v1/pools, as far as the cluster cares; other fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    model: str
    gang_shape: str
    gpus_per_rank: int
    terms: PoolTerms
    spot_applied: SpotPolicy
    """The spot policy that the pool was deployed with; another one in its terms takes effect with the next
    deployment of the farm."""
    demand: PoolDemand | None
    """None while no Director has measured it."""
    supply: PoolSupply | None
    decision: PoolDecision | None


class NodeState(_Frozen):
    """One node of the farm's Ray cluster, in the answer to GET /v1/nodes."""

    id: str
    """Ray's id, hexadecimal."""
    address: str
    """Its IP address; on Kubernetes that of its pod."""
    name: str
    labels: dict[str, str]
    state: Literal["alive", "draining", "dead"]
    gangs: tuple[str, ...]
    """Names of the gangs that have a rank or their leader on it."""
    timeline_hosts: tuple[str, ...]
    calls: int
    """Calls that those gangs have."""


class DrainRequest(_Frozen):
    """Body of POST /v1/nodes/{id}/drain. Asked twice it changes nothing but an earlier deadline."""

    cause: DrainCause
    reason: Annotated[str, Field(min_length=1, max_length=MAX_REASON_CHARS)]
    deadline_s: Annotated[float, Field(strict=True, gt=0, le=MAX_DRAIN_S)]
    """Seconds from now until the node may be gone; what runs on it by then is lost and done again elsewhere."""
