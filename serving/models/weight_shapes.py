"""Whether stored weights are those of the model that a checkpoint's configs describe: every tensor there, of its shape.

The libraries' own classes say what a model consists of: they are built without memory for their weights.
"""

from pathlib import Path
from typing import Any

import torch

from serving.errors import ModelError
from serving.models.checkpoint import Checkpoint
from serving.models.libraries import load_library
from serving.models.quiet import quiet_loading
from serving.models.weight_files import read_weight_headers


def check_weight_shapes(checkpoint: Checkpoint) -> None:
    """Raises ModelError with the file and the tensor that is of another shape, or missing. Fetches every component."""
    for component in checkpoint.architecture.weighty_components:
        folder = checkpoint.fetch(component)
        _check(folder, _build(folder, checkpoint), checkpoint.name)


def _check(folder: Path, module: Any, name: str) -> None:
    stored = read_weight_headers(folder, name)
    wanted = {tensor: tuple(value.shape) for tensor, value in module.state_dict().items()}
    for tensor, shape in wanted.items():
        found = stored.get(tensor)
        if found is not None and found.shape != shape:
            raise ModelError(
                f"{name!r}: {folder.name}/{found.file.name}: {tensor} is of shape {list(found.shape)}, but by"
                f" {folder.name}/config.json it must be {list(shape)}"
            )
    tied = getattr(module, "_tied_weights_keys", None) or ()  # stored once under another name
    missing = [tensor for tensor in wanted if tensor not in stored and tensor not in tied]
    if missing:
        raise ModelError(
            f"{name!r}: {folder.name} lacks {len(missing)} tensors of its model; the first is {missing[0]}"
        )


def _build(folder: Path, checkpoint: Checkpoint) -> Any:
    """The component's module on torch's meta device."""
    try:
        with quiet_loading(), torch.device("meta"):
            if folder.name == "text_encoder":
                return _build_of_transformers(folder, checkpoint.architecture.text_encoder_class)
            if folder.name == "image_encoder":
                return _build_of_transformers(folder, "CLIPVisionModel")
            return _build_of_diffusers(folder, checkpoint.architecture.transformer_class)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, ZeroDivisionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{checkpoint.name!r}: {folder.name}/config.json describes no model: {reason}") from error


def _build_of_transformers(folder: Path, class_name: str) -> Any:
    owner = getattr(load_library("transformers"), class_name)
    return owner(owner.config_class.from_pretrained(folder, local_files_only=True))


def _build_of_diffusers(folder: Path, transformer_class: str) -> Any:
    owner = getattr(load_library("diffusers"), "AutoencoderKLWan" if folder.name == "vae" else transformer_class)
    return owner.from_config(owner.load_config(folder, local_files_only=True))
