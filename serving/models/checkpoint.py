"""A Wan checkpoint in diffusers format, known from its configs and the headers of its weights: no torch is needed.

Owns what may be opened. Only the classes named here, only safetensors; nothing of a checkpoint's own is ever executed.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from serving.errors import ModelError
from serving.models.config_files import ConfigFile, is_integer, is_number, read_config, shorten
from serving.models.hub import Snapshot
from serving.models.weight_files import read_weight_headers

WAN_TRANSFORMER: Final = "WanTransformer3DModel"
VACE_TRANSFORMER: Final = "WanVACETransformer3DModel"

COMPONENT_CLASSES: Final[Mapping[str, tuple[str, ...]]] = {
    "transformer": (WAN_TRANSFORMER, VACE_TRANSFORMER),
    "transformer_2": (WAN_TRANSFORMER, VACE_TRANSFORMER),
    "vae": ("AutoencoderKLWan",),
    "text_encoder": ("UMT5EncoderModel", "T5EncoderModel"),
    "image_encoder": ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
    "image_processor": ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil"),
    "scheduler": ("FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"),
}
SIZES: Final = (
    "patch_size", "in_channels", "out_channels", "num_attention_heads", "attention_head_dim", "num_layers", "ffn_dim",
    "text_dim", "freq_dim", "rope_max_seq_len", "image_dim", "added_kv_proj_dim", "pos_embed_seq_len",
    "vace_layers", "vace_in_channels",
)  # fmt: skip
"""Keys of a transformer's config in which two experts must agree."""

PIPELINE_CLASSES: Final[Mapping[str, str]] = {
    "WanPipeline": WAN_TRANSFORMER,
    "WanImageToVideoPipeline": WAN_TRANSFORMER,
    "WanVACEPipeline": VACE_TRANSFORMER,
}
"""What a checkpoint may say that it is -> the class of its transformers."""

MASK_CHANNELS: Final = 4
"""Channels of the mask that image-to-video models read: one for each frame of a latent."""

HASHED: Final = (".safetensors", ".json", ".model", ".txt")


@dataclass(frozen=True)
class Architecture:
    """What the configs say of a Wan model."""

    transformer_class: str
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
    """True if the model takes one timestep per token (Wan 2.2 5B)."""
    reads_pictures: bool
    """True if it reads a mask and encoded pictures beside its latents (Wan image-to-video)."""
    image_dim: int | None
    """Dimension of the picture embeddings that it reads too (Wan 2.1 image-to-video)."""
    reads_two_embeddings: bool
    """True if those are of a first and a last picture (Wan 2.1 FLF2V)."""

    @property
    def is_vace(self) -> bool:
        """Whether it reads a control clip, of a mask and pictures at any time, and pictures of characters."""
        return self.transformer_class == VACE_TRANSFORMER

    @property
    def expert_components(self) -> tuple[str, ...]:
        """The transformers, from the noisiest."""
        return ("transformer",) if self.boundary_ratio is None else ("transformer", "transformer_2")

    @property
    def weighty_components(self) -> tuple[str, ...]:
        """What has weights."""
        pictures = () if self.image_dim is None else ("image_encoder",)
        return (*self.expert_components, "vae", "text_encoder", *pictures)

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
        """The folder of a component with everything in it. Raises ModelError, also if weights are broken or pickled."""
        if self.snapshot is not None:
            self.snapshot.fetch(component)
        folder = self.folder / component
        if component not in ("scheduler", "tokenizer", "image_processor"):
            read_weight_headers(folder, self.name)
        return folder

    def weights_hash(self) -> str:
        """sha256 over every weight and config, in order of their paths. Fetches what is missing. Raises ModelError."""
        pictures = () if self.architecture.image_dim is None else ("image_processor",)
        components = (*self.architecture.weighty_components, "tokenizer", "scheduler", *pictures)
        for component in components:
            self.fetch(component)
        total = hashlib.sha256()
        for path in sorted(_hashed_files(self.folder, components)):
            total.update(f"{path.relative_to(self.folder).as_posix()} {_file_sha256(path)}\n".encode())
        return total.hexdigest()


def read_checkpoint(name: str, folder: Path, snapshot: Snapshot | None = None) -> Checkpoint:
    """Reads the configs of a checkpoint and refuses what Longtake cannot render with. Raises ModelError."""
    index = read_config(folder / "model_index.json", name, mark_allowed=True)
    pipeline_class = str(index.get("_class_name"))
    if pipeline_class not in PIPELINE_CLASSES:
        raise ModelError(
            f"{name!r} is a {index.get('_class_name')!r} by its model_index.json; Longtake renders checkpoints of the"
            f" classes {', '.join(map(repr, PIPELINE_CLASSES))}"
        )
    left_out = set() if index.share("boundary_ratio") is not None else {"transformer_2"}
    transformer = read_config(folder / "transformer" / "config.json", name)
    if transformer.get("image_dim") is None:
        left_out |= {"image_encoder", "image_processor"}
    components = [part for part in COMPONENT_CLASSES if part not in left_out]
    classes = {component: _class_of(index, component, name) for component in components}
    wanted = PIPELINE_CLASSES[pipeline_class]
    for component in {"transformer", "transformer_2"} & classes.keys():
        if classes[component] != wanted:
            raise ModelError(
                f"{name!r}: the {component} of a {pipeline_class} must be a {wanted}, not {classes[component]}"
            )
    architecture = _read_architecture(name, folder, index, transformer, classes)
    checkpoint = Checkpoint(name=name, folder=folder, architecture=architecture, snapshot=snapshot)
    if snapshot is None:
        for component in architecture.weighty_components:
            checkpoint.fetch(component)
    return checkpoint


def _class_of(index: ConfigFile, component: str, name: str) -> str:
    allowed = COMPONENT_CLASSES[component]
    entry = index.get(component)
    library, class_name = entry if isinstance(entry, list) and len(entry) == 2 else (None, entry)
    if class_name not in allowed or library not in ("diffusers", "transformers"):
        raise ModelError(f"{name!r}: its {component} must be a {' or '.join(allowed)}, not {entry}")
    return str(class_name)


def _read_architecture(
    name: str, folder: Path, index: ConfigFile, transformer: ConfigFile, classes: Mapping[str, str]
) -> Architecture:
    vae = read_config(folder / "vae" / "config.json", name)
    scheduler = read_config(folder / "scheduler" / "scheduler_config.json", name)
    boundary = index.share("boundary_ratio")
    # What a config leaves out is the default of diffusers' class.
    channels = vae.integer("z_dim", 16)
    patch = _read_patch(transformer)
    reads_pictures = _reads_pictures(transformer, channels)
    _check_statistics(vae, channels)
    for key in ("shift", "flow_shift"):
        scheduler.positive(key, 1.0)
    if classes["transformer"] == VACE_TRANSFORMER:
        _check_control(transformer, channels, vae.integer("scale_factor_spatial", 8))
    architecture = Architecture(
        transformer_class=classes["transformer"],
        text_encoder_class=classes["text_encoder"],
        scheduler_class=classes["scheduler"],
        latent_channels=channels,
        frames_per_latent=vae.integer("scale_factor_temporal", 4),
        pixels_per_cell=vae.integer("scale_factor_spatial", 8),
        patch=patch,
        heads=transformer.integer("num_attention_heads", 40),
        max_positions=transformer.integer("rope_max_seq_len", 1024),
        num_train_timesteps=scheduler.integer("num_train_timesteps", 1000),
        boundary_ratio=boundary,
        expand_timesteps=index.flag("expand_timesteps", default=False),
        reads_pictures=reads_pictures,
        image_dim=None if transformer.get("image_dim") is None else transformer.integer("image_dim", 1280),
        reads_two_embeddings=transformer.get("pos_embed_seq_len") is not None,
    )
    if boundary is not None:
        _refuse_unlike(transformer, read_config(folder / "transformer_2" / "config.json", name))
    return architecture


def _read_patch(transformer: ConfigFile) -> tuple[int, int]:
    """Latent cells per token, along height and width. Raises ModelError."""
    patch = transformer.get("patch_size", [1, 2, 2])
    if not isinstance(patch, list) or len(patch) != 3 or not all(is_integer(size) and size > 0 for size in patch):
        raise transformer.unfit("patch_size", "three positive integers")
    if patch[0] != 1:
        raise ModelError(
            f"{transformer.model!r} joins {patch[0]} latents in a token; Longtake needs one latent per token"
        )
    return patch[1], patch[2]


def _reads_pictures(transformer: ConfigFile, channels: int) -> bool:
    """Whether a transformer reads a mask and encoded pictures beside its latents. Raises ModelError for one that takes
    other things than latents, or those, to latents."""
    beside = transformer.integer("in_channels", 16) - channels
    if beside not in (0, MASK_CHANNELS + channels) or (transformer.get("image_dim") is not None and not beside):
        raise ModelError(
            f"{transformer.model!r}: its transformer reads {channels + beside} channels; Longtake knows those that read"
            f" {channels}, latents alone, and {2 * channels + MASK_CHANNELS}, with a mask and pictures beside them"
        )
    predicted = transformer.get("out_channels", 16)
    if predicted and transformer.integer("out_channels", 16) != channels:  # null: as many as come in
        raise transformer.unfit("out_channels", f"{channels}, the channels of the VAE's latents")
    return bool(beside)


def _check_control(transformer: ConfigFile, channels: int, pixels_per_cell: int) -> None:
    """Raises ModelError unless a control clip is two clips of latents and a mask of every pixel of a cell."""
    control = 2 * channels + pixels_per_cell**2
    if transformer.integer("vace_in_channels", 96) != control:
        raise transformer.unfit(
            "vace_in_channels", f"{control}, two clips of the VAE's latents and a mask of every pixel"
        )
    layers, blocks = transformer.get("vace_layers", [*range(0, 40, 5)]), transformer.integer("num_layers", 40)
    known = isinstance(layers, list) and all(is_integer(layer) and 0 <= layer < blocks for layer in layers)
    if not known or 0 not in layers:
        raise transformer.unfit("vace_layers", f"a list of numbers from 0, which is one of them, to {blocks - 1}")


def _refuse_unlike(first: ConfigFile, second: ConfigFile) -> None:
    """Raises ModelError for a second expert of another size than the first."""
    for key in SIZES:
        if first.get(key) != second.get(key):
            raise second.unfit(key, f"{shorten(first.get(key))} as in {first.place}")


def _check_statistics(vae: ConfigFile, channels: int) -> None:
    """Raises ModelError unless the means and deviations of latents are one finite number a channel."""
    for key in ("latents_mean", "latents_std"):
        numbers = vae.get(key)
        if numbers is None and channels == 16:
            continue  # diffusers' class brings those of Wan 2.1
        least = 0 if key == "latents_std" else -math.inf
        if not isinstance(numbers, list) or len(numbers) != channels:
            raise vae.unfit(key, f"a list of {channels} numbers")
        if not all(is_number(number) and number > least for number in numbers):
            raise vae.unfit(key, "finite numbers" + (" above 0" if key == "latents_std" else ""))


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
