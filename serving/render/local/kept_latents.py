"""The finished latents of a film's takes, kept in a folder: one safetensors file for each take."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from serving.errors import Fault, OutOfSpace

if TYPE_CHECKING:
    import torch

_TAKE = "take"
_SHA256 = "sha256"


def file_names(num_takes: int) -> list[str]:
    """The names of a film's files, in the order of its takes."""
    return [f"{index:03d}.safetensors" for index in range(num_takes)]


def holds_latents(path: Path) -> bool:
    """Whether a file is one that `write_latents` wrote."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return {_TAKE, _SHA256} <= (file.metadata() or {}).keys()
    except (SafetensorError, OSError):
        return False


def write_latents(takes: Sequence[tuple[str, str, "torch.Tensor"]], folder: Path) -> None:
    """Writes (key, sha256, latents float32 [N, C, h, w]) of each take, each file whole or not at all.

    Raises OutOfSpace or Fault if they cannot be written; the film is not concerned.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    for name, (key, sha256, latents) in zip(file_names(len(takes)), takes, strict=True):
        path = folder / name
        partial = path.with_name(f".{name}.partial")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({"latents": latents}, partial, metadata={_TAKE: key, _SHA256: sha256})
            partial.replace(path)
        except (OSError, SafetensorError) as error:  # safetensors tells the system's errors in words of its own
            kind = OutOfSpace if "os error 28" in str(error) or "No space" in str(error) else Fault
            raise kind(f"the film is written, but its latents could not be kept in {folder}: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
