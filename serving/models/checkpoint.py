"""A Wan checkpoint in diffusers format, known from its configs alone: reading one costs milliseconds and no torch.

Owns what may be opened. Only the classes named here, only safetensors; nothing of a checkpoint's own is ever executed.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from serving.errors import ModelError
from serving.models.hub import Snapshot

COMPONENT_CLASSES: Final[Mapping[str, tuple[str, ...]]] = {
    "transformer": ("WanTransformer3DModel",),
    "transformer_2": ("WanTransformer3DModel",),
    "vae": ("AutoencoderKLWan",),
    "text_encoder": ("UMT5EncoderModel", "T5EncoderModel"),
    "scheduler": ("FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"),
}
PICKLED: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
HASHED: Final = (".safetensors", ".json", ".model", ".txt")


@dataclass(frozen=True)
class Architecture:
    """What the configs say of a Wan model."""

    text_encoder_class: str
    scheduler_class: str
    latent_channels: int
    frames_per_latent: int
    pixels_per_cell: int
    patch: tuple[int, int]
    """Latent cells per transformer token, along height and width."""
    heads: int
    """Attention heads."""
    max_positions: int
    """The most tokens along any dimension that the rotary embedding has angles for."""
    num_train_timesteps: int
    boundary_ratio: float | None
    """Of the timesteps; the first expert takes those at or above it. None: one expert."""
    expand_timesteps: bool
    """True where the model takes one timestep per token (Wan 2.2 5B)."""

    @property
    def expert_components(self) -> tuple[str, ...]:
        """The transformers, from the noisiest."""
        return ("transformer",) if self.boundary_ratio is None else ("transformer", "transformer_2")

    def expert_of(self, timestep: float) -> int:
        """Index of the expert that predicts at this noise level."""
        if self.boundary_ratio is None:
            return 0
        boundary = np.float32(self.boundary_ratio * self.num_train_timesteps)  # as the pipeline compares it
        return 0 if timestep >= float(boundary) else 1


@dataclass(frozen=True)
class Checkpoint:
    """A folder, or a snapshot of a hub repository whose weights are fetched when they are asked for."""

    name: str
    """As the user wrote it."""
    folder: Path
    architecture: Architecture
    snapshot: Snapshot | None = None

    def fetch(self, component: str) -> Path:
        """The folder of a component with everything in it. Raises ModelError, also where weights are pickled only."""
        if self.snapshot is not None:
            self.snapshot.fetch(component)
        folder = self.folder / component
        if component not in ("scheduler", "tokenizer"):
            _require_safetensors(folder, self.name)
        return folder

    def weights_hash(self) -> str:
        """sha256 over every weight and config, in order of their paths. Fetches what is missing. Raises ModelError."""
        components = (*self.architecture.expert_components, "vae", "text_encoder", "tokenizer", "scheduler")
        for component in components:
            self.fetch(component)
        total = hashlib.sha256()
        for path in sorted(_hashed_files(self.folder, components)):
            total.update(f"{path.relative_to(self.folder).as_posix()} {_file_sha256(path)}\n".encode())
        return total.hexdigest()


def read_checkpoint(name: str, folder: Path, snapshot: Snapshot | None = None) -> Checkpoint:
    """Reads the configs of a checkpoint and refuses what Longtake cannot render with. Raises ModelError."""
    index = read_json(folder / "model_index.json", name)
    if index.get("_class_name") != "WanPipeline":
        raise ModelError(
            f"{name!r} is a {index.get('_class_name')!r} by its model_index.json; Longtake renders text-to-video"
            " checkpoints of the class 'WanPipeline'"
        )
    boundary = index.get("boundary_ratio")
    components = [part for part in COMPONENT_CLASSES if part != "transformer_2" or boundary is not None]
    classes = {component: _class_of(index, component, name) for component in components}
    architecture = _read_architecture(name, folder, index, classes)
    checkpoint = Checkpoint(name=name, folder=folder, architecture=architecture, snapshot=snapshot)
    if snapshot is None:
        for component in (*architecture.expert_components, "vae", "text_encoder"):
            checkpoint.fetch(component)
    return checkpoint


def read_json(path: Path, name: str) -> dict[str, Any]:
    """A JSON object from a checkpoint's file. Raises ModelError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{name!r} is not a checkpoint in diffusers format: {path.name} is missing in {path.parent}"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{name!r}: cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{name!r}: {path} must hold a JSON object")
    return content


def _class_of(index: Mapping[str, Any], component: str, name: str) -> str:
    allowed = COMPONENT_CLASSES[component]
    entry = index.get(component)
    library, class_name = entry if isinstance(entry, list) and len(entry) == 2 else (None, entry)
    if class_name not in allowed or library not in ("diffusers", "transformers"):
        raise ModelError(f"{name!r}: its {component} must be a {' or '.join(allowed)}, not {entry}")
    return str(class_name)


def _read_architecture(name: str, folder: Path, index: Mapping[str, Any], classes: Mapping[str, str]) -> Architecture:
    transformer = read_json(folder / "transformer" / "config.json", name)
    vae = read_json(folder / "vae" / "config.json", name)
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json", name)
    # What a config leaves out is the default of diffusers' class.
    channels = read_integer(vae, "z_dim", 16, name)
    patch = transformer.get("patch_size", [1, 2, 2])
    if not isinstance(patch, list) or len(patch) != 3 or not all(isinstance(size, int) and size > 0 for size in patch):
        raise ModelError(f"{name!r}: patch_size must be three positive integers, not {patch!r}")
    if transformer.get("in_channels", 16) != channels or transformer.get("image_dim") is not None:
        raise ModelError(f"{name!r} wants an image beside the prompt; Longtake renders from text alone for now")
    if patch[0] != 1:
        raise ModelError(f"{name!r} joins {patch[0]} latents in a token; Longtake needs one latent per token")
    boundary = index.get("boundary_ratio")
    if boundary is not None and not isinstance(boundary, int | float):
        raise ModelError(f"{name!r}: boundary_ratio must be a number, not {boundary!r}")
    return Architecture(
        text_encoder_class=classes["text_encoder"],
        scheduler_class=classes["scheduler"],
        latent_channels=channels,
        frames_per_latent=read_integer(vae, "scale_factor_temporal", 4, name),
        pixels_per_cell=read_integer(vae, "scale_factor_spatial", 8, name),
        patch=(patch[1], patch[2]),
        heads=read_integer(transformer, "num_attention_heads", 40, name),
        max_positions=read_integer(transformer, "rope_max_seq_len", 1024, name),
        num_train_timesteps=read_integer(scheduler, "num_train_timesteps", 1000, name),
        boundary_ratio=None if boundary is None else float(boundary),
        expand_timesteps=bool(index.get("expand_timesteps", False)),
    )


def read_integer(config: Mapping[str, Any], key: str, default: int, name: str) -> int:
    """A positive integer of a config; `default` if it is left out. Raises ModelError with the model's name."""
    value = config.get(key, default)
    if not isinstance(value, int) or value < 1:
        raise ModelError(f"{name!r}: {key} must be a positive integer, not {value!r}")
    return value


def _require_safetensors(folder: Path, name: str) -> None:
    suffixes = {path.suffix for path in folder.iterdir()} if folder.is_dir() else set()
    if ".safetensors" in suffixes:
        return
    if suffixes.intersection(PICKLED):
        raise ModelError(
            f"{name!r}: {folder} holds pickled weights only, which can run code when they are read; save it again with"
            " safe_serialization=True"
        )
    raise ModelError(f"{name!r}: {folder} holds no safetensors")


def _hashed_files(folder: Path, components: tuple[str, ...]) -> Iterator[Path]:
    for part in (folder, *(folder / component for component in components)):
        yield from (path for path in part.iterdir() if path.suffix in HASHED and path.is_file())


def _file_sha256(path: Path) -> str:
    # The hub's cache links large files to blobs named by their sha256: tens of gigabytes need no second reading.
    target = path.resolve()
    if target.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", target.name):
        return target.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
