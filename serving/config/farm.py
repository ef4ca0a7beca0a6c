"""The farm's configuration, farm.yaml: its keys, what each accepts, its defaults, and how it is loaded.

Made by `load_config`, which takes the file and the environment together. A FarmConfig is complete: its paths are
absolute, so it can be sent to another process as JSON (`as_json`, read back by `FarmConfig.model_validate`).
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from cluster.contract.planner import ScalingTargets
from cluster.contract.pools_and_nodes import PoolTerms, SpotPolicy
from serving.config.reading import read_config
from serving.settings import (
    DRAIN_S,
    EVENTS_KEPT_S,
    MAX_MODEL_CHARS,
    MAX_POOL_GANGS,
    UNUSED_ARTIFACTS_S,
    VARIABLES,
    expand,
    home,
)
from sharding.gang_shape import GangShape

DAY_S = 86_400.0
"""Seconds of a day, in which farm.yaml says how long things are kept."""

MAX_POOLS = 64
"""Pools of one farm."""

MAX_NODE_LABELS = 16
"""Labels that the nodes of one pool may be chosen by."""

MAX_DEFAULT_GANGS = 8
"""Gangs of the pool that a farm has if none is configured: one per core, at most this many."""


_Gangs = Annotated[int, Field(strict=True, ge=0, le=MAX_POOL_GANGS)]
_Seconds = Annotated[float, Field(strict=True, ge=0.01, le=86_400, allow_inf_nan=False)]
_Patience = Annotated[float, Field(strict=True, ge=0, le=86_400, allow_inf_nan=False)]
_Money = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]
_Few = Annotated[int, Field(strict=True, ge=1, le=256)]
_Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
_Days = Annotated[float, Field(strict=True, gt=0, le=36_500, allow_inf_nan=False)]
_Port = Annotated[int, Field(strict=True, ge=1, le=65_535)]
_Bytes = Annotated[int, Field(strict=True, ge=1 << 20, le=1 << 40)]
_Switch = Annotated[bool, Field(strict=True)]

_CONTROLLER_VARIABLES = "LONGTAKE_CONTROLLER_"
"""How those of the controller on Kubernetes begin, which may run beside a farm's commands in one shell."""

AUTO = "auto"
"""In place of a gang's shape: the smallest that a call fits into."""

_POOL_NAME = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"

MARKET_LABEL = "ray.io/market-type"
"""Label of Ray's nodes that says how they were bought; `spot` may be taken away at any time."""

_MARKETS: dict[SpotPolicy, dict[str, str]] = {
    "allow": {},
    "avoid": {MARKET_LABEL: "!spot"},
    "only": {MARKET_LABEL: "spot"},
}
_LabelName = Annotated[str, Field(pattern=r"^([A-Za-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
_LabelValue = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]


def _as_text(value: object) -> object:
    """YAML reads `gang_shape: 1` as a number."""
    return str(value) if type(value) is int else value


def _check_shape(text: str) -> str:
    """As GangShape writes it."""
    return AUTO if text.strip().lower() == AUTO else str(GangShape.parse(text))


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ScalingConfig(_Part):
    """By what a pool's gangs follow its backlog; the targets of cluster/contract/planner.py."""

    drain_within_s: Annotated[float, Field(strict=True, ge=1, le=86_400, allow_inf_nan=False)] = (
        ScalingTargets.drain_within_s
    )
    """Seconds within which the gangs should be through with all that waits now."""
    hold_s: _Patience = ScalingTargets.hold_s
    """Seconds for which gangs are kept after they were last needed; at least 1.25 times what one takes to start."""
    idle_for_s: _Patience = ScalingTargets.idle_for_s
    """Seconds for which as many gangs must have been idle as are let go."""
    due_margin: Annotated[float, Field(strict=True, ge=1, le=10, allow_inf_nan=False)] = ScalingTargets.due_margin
    """Factor on the gangs that due times need."""
    stale_after_s: Annotated[float, Field(strict=True, ge=5, le=3600, allow_inf_nan=False)] = (
        ScalingTargets.stale_after_s
    )
    """Seconds after which what was last heard of the backlog is too old to change anything by."""
    quota_gangs: Annotated[int, Field(strict=True, ge=0, le=MAX_POOL_GANGS)] | None = None
    """Gangs that there can be machines for, whatever the pool's terms say; nothing: no quota."""


class PoolConfig(_Part):
    """Gangs of one shape that serve one model."""

    name: Annotated[str, Field(pattern=_POOL_NAME, description="1 to 40 small letters, digits and -")] = "default"
    """What jobs, metrics and messages call the pool."""
    model: Annotated[
        str, Field(min_length=1, max_length=MAX_MODEL_CHARS, description="pocket, a folder (./name) or a hub id")
    ] = "pocket"
    """The model that its gangs hold. A relative folder is resolved against the file's folder."""
    gang_shape: Annotated[
        str,
        BeforeValidator(_as_text),
        AfterValidator(_check_shape),
        Field(description="auto, 1, ulysses=2, cfg=2 x ring=2"),
    ] = "1"
    """Ranks of a gang as cfg x ulysses x ring, and `threads` of each on a CPU: `cfg=2 x ulysses=2`. auto: as few as a
    full call of the model needs to fit GPUs of `gpu_gib`; 1 on cores."""
    gpu_gib: Annotated[float, Field(strict=True, ge=1, le=4096, allow_inf_nan=False)] = 80.0
    """GiB of memory of each GPU, for `gang_shape: auto`."""
    gpus_per_rank: Annotated[int, Field(strict=True, ge=0, le=1)] = 0
    """1 if the pool computes on GPUs, 0 if on cores."""
    ranks_per_node: _Few | None = None
    """Ranks that a node has room for. A larger gang is spread over nodes, this many neighbouring ranks on each; leave
    empty if every gang fits one node."""
    min_gangs: _Gangs = 1
    """Gangs that are kept even when there is nothing to do."""
    max_gangs: _Gangs = 1
    """Gangs that the pool never exceeds."""
    gangs: _Gangs | None = None
    """Gangs of a pool without `scaling`; min_gangs if left out."""
    scaling: ScalingConfig | None = None
    """How the number of gangs follows the backlog, between min_gangs and max_gangs; without it the number is fixed."""
    spot: SpotPolicy = "allow"
    """Whether gangs may stand on nodes that are labelled as spot: allow, avoid, only."""
    node_labels: Annotated[dict[_LabelName, _LabelValue], Field(max_length=MAX_NODE_LABELS)] = Field(
        default_factory=dict
    )
    """Labels that a node must have for a gang to stand on it."""
    drain_s: Annotated[float, Field(strict=True, ge=1, le=3600, allow_inf_nan=False)] = DRAIN_S
    """Seconds that a gang is given to finish its calls when it is asked to go; longer than two calls take."""
    price_per_gpu_second: _Money = 0.0
    """US dollars for one second of one GPU (of one core if there is none)."""
    slots: Annotated[int, Field(strict=True, ge=1, le=16)] = 2
    """Calls that a gang holds at once: one computes, the others wait beside it, so it never waits for the network."""

    @model_validator(mode="after")
    def _check_order(self) -> "PoolConfig":
        if self.max_gangs < max(1, self.min_gangs):
            raise ValueError(f"max_gangs must be at least 1 and at least min_gangs, {self.min_gangs}")
        if not self.min_gangs <= self.start_gangs <= self.max_gangs:
            raise ValueError(f"gangs must be from min_gangs to max_gangs, {self.min_gangs} to {self.max_gangs}")
        if self.scaling is not None and self.gangs is not None:
            raise ValueError("gangs is for pools of a fixed size; with scaling leave it out")
        if self.spot != "allow" and MARKET_LABEL in self.node_labels:
            raise ValueError(f"node_labels must not name {MARKET_LABEL} if spot is {self.spot}")
        return self

    @property
    def terms(self) -> PoolTerms:
        """Its terms until others are set."""
        return PoolTerms(min_gangs=self.min_gangs, max_gangs=self.max_gangs, spot=self.spot)

    @property
    def node_selector(self) -> dict[str, str]:
        """What Ray is told of the nodes that its gangs may stand on; nothing if they may on all."""
        return {**self.node_labels, **_MARKETS[self.spot]}

    @property
    def shape(self) -> GangShape:
        """Raises ValueError if it is still `auto` (serving.config.gang_shapes settles that)."""
        return GangShape.parse(self.gang_shape)

    def for_gangs(self) -> dict[str, Any]:
        """What a gang is told of its pool, as JSON that `model_validate` reads.

        No more than it needs: Serve replaces the gangs that are to be told something else.
        """
        needed = {"name", "model", "gang_shape", "gpus_per_rank", "ranks_per_node", "drain_s"}
        return self.model_dump(mode="json", include=needed)

    @property
    def rank_resources(self) -> dict[str, float]:
        """What Ray is asked for each rank."""
        cores = {"CPU": float(self.shape.threads)}
        return {**cores, "GPU": 1.0} if self.gpus_per_rank else cores

    @property
    def ranks_per_bundle(self) -> int:
        """Ranks that must share a node, and so are one bundle of the gang's placement group: a node's worth of them
        if the gang needs several nodes. Ranks that exchange most follow each other (GangShape.coordinates)."""
        return 1 if self.fits_a_node else self.ranks_per_node or 1

    @property
    def rank_bundles(self) -> list[dict[str, float]]:
        """What Ray is asked for the ranks of a gang, in order."""
        sizes = [
            min(self.ranks_per_bundle, self.shape.ranks - first)
            for first in range(0, self.shape.ranks, self.ranks_per_bundle)
        ]
        return [{name: amount * size for name, amount in self.rank_resources.items()} for size in sizes]

    @property
    def fits_a_node(self) -> bool:
        """Whether all ranks of a gang are on one node."""
        return self.ranks_per_node is None or self.shape.ranks <= self.ranks_per_node

    @property
    def start_gangs(self) -> int:
        """Gangs that the pool starts with."""
        return self.min_gangs if self.gangs is None else self.gangs


class RetentionConfig(_Part):
    """How long things are kept after they were last needed. Leave empty to keep forever."""

    films_days: _Days | None = None
    """Days that films, their manifests and pictures are kept after the job finished."""
    takes_days: _Days | None = UNUSED_ARTIFACTS_S / DAY_S
    """Days that takes' latents and frames are kept after their last use; a revision need not render them again."""
    events_days: _Days | None = EVENTS_KEPT_S / DAY_S
    """Days that the events of finished jobs are kept."""
    assets_days: _Days | None = UNUSED_ARTIFACTS_S / DAY_S
    """Days that pictures are kept after they were sent, or a job that names them was accepted or ended last."""


def seconds(days: float | None) -> float | None:
    """Days of a RetentionConfig in seconds; None, forever, stays."""
    return None if days is None else days * DAY_S


class LimitsConfig(_Part):
    """How much one request, job or tenant may ask for. A tenant's own settings in the store come before them."""

    max_body_bytes: Annotated[int, Field(strict=True, ge=1 << 10, le=1 << 30)] = 4 << 20
    """Bytes of one request."""
    requests_per_minute: _Count = 600
    """Requests of one tenant; more are answered with 429."""
    queued_jobs_per_tenant: _Count = 1000
    """Jobs of one tenant that wait; more are answered with 429."""
    active_jobs: _Count = 64
    """Jobs of the whole farm that render at once; their timelines are in memory."""
    calls_per_job: _Count | None = None
    """Calls of one job that are out at once."""
    calls_per_tenant: _Count | None = None
    """Calls of one tenant that are out at once."""
    spend_limit_usd_per_day: _Money | None = None
    """US dollars that the farm should not spend in a day. It stops nothing: metrics tell it, for an alert to watch."""


_Host = Annotated[
    str, Field(pattern=r"^(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)+$", description="a host such as images.example.com")
]


class AssetsConfig(_Part):
    """The pictures that tenants send, to be named in storyboards."""

    upload_bytes: Annotated[int, Field(strict=True, ge=1 << 16, le=1 << 30)] = 16 << 20
    """Bytes of one upload; a larger file is sent in pieces of so many."""
    files_per_tenant: _Count = 10_000
    """Files that one tenant may keep."""
    bytes_per_tenant: Annotated[int, Field(strict=True, ge=1 << 20, le=1 << 50)] = 10 << 30
    """Bytes that one tenant may keep."""
    allow_hosts: Annotated[tuple[_Host, ...], Field(max_length=100)] = ()
    """Hosts from which pictures are fetched that a storyboard names by their https:// address: images.example.com, or
    *.example.com for all below. None: nothing is fetched."""


class FarmConfig(_Part):
    """Everything that a farm is told when it starts."""

    pools: Annotated[tuple[PoolConfig, ...], Field(min_length=1, max_length=MAX_POOLS)] = Field(
        default_factory=lambda: default_pools()
    )
    """The farm's gangs."""
    host: Annotated[str, Field(min_length=1, max_length=255, description="an address of this machine")] = "127.0.0.1"
    """Address that the API listens on; 0.0.0.0 is all of them."""
    port: _Port = 8000
    """Port that the API listens on."""
    metrics_host: Annotated[
        str, Field(min_length=1, max_length=255, description="an address of the Director's machine")
    ] = "127.0.0.1"
    """Address that the Director's metrics exporter listens on. It asks for no key: give it another address only if the
    network keeps strangers out."""
    metrics_port: Annotated[int, Field(strict=True, ge=0, le=65_535)] | None = None
    """Port of the Director's metrics exporter; left out, the one after `port`. 0 is none. The API's /metrics shows the
    same."""
    store_url: Annotated[
        str, Field(repr=False, min_length=1, description="sqlite:///path or postgresql://user:password@host/database")
    ] = Field(default_factory=lambda: default_store_url(home()))
    """Where jobs are stored: sqlite:////absolute/path (one machine) or postgresql://user:password@host/database."""
    artifacts_url: Annotated[
        str, Field(repr=False, min_length=1, description="a folder, file:///folder or s3://bucket/prefix")
    ] = Field(default_factory=lambda: default_artifacts_url(home()))
    """Where latents, checkpoints and films are stored: a folder, file:///folder or s3://bucket/prefix."""
    scratch: Annotated[str, Field(min_length=1, description="a folder")] = Field(
        default_factory=lambda: default_scratch(home())
    )
    """Folder of this machine for files of work in progress; emptied when the farm starts and when it ends."""
    timeline_hosts: _Few = 1
    """Processes that hold the timelines of active takes."""
    takes_per_host: _Few = 8
    """Takes that one of them holds at once."""
    decoders: _Few = 1
    """Processes that decode finished latents."""
    checkpoint_every_s: _Seconds = 30.0
    """Seconds between two checkpoints of a take: what may be lost with a TimelineHost."""
    checkpoint_every_steps: _Count = 4
    """Steps of a whole take after which it is checkpointed in any case."""
    lease_s: _Seconds = 10.0
    """Seconds after which another Director may take over the jobs of one that is not heard of."""
    poll_s: _Seconds = 0.5
    """Polling interval of the store, in seconds: what others changed."""
    auth: Literal["auto", "on", "off"] = "auto"
    """Whether requests need an API key; auto: only if other machines can reach the API."""
    share_takes: Literal["auto", "farm", "tenant"] = "auto"
    """Who finds takes that were rendered before: everybody on the farm, or the tenant alone. Shared takes cost their
    second user nothing, and tell everybody what the others have rendered; auto: tenant if requests need a key."""
    webhooks_allow_private: _Switch = False
    """Whether webhooks may go to private and loopback addresses."""
    object_store_bytes: _Bytes = 1 << 29
    """Bytes of memory that Ray keeps for tensors on their way between processes."""
    retention: RetentionConfig = RetentionConfig()
    """How long things are kept."""
    limits: LimitsConfig = LimitsConfig()
    """How much one request, job or tenant may ask for."""
    assets: AssetsConfig = AssetsConfig()
    """The pictures that tenants send."""

    @field_validator("pools")
    @classmethod
    def _check_names(cls, pools: tuple[PoolConfig, ...]) -> tuple[PoolConfig, ...]:
        names = [pool.name for pool in pools]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each pool needs a name of its own; several are called {', '.join(twice)}")
        return pools

    @field_validator("store_url")
    @classmethod
    def _check_store(cls, url: str) -> str:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        if not re.match(r"(sqlite:///.|postgresql(\+psycopg)?://.)", url):
            raise ValueError("must begin with sqlite:/// or postgresql://")
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            raise ValueError("must be sqlite:///path or postgresql://user:password@host:port/database") from None
        if "@" in (parsed.host or ""):
            raise ValueError("has an @ in its user or password; write it as %40, : as %3A and / as %2F")
        return url

    @field_validator("artifacts_url")
    @classmethod
    def _check_artifacts(cls, url: str) -> str:
        if "://" in url and not re.match(r"(file:///|s3://.)", url):
            raise ValueError("must be a folder, or begin with file:/// or s3://")
        return url

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach the API."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def store_file(self) -> str | None:
        """The file of a SQLite store; None for a server."""
        from sqlalchemy.engine import make_url

        url = make_url(self.store_url)
        return url.database if url.get_backend_name() == "sqlite" else None

    @property
    def exporter_port(self) -> int:
        """Port of the Director's metrics exporter; 0 if there is none."""
        return self.port % 65_535 + 1 if self.metrics_port is None else self.metrics_port

    @property
    def needs_keys(self) -> bool:
        """Whether a request without an API key is refused."""
        return self.auth == "on" or (self.auth == "auto" and not self.is_loopback)

    @property
    def shares_takes(self) -> bool:
        """Whether tenants find each other's takes."""
        return self.share_takes == "farm" or (self.share_takes == "auto" and not self.needs_keys)

    @property
    def exporter_address(self) -> str:
        """host:port at which a client on the Director's machine finds the metrics exporter."""
        host = _reachable(self.metrics_host)
        return f"[{host}]:{self.exporter_port}" if ":" in host else f"{host}:{self.exporter_port}"

    @property
    def address(self) -> str:
        """The URL at which a client on this machine reaches the API."""
        host = _reachable(self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def as_json(self) -> dict[str, Any]:
        """The whole configuration as plain JSON, passwords included; `FarmConfig.model_validate` reads it back."""
        return self.model_dump(mode="json")

    def pool(self, name: str) -> PoolConfig | None:
        """The pool of that name."""
        return next((pool for pool in self.pools if pool.name == name), None)


def _reachable(host: str) -> str:
    """An address for a client of this machine, where a server listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def default_pools() -> tuple[PoolConfig, ...]:
    """One pool of pocket with a gang per core, at most MAX_DEFAULT_GANGS."""
    cores = min(MAX_DEFAULT_GANGS, len(os.sched_getaffinity(0)))
    return (PoolConfig(max_gangs=cores, gangs=cores),)


def default_store_url(folder: Path) -> str:
    """A SQLite file in the farm's home."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(folder.absolute() / "farm.db")).render_as_string(hide_password=False)


def default_artifacts_url(folder: Path) -> str:
    """A folder in the farm's home."""
    return str(folder.absolute() / "artifacts")


def default_scratch(folder: Path) -> str:
    """A folder in the farm's home."""
    return str(folder.absolute() / "scratch")


def load_config(path: Path | None, environ: Mapping[str, str]) -> FarmConfig:
    """The configuration in a file with the LONGTAKE_ variables over it. Raises UserError with every problem at once."""
    folder = home(environ)
    defaults = {
        "pools": [pool.model_dump(mode="json") for pool in default_pools()],
        "store_url": default_store_url(folder),
        "artifacts_url": default_artifacts_url(folder),
        "scratch": default_scratch(folder),
    }
    mine = {name: value for name, value in environ.items() if not name.startswith(_CONTROLLER_VARIABLES)}
    config = read_config(FarmConfig, path=path, environ=mine, defaults=defaults, other_variables=tuple(VARIABLES))
    return _absolute(config, path.absolute().parent if path is not None else Path.cwd())


def _absolute(config: FarmConfig, folder: Path) -> FarmConfig:
    """The same with paths that do not depend on where a process runs."""
    artifacts = config.artifacts_url
    return config.model_copy(
        update={
            "pools": tuple(pool.model_copy(update={"model": _model(pool.model, folder)}) for pool in config.pools),
            "artifacts_url": artifacts if "://" in artifacts else str(folder / expand(artifacts)),
            "store_url": _absolute_store(config.store_url, folder),
            "scratch": str(folder / expand(config.scratch)),
        }
    )


def _absolute_store(url: str, folder: Path) -> str:
    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return url
    return parsed.set(database=str(folder / expand(parsed.database))).render_as_string(hide_password=False)


def _model(model: str, folder: Path) -> str:
    return os.path.normpath(folder / expand(model)) if model.startswith((".", "/", "~")) else model
