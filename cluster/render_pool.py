"""RenderPool, the handle that Kubernetes has on a pool of the farm, as a pydantic model.

The schema in the CRD is generated from it (crd.py), so what this accepts is what the API server accepts. It decides
nothing (controller/pool_plan.py) and talks to nobody. Names are camelCase on the wire, as everywhere in Kubernetes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from cluster.contract.pools_and_nodes import MAX_GANGS, PoolTerms, ScalingMode, SpotPolicy
from cluster.kube.timestamps import read_time

GROUP = "longtake.dev"
VERSION = "v1alpha1"
PLURAL = "renderpools"
KIND = "RenderPool"
API_VERSION = f"{GROUP}/{VERSION}"

POOL_LABEL = f"{GROUP}/pool"
"""Label that the chart gives to pods of a pool's worker groups; status.selector names it for autoscalers."""

MAX_MODEL_CHARS = 500
"""As the farm has it."""

MAX_LABELS = 16
"""Labels of a node kind."""

MAX_MESSAGE_CHARS = 32_768
"""Of a condition's message, as metav1.Condition has it."""

_PART = "(cfg|ulysses|ring|threads)=[0-9]{1,4}"
SHAPE_PATTERN = f"^(auto|1|{_PART}( x {_PART}){{0,3}})$"

_Count = Annotated[int, Field(strict=True, ge=0, le=MAX_GANGS)]
_Text = Annotated[str, Field(strict=True)]


class _Part(BaseModel):
    # The API server drops what a schema does not name, so unknown fields are ignored here as well.
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class RenderPoolSpec(_Part):
    """What somebody wants of a pool. Only minGangs, maxGangs, replicas, scaling and spotPolicy may change."""

    pool: Annotated[str, Field(strict=True, pattern="^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
    """Name of the pool in the farm's configuration."""
    model: Annotated[str, Field(strict=True, min_length=1, max_length=MAX_MODEL_CHARS)]
    """The model that the pool's gangs hold, as the farm's configuration names it."""
    gang_shape: Annotated[str, Field(strict=True, pattern=SHAPE_PATTERN)] = "1"
    """Ranks of a gang, as the farm writes it: "1", "ulysses=2", "cfg=2 x ulysses=4"; "auto" stands for whatever the
    farm has chosen."""
    min_gangs: _Count = 0
    """Gangs that are kept even when there is nothing to do. 0 lets the pool go away altogether."""
    max_gangs: Annotated[int, Field(strict=True, ge=1, le=MAX_GANGS)] = 1
    """Gangs that the pool never exceeds."""
    replicas: _Count | None = None
    """Gangs asked for in external mode, written by an autoscaler or `kubectl scale`; the farm keeps it within minGangs
    and maxGangs. Ignored in native mode."""
    scaling: ScalingMode = "native"
    """Who decides how many gangs there are. native: the farm's planner, from the backlog; external: whoever writes
    replicas."""
    node_kind: Annotated[
        dict[_Text, Annotated[str, Field(strict=True, max_length=63)]], Field(max_length=MAX_LABELS)
    ] = Field(default={})
    """Labels that nodes of this pool carry, such as nvidia.com/gpu.product."""
    spot_policy: SpotPolicy = "allow"
    """Whether gangs may stand on spot nodes; another one takes effect with the next deployment of the farm."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_gangs > self.max_gangs:
            raise ValueError("minGangs must be at most maxGangs")
        return self

    @property
    def terms(self) -> PoolTerms:
        """What the farm is told: no replicas in native mode, because they would mean nothing."""
        return PoolTerms(
            min_gangs=self.min_gangs,
            max_gangs=self.max_gangs,
            mode=self.scaling,
            replicas=self.replicas if self.scaling == "external" else None,
            spot=self.spot_policy,
        )


class GangCounts(_Part):
    """Gangs of the pool."""

    wanted: _Count | None = None
    """Gangs that the pool should have now; absent if nothing has decided yet."""
    ready: _Count = 0
    """Gangs that take calls."""
    starting: _Count = 0
    """Gangs that were asked for and take no calls yet."""
    draining: _Count = 0
    """Gangs that finish what they have and go."""


class Condition(_Part):
    """One aspect of the pool's state, as metav1.Condition."""

    type: Annotated[str, Field(strict=True, min_length=1, max_length=316)]
    """Ready, FarmReachable or SpotPolicyApplied."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""
    reason: Annotated[str, Field(strict=True, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", max_length=1024)]
    """For programs, in CamelCase."""
    message: Annotated[str, Field(strict=True, max_length=MAX_MESSAGE_CHARS)]
    """For people."""
    last_transition_time: Annotated[str, Field(strict=True, json_schema_extra={"format": "date-time"})]
    """When the status last changed."""
    observed_generation: Annotated[int, Field(strict=True, ge=0)] | None = None
    """The generation of the spec that this was found for."""


class RenderPoolStatus(_Part):
    """What the controller last found. The numbers are the farm's, as of measuredAt."""

    observed_generation: Annotated[int, Field(strict=True, ge=0)] | None = None
    """The generation of the spec that was last acted on."""
    gangs: GangCounts = Field(default_factory=GangCounts)
    """Gangs of the pool."""
    replicas: Annotated[int, Field(strict=True, ge=0)] = 0
    """Gangs ready and starting: what an autoscaler reckons with."""
    selector: _Text = ""
    """Label selector of the pool's pods, for the scale subresource."""
    backlog_gpu_seconds: Annotated[int, Field(strict=True, ge=0)] | None = None
    """GPU-seconds of all calls that are not done, to three digits; absent if nothing has measured it."""
    reason: _Text = ""
    """Why this many gangs are wanted, in a sentence."""
    measured_at: Annotated[str, Field(strict=True, json_schema_extra={"format": "date-time"})] | None = None
    """When these numbers were taken from the farm."""
    conditions: tuple[Condition, ...] = ()
    """Ready: the farm has this pool and was told these terms. FarmReachable: it answers. SpotPolicyApplied: its gangs
    were deployed with this spot policy."""

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type, if there is one."""
        return next((found for found in self.conditions if found.type == kind), None)


@dataclass(frozen=True)
class RenderPool:
    """One RenderPool as it was last read. `spec` is None if it cannot be understood, and `problem` says why."""

    namespace: str
    name: str
    uid: str
    version: str
    """resourceVersion, opaque: what is written to it must have been decided for this one."""
    generation: int
    created_at: float
    """Unix seconds."""
    spec: RenderPoolSpec | None
    problem: str
    status: RenderPoolStatus
    """Empty if nothing was written yet, or nothing that we understand."""

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"


def read_render_pool(found: Mapping[str, Any]) -> RenderPool:
    """A RenderPool from the object that the API server sent. Raises nothing for a spec that is wrong: it has a problem.

    The API server should have refused such a spec; an older CRD may have let it pass.
    """
    meta = found["metadata"]
    spec, problem = _read_spec(found.get("spec") or {})
    return RenderPool(
        namespace=str(meta.get("namespace", "")),
        name=str(meta["name"]),
        uid=str(meta.get("uid", "")),
        version=str(meta.get("resourceVersion", "")),
        generation=int(meta.get("generation", 1)),
        created_at=read_time(meta.get("creationTimestamp")) or 0.0,
        spec=spec,
        problem=problem,
        status=_read_status(found.get("status") or {}),
    )


def same_shape(wanted: str, found: str) -> bool:
    """Whether two gang shapes are one, however they are written; `auto` is any."""
    return "auto" in (wanted.strip(), found.strip()) or _degrees(wanted) == _degrees(found)


def _degrees(shape: str) -> dict[str, str]:
    parts = (part.partition("=") for part in re.split(r"[x,]", shape.lower()))
    return {name.strip(): degree.strip() for name, _, degree in parts if degree.strip() not in ("", "1")}


def _read_spec(spec: Mapping[str, Any]) -> tuple[RenderPoolSpec | None, str]:
    given = {name: value for name, value in spec.items() if value is not None}
    try:
        return RenderPoolSpec.model_validate(given), ""
    except ValidationError as error:
        lines = ("spec" + "".join(f".{part}" for part in one["loc"]) + f": {one['msg']}" for one in error.errors())
        return None, "; ".join(lines)


def _read_status(status: Mapping[str, Any]) -> RenderPoolStatus:
    try:
        return RenderPoolStatus.model_validate({name: value for name, value in status.items() if value is not None})
    except ValidationError:
        return RenderPoolStatus()
