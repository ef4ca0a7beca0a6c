"""What the scheduler is told and what it answers: frozen, plain data. Times are unix seconds.

Seconds of work are gang-seconds: what one gang of the pool needs. GPU-seconds are those times the GPUs of a gang.
"""

from dataclasses import dataclass
from typing import NamedTuple


class CallKey(NamedTuple):
    """Names a call over the whole farm."""

    job_id: str
    take_key: str
    step: int
    chunk: int


@dataclass(frozen=True, slots=True)
class ReadyCall:
    """A call that could run now."""

    key: CallKey
    latents: int
    """Latents that it reads."""
    evaluations: int
    """Prompts that it is predicted for."""
    start: int
    """First latent of its span: heads go first."""
    calls_left: int = 1
    """Calls that come one after another from this one on, itself among them, until the take is done."""
    expert: int = 0
    """Which of the model's experts predicts it."""
    take_index: int = 0
    """Place of its take in the film; takes of the same place go in the order in which they were first told of."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Gangs of one shape."""

    name: str
    slots: int = 2
    """Calls that a gang may hold at once: one runs, the others wait beside it."""
    gpus_per_gang: int = 1
    max_gangs: int = 1
    """Gangs that it may have, whether they are there or not."""


@dataclass(frozen=True, slots=True)
class TenantSpec:
    """Whom jobs belong to."""

    name: str
    weight: float = 1.0
    """Share of a pool against other tenants that have work for it."""
    max_calls: int | None = None
    """Calls that may be out at once."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job as the scheduler sees it."""

    id: str
    tenant: str
    pool: str
    priority: int
    """Higher first, strictly."""
    due_at: float | None
    created_at: float
    cost_key: str
    """What the cost model knows its calls by."""
    work_s: float
    """Gang-seconds still to do, those of calls that are out included."""
    path_s: float
    """Seconds that it takes at least, on any number of gangs."""
    max_calls: int | None = None
    """Calls that may be out at once."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A call for a gang."""

    call: CallKey
    gang: str
    expected_s: float
    deadline_s: float
    """Seconds after which it is given up, the wait in the gang's slot included."""


@dataclass(frozen=True, slots=True)
class DueWork:
    """Work that should be done by a certain time."""

    due_at: float
    work_s: float
    """Gang-seconds."""
    path_s: float
    """Seconds that it takes at least, on any number of gangs."""


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """The calls of a pool and the gangs for them. Jobs that are held do not count."""

    backlog_gpu_s: float
    """GPU-seconds of all calls that are not done."""
    calls_ready: int
    """Calls that wait for a gang alone. Those that wait for a cap of their job or tenant, or to be tried again, do not
    count."""
    calls_running: int
    """Calls that gangs have."""
    gangs_ready: int
    gangs_draining: int
    """Gangs that are given no more calls."""
    gangs_idle: int
    oldest_wait_s: float
    """Seconds that the call which has waited longest for a gang has waited."""
