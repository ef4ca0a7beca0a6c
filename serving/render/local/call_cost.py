"""What a call costs on this machine, measured: remembered from renders, and measured on the spot if none is known.

Cost is kept per latent, since calls differ in length; attention's quadratic share is small at a window's size. Only
measuring imports torch.
"""

import hashlib
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from serving import settings

if TYPE_CHECKING:
    from serving.models.conditions import PlacedPicture
    from serving.models.wan import WanModel
    from serving.planning.plan import FilmPlan

SAMPLES = 3
"""Calls measured if nothing is known; the first, which loads weights, is not counted."""


@dataclass
class CallCost:
    """Seconds per latent of the calls seen, one evaluation of the model with guidance each."""

    per_latent_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    """Gang-seconds of all calls."""

    def add(self, *, latents: int, seconds: float) -> None:
        self.per_latent_s.append(seconds / latents)
        self.seconds += seconds

    @property
    def median_s(self) -> float:
        """Median seconds per latent. Raises StatisticsError before the first call."""
        return statistics.median(self.per_latent_s)


@dataclass(frozen=True)
class KnownCost:
    """What is remembered of a model's calls at one size."""

    per_latent_s: float
    weights_bytes: int
    """Weights that a gang holds in memory on the device that was measured."""


@dataclass(frozen=True)
class Estimate:
    """What a film is expected to take on this machine."""

    seconds: float
    gang_seconds: float
    per_latent_s: float
    source: str
    """`remembered` from a render, or `measured` just now."""
    weights_bytes: int
    """Weights that each gang holds, in memory."""
    timeline_bytes: int
    """Latents, solver histories and predictions of all takes."""


def estimate(plan: "FilmPlan", *, model: "WanModel", gangs: int) -> Estimate:
    """Expected time and memory of a plan on `gangs` gangs; measures a few calls if none are remembered."""
    cores = psutil.cpu_count(logical=False) or 1
    key = _key(model, plan)
    remembered = _read().get(key)
    known = remembered or KnownCost(_measure(plan, model), _weights_bytes(model))
    if remembered is None:
        _remember(key, known)
    gang_seconds = known.per_latent_s * plan.latents_evaluated
    channels, height, width = model.capabilities.latent_shape(width=plan.width, height=plan.height)
    return Estimate(
        seconds=gang_seconds / min(gangs, cores),
        gang_seconds=gang_seconds,
        per_latent_s=known.per_latent_s,
        source="measured" if remembered is None else "remembered",
        weights_bytes=known.weights_bytes,
        timeline_bytes=4 * 4 * plan.latents * channels * height * width,  # latent, two of history, prediction; fp32
    )


def record_cost(model: "WanModel", plan: "FilmPlan", cost: CallCost) -> None:
    """Remember what the calls of a finished render took."""
    if cost.per_latent_s:
        _remember(_key(model, plan), KnownCost(cost.median_s, _weights_bytes(model)))


def _measure(plan: "FilmPlan", model: "WanModel") -> float:
    import torch

    from serving.models.conditions import TakePictures
    from serving.render.threads import one_thread
    from sharding.denoiser import PromptPart

    with one_thread():
        window = model.capabilities.window
        shape = model.capabilities.latent_shape(width=plan.width, height=plan.height)
        embedding, negative = model.encode_prompts([plan.takes[0].prompts[0].text, plan.takes[0].prompts[0].negative])
        parts = [PromptPart(embedding, negative, torch.ones(window))]
        denoiser, timestep = model.load_denoiser(), model.solver(plan.steps).timestep(0)
        pictures, size = TakePictures(_grey_pictures(model, plan)), (plan.height, plan.width)
        condition = model.make_condition(pictures, size=size, latents=window)
        cost = CallCost()
        for sample in range(SAMPLES + 1):
            started = time.monotonic()
            denoiser.predict(
                torch.zeros(window, *shape), timestep=timestep, parts=parts, start=0, beside=condition.beside
            )
            if sample:
                cost.add(latents=window, seconds=time.monotonic() - started)
        return cost.median_s


def _grey_pictures(model: "WanModel", plan: "FilmPlan") -> "list[PlacedPicture]":
    """Pictures for a model that renders nothing without them."""
    import numpy as np

    from serving.models.conditions import PlacedPicture

    support, pixels = model.capabilities.pictures, np.full((plan.height, plan.width, 3), 128, np.uint8)
    last = [PlacedPicture(model.capabilities.window - 1, True, pixels)] * support.needs_last
    return [PlacedPicture(0, False, pixels)] * support.needs_first + last


def _weights_bytes(model: "WanModel") -> int:
    """On the device that computes here. Imports torch."""
    from serving.models.devices import default_device

    return model.denoiser_bytes(default_device())


def _key(model: "WanModel", plan: "FilmPlan") -> str:
    machine = f"{platform.machine()} {platform.processor()} {psutil.cpu_count()}"
    parts = (model.weights_hash(), plan.width, plan.height, model.capabilities.window, machine)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _path() -> Path:
    return settings.home() / "call-costs.json"


def _read() -> dict[str, KnownCost]:
    """Costs known on this machine; what cannot be read counts as unknown."""
    try:
        content: Any = json.loads(_path().read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: known for key, value in content.items() if (known := _known_cost(value)) is not None}


def _known_cost(value: Any) -> KnownCost | None:
    try:
        known = KnownCost(**value)
        return known if known.per_latent_s > 0 and known.weights_bytes > 0 else None
    except TypeError:
        return None


def _remember(key: str, cost: KnownCost) -> None:
    """Keep a cost for later plans. A home that cannot be written costs only a new measurement."""
    try:
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(
            json.dumps({name: asdict(known) for name, known in (_read() | {key: cost}).items()}, indent=2)
        )
        partial.replace(path)
    except OSError:
        return
