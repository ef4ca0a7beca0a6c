"""Opens models by name: `pocket`, a local folder, or a hub id.

Importing this module loads no torch, and opening a model no weights.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serving.errors import ModelError
from serving.models.hub import Hub

if TYPE_CHECKING:
    from serving.models.checkpoint import Checkpoint
    from serving.models.wan import WanModel

POCKET = "pocket"
POCKET_FOLDER = Path(__file__).parent / "pocket" / "checkpoint"

# Not the hub's whole alphabet but what it allows: `org/name`, each starting with a letter or digit.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

DESCRIPTIONS = {
    POCKET: "the small model that ships with Longtake: simple shapes that move, from words and pictures, on a CPU",
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": "Wan 2.1 text-to-video, 1.3 B, 832x480",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": "Wan 2.1 text-to-video, 14 B, 832x480",
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": "Wan 2.2 text-to-video, two experts of 14 B, 1280x720",
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": "Wan 2.2, 5 B, 1280x704 at 24 frames per second; first pictures",
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": "Wan 2.1 image-to-video, 14 B, 832x480; first pictures",
    "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers": "Wan 2.1, 14 B, 1280x720; first and last pictures",
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers": "Wan 2.2 image-to-video, two experts of 14 B; first and last pictures",
    "Wan-AI/Wan2.1-VACE-1.3B-diffusers": "Wan 2.1 VACE, 1.3 B, 832x480; pictures at any time and of characters",
    "Wan-AI/Wan2.1-VACE-14B-diffusers": "Wan 2.1 VACE, 14 B, 832x480; pictures at any time and of characters",
}

_VACE = ("Wan-AI/Wan2.1-VACE-1.3B-diffusers", "Wan-AI/Wan2.1-VACE-14B-diffusers")
_TAKES = {
    "first": (
        POCKET,
        "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        *_VACE,
    ),
    "last": (POCKET, "Wan-AI/Wan2.2-I2V-A14B-Diffusers", "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers", *_VACE),
    "keyframes": (POCKET, *_VACE),
    "references": _VACE,
    "strength": (POCKET,),
    "context": (POCKET,),
}
"""What a model may be asked to take beside prompts (sharding.capabilities.PictureSupport), and known models that do."""


@dataclass(frozen=True)
class KnownModel:
    """A line of `longtake models`."""

    name: str
    description: str
    is_local: bool
    """True if rendering with it needs no download."""


def known_models() -> list[KnownModel]:
    """The models that Longtake knows by name; any other Wan checkpoint opens by its folder or hub id."""
    return [KnownModel(name, description, _is_local(name)) for name, description in DESCRIPTIONS.items()]


def open_model(name: str, *, hub: Hub | None = None) -> "WanModel":
    """Opens `pocket`, a folder or a hub id by reading its configs; weights are loaded later. Raises ModelError."""
    from serving.models.capabilities import describe_capabilities
    from serving.models.checkpoint import read_checkpoint
    from serving.models.wan import WanModel

    if name == POCKET:
        checkpoint = read_checkpoint(name, _pocket_folder())
    elif (folder := _local_folder(name)) is not None:
        checkpoint = read_checkpoint(name, folder)
    elif HUB_ID.fullmatch(name):
        checkpoint = _read_from_hub(name, hub or Hub())
    else:
        raise ModelError(f"unknown model {_shorten(name)}: {_what_is_allowed()}{_did_you_mean(name)}")
    return WanModel(checkpoint=checkpoint, capabilities=describe_capabilities(checkpoint))


def models_that_take(ability: str) -> tuple[str, ...]:
    """Known models that take pictures in this way: `first`, `last`, `keyframes`, `references` or `strength`, or
    finished latents as `context`."""
    return _TAKES.get(ability, ())


def nearest_model(name: str) -> str | None:
    """The known model that a misspelt name most likely means; a hub id's owner and case may be missing."""
    spellings = {spelling.lower(): known for known in DESCRIPTIONS for spelling in (known, known.split("/")[-1])}
    nearest = difflib.get_close_matches(name[:200].lower(), spellings, n=1, cutoff=0.6)
    return spellings[nearest[0]] if nearest else None


def _is_local(name: str) -> bool:
    if name == POCKET:
        return (POCKET_FOLDER / "model_index.json").exists()
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(name, "model_index.json")
    # The configs alone come with a first look at a model; weights are what takes the time.
    return isinstance(index, str) and any(Path(index).parent.glob("transformer/*.safetensors"))


def _pocket_folder() -> Path:
    if not POCKET_FOLDER.is_dir():
        raise ModelError(f"pocket's checkpoint is missing at {POCKET_FOLDER}: this installation is incomplete")
    return POCKET_FOLDER


def _local_folder(name: str) -> Path | None:
    """The folder of that name, if there is one. Raises ModelError if it can only have been meant as a path."""
    try:
        folder = Path(name).expanduser()
        if folder.is_dir():
            return folder.resolve()
        is_file = folder.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, no such user
        reason = str(error) if not isinstance(error, OSError) else error.strerror
        raise ModelError(f"unknown model {_shorten(name)}: {reason}") from error
    if is_file:
        raise ModelError(f"{name!r} is a file; a model is a folder in diffusers format")
    if name.startswith(("/", "./", "../", "~")):
        raise ModelError(f"there is no folder {name!r}")
    return None


def _read_from_hub(name: str, hub: Hub) -> "Checkpoint":
    from serving.models.checkpoint import read_checkpoint

    try:
        snapshot = hub.find(name)
        return read_checkpoint(name, snapshot.folder, snapshot)
    except ModelError as error:
        nearest = "" if name in DESCRIPTIONS else _did_you_mean(name)
        raise ModelError(f"{error} (there is no folder {name!r} either){nearest}") from error


def _what_is_allowed() -> str:
    return f"a model is {POCKET!r}, a folder with a Wan checkpoint in diffusers format, or a hub id such as 'org/name'"


def _did_you_mean(name: str) -> str:
    nearest = nearest_model(name)
    return "" if nearest is None else f"; did you mean {nearest!r}?"


def _shorten(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "...")
