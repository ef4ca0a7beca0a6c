"""The farm as the API answers it: who asks, models, pools, nodes, usage, health."""

from typing import Any, Literal

from pydantic import Field

from cluster.contract.pools_and_nodes import NodeState, PoolDecision, PoolDemand, PoolSupply, PoolTerms, SpotPolicy
from serving.api.answer import Answer, GpuSeconds, Listed, Usd, optional
from serving.config.farm import PoolConfig
from serving.jobs.lifecycle import asked_actions
from serving.store.records import ENDED, LIVE, JobStatus

_LIFTED = ("demand", "supply", "decision")
"""What the Director says of a pool that stands beside its configuration."""

_FOR_ADMINS = ("gangs",)
"""What the Director says of a pool that names processes and nodes."""


class StatusMeaning(Answer):
    """What a status means for a job that has it."""

    status: JobStatus
    is_live: bool = Field(description="Its calls may be rendered now.")
    is_over: bool = Field(description="Nothing more happens to it by itself.")
    actions: list[str] = Field(
        description="What may be asked for: as paths of the job.",
        examples=[["pause", "cancel"]],
    )

    @classmethod
    def of(cls, status: JobStatus) -> "StatusMeaning":
        """As the lifecycle has it."""
        actions: list[str] = list(asked_actions(status))
        return cls(status=status, is_live=status in LIVE, is_over=status in ENDED, actions=actions)


class Me(Answer):
    """Who is asking."""

    object: Literal["caller"] = "caller"
    tenant: str
    is_admin: bool = Field(description="Whether they may manage the farm and see all jobs.")
    needs_keys: bool = Field(description="Whether the farm asks for keys.")
    statuses: list[StatusMeaning] = Field(description="Every status that a job can have, the same for every caller.")


class Model(Answer):
    """A model that the farm serves."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    description: str
    pools: list[str]
    qualities: dict[str, int] = Field(description="Denoising steps that each quality stands for.")
    fps: int | None = Field(description="Of its films unless a storyboard says otherwise; null: not known here.")
    width: int | None = Field(description="Pixels, likewise.")
    height: int | None = Field(description="Pixels, likewise.")
    size_multiple: int | None = Field(description="A storyboard may choose any width and height that it divides.")
    pictures: list[str] = Field(description="What it takes beside words: first, last, keyframes, references, strength.")
    stitchings: list[str] = Field(description="How the chunks of a take can agree, what it does best first.")


class ModelList(Listed):
    """All models of the farm."""

    data: list[Model]


class Pool(Answer):
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
    live: dict[str, Any] | None = Field(
        description="What the Director says of it, to administrators with its gangs; null if it cannot be reached."
    )

    @classmethod
    def of(cls, pool: PoolConfig, terms: PoolTerms, said: dict[str, Any] | None, *, is_admin: bool) -> "Pool":
        """A pool as configured, with its terms, and what the Director says of it, if it can be reached."""
        hidden = _LIFTED if is_admin else (*_LIFTED, *_FOR_ADMINS)
        return cls(
            name=pool.name,
            model=pool.model,
            gang_shape=pool.gang_shape,
            min_gangs=terms.min_gangs,
            max_gangs=terms.max_gangs,
            gpus_per_rank=pool.gpus_per_rank,
            price_per_gpu_second=pool.price_per_gpu_second,
            is_scaled=pool.scaling is not None,
            terms=terms,
            spot_applied=pool.spot,
            **{name: said.get(name) if said else None for name in _LIFTED},
            live=None if said is None else {name: value for name, value in said.items() if name not in hidden},
        )


class PoolList(Listed):
    """All pools of the farm."""

    data: list[Pool]


class NodeList(Listed):
    """The machines of the farm, those that are gone too while the cluster remembers them."""

    data: list[NodeState]


class Usage(Answer):
    """GPU-seconds and money of a tenant, or of a shot of a job."""

    tenant: str | None = optional()
    take: str | None = optional()
    shot: str | None = optional()
    gpu_seconds: GpuSeconds
    wasted_gpu_seconds: GpuSeconds
    usd: Usd


class UsageList(Listed):
    """The ledger, summed up."""

    data: list[Usage]


class Health(Answer):
    """Whether the Api works, and what of the rest it reaches."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = Field(default_factory=dict)
