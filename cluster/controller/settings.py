"""Settings of the controller, each with its unit and bounds. The only place in cluster/ that reads its environment.

LONGTAKE_CONTROLLER_FARM_URL sets `farm_url`, and so on for every field; all mistakes are reported at once. The farm's
administrator key comes from LONGTAKE_API_KEY, as for the command line, or from a file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cluster.errors import UserMistake, nearest
from cluster.topology import RAY_CLUSTER

PREFIX = "LONGTAKE_CONTROLLER_"

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where Kubernetes tells a pod its namespace."""

_Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class ControllerSettings(BaseModel):
    """How the controller works. Nothing in it can be changed while it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    farm_url: str = "http://127.0.0.1:8000"
    """Where the farm's API is."""
    api_key: Annotated[str | None, Field(repr=False)] = None
    """An administrator's key; None if the farm asks for none."""
    api_key_file: Path | None = None
    """A file that holds it, read at every start; instead of `api_key`."""
    namespace: Annotated[str, Field(min_length=1)] = "default"
    """Of the RenderPools, of Ray's pods and of the Lease."""
    name: Annotated[str, Field(max_length=200)] = ""
    """Of this process, such as its pod's; something random is added to it."""
    pod_selector: str = RAY_CLUSTER
    """Label selector of the pods of the farm's Ray cluster. The default is every Ray pod of the namespace."""
    lease_name: Annotated[str, Field(min_length=1)] = "longtake-controller"
    """Lease by which several controllers agree on one that acts."""
    watch_nodes: bool = True
    """Whether nodes are watched, which needs a ClusterRole. Without it only pods say that they will go."""
    heed_cordons: bool = True
    """Whether a node that somebody cordoned is drained."""
    max_drained_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Of a pool's gangs, that are drained at once if the node would stay. One node always may."""
    least_drain_s: _Seconds = 120.0
    """Seconds that a node must have left to be kept waiting for others."""
    resync_s: Annotated[float, Field(ge=1, le=600)] = 15.0
    """Seconds after which a round runs even if nothing changed."""
    settle_s: Annotated[float, Field(ge=0.01, le=60)] = 1.0
    """Minimum seconds between two rounds: changes come in bursts."""
    max_backoff_s: Annotated[float, Field(ge=0.1, le=600)] = 15.0
    """Maximum seconds between two rounds while the farm or the API server fails."""
    request_timeout_s: Annotated[float, Field(gt=0, le=4)] = 4.0
    """Seconds for one request to the farm or the API server. Less than a Lease outlasts its holder's leadership, so
    that no request is in progress when another leads."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8002
    """Of /metrics, /healthz and /readyz; 0 is any that is free."""
    stop_s: _Seconds = 20.0
    """Seconds after SIGTERM by which the process has ended, with its Lease given back."""

    @field_validator("farm_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return url.rstrip("/")


def load_settings(environment: Mapping[str, str]) -> ControllerSettings:
    """The settings that the environment asks for. Raises UserMistake with all that is wrong in it."""
    fields = {field: f"{PREFIX}{field.upper()}" for field in ControllerSettings.model_fields}
    unknown = [name for name in environment if name.startswith(PREFIX) and name not in fields.values()]
    problems = [_unknown(name, list(fields.values())) for name in unknown]
    given: dict[str, object] = {field: environment[name] for field, name in fields.items() if environment.get(name)}
    given.setdefault("api_key", environment.get("LONGTAKE_API_KEY") or None)
    given.setdefault("namespace", _own_namespace())
    given.setdefault("name", environment.get("POD_NAME") or environment.get("HOSTNAME") or "")
    try:
        settings = ControllerSettings.model_validate(given)
    except ValidationError as error:
        problems += [f"{PREFIX}{str(one['loc'][0]).upper()}: {one['msg']}" for one in error.errors()]
        raise UserMistake("\n".join(problems)) from None
    if problems:
        raise UserMistake("\n".join(problems))
    return _with_key(settings)


def _with_key(settings: ControllerSettings) -> ControllerSettings:
    if settings.api_key_file is None:
        return settings
    try:
        key = settings.api_key_file.read_text().strip()
    except OSError as error:
        raise UserMistake(f"{PREFIX}API_KEY_FILE: {settings.api_key_file}: {error.strerror}") from error
    if not key:
        raise UserMistake(f"{PREFIX}API_KEY_FILE: {settings.api_key_file} is empty")
    return settings.model_copy(update={"api_key": key})


def _own_namespace() -> str:
    try:
        return _OWN_NAMESPACE.read_text().strip() or "default"
    except OSError:
        return "default"


def _unknown(name: str, known: list[str]) -> str:
    close = nearest(name, known)
    return f"{name}: no such setting" + (f"; did you mean {close}?" if close else "")
