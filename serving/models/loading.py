"""Loads one part of a checkpoint with the library that wrote it, and says plainly what is wrong if it cannot."""

from pathlib import Path
from typing import Any

import torch

from serving.errors import ModelError
from serving.models.libraries import load_library


def load_module(owner: Any, folder: Path, *, dtype: torch.dtype, device: str) -> Any:
    """`owner.from_pretrained` from safetensors in a local folder, ready for inference. Raises ModelError."""
    from safetensors import SafetensorError

    from serving.models.quiet import quiet_loading

    try:
        with quiet_loading():
            module, report = owner.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"cannot load {folder} as a {owner.__name__}: {reason}") from error
    # The libraries only log a missing weight and carry on with random numbers in its place.
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(f"{folder} lacks {len(missing)} weights of a {owner.__name__}, the first is {missing[0]}")
    return module.eval().requires_grad_(False).to(device)


def load_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer in a folder. Raises ModelError."""
    from serving.models.quiet import quiet_loading

    try:
        with quiet_loading():
            tokenizers = load_library("transformers").AutoTokenizer
            return tokenizers.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"cannot load the tokenizer in {folder}: {reason}") from error
