"""The weights of one component, as the headers of its safetensors files tell them: which tensors there are, and whether
every byte of them is.

Reads a few hundred kilobytes of tens of gigabytes, and imports no torch, so that broken weights are found when a model
is opened and not when a gang loads it. The format: https://huggingface.co/docs/safetensors (8 bytes of length, little
endian; a JSON header; the tensors' bytes).
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

from serving.errors import ModelError
from serving.models.config_files import is_integer, read_config, shorten

STEMS: Final = {"text_encoder": "model", "image_encoder": "model"}
"""What transformers calls its files of weights; those of other components are called as diffusers does."""

DIFFUSERS_STEM: Final = "diffusion_pytorch_model"

PICKLED: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

MAX_HEADER_BYTES = 100 << 20
"""Bytes of a header; the limit of the safetensors library itself."""

LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
"""Begins what a clone without Git LFS has in place of a large file."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a component's weights."""

    file: Path
    shape: tuple[int, ...]


def read_weight_headers(folder: Path, name: str) -> dict[str, StoredTensor]:
    """The tensors of a component's folder by name, after a look at every file that holds one.

    `name` is the checkpoint's, for messages. Raises ModelError with the file, and the tensor if one is concerned, for
    what no library could load: pickled weights, a variant only, files that are missing, empty, cut short or something
    else.
    """
    stem = STEMS.get(folder.name, DIFFUSERS_STEM)
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    # With both, transformers takes the single file and diffusers the index.
    candidates = (single, index) if folder.name in STEMS else (index, single)
    found = next((path for path in candidates if path.exists() or path.is_symlink()), None)
    if found is None:
        raise ModelError(f"{name!r}: {_what_is_there_instead(folder, stem)}")
    if found == single:
        return _read_file(single, name)
    return _read_shards(index, name)


def _read_shards(index: Path, name: str) -> dict[str, StoredTensor]:
    places = read_config(index, name).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(shard, str) for shard in places.values()):
        raise ModelError(f"{name!r}: {_place(index)} has no weight_map of tensors to files")
    shards: dict[str, dict[str, StoredTensor]] = {}
    tensors: dict[str, StoredTensor] = {}
    for tensor, shard in sorted(places.items()):
        if shard not in shards:
            if Path(shard).name != shard:
                raise ModelError(
                    f"{name!r}: {_place(index)} names {shorten(shard)} for {tensor}: a shard lies beside its index"
                )
            shards[shard] = _read_file(index.parent / shard, name, wanted=tensor)
        if tensor not in shards[shard]:
            raise ModelError(
                f"{name!r}: {_place(index.parent / shard)} lacks {tensor}, which {index.name} says is in it"
            )
        tensors[tensor] = shards[shard][tensor]
    return tensors


def _read_file(path: Path, name: str, *, wanted: str | None = None) -> dict[str, StoredTensor]:
    """`wanted` is a tensor that the file is read for, to be named if the file is missing."""
    which = f"{name!r}: {_place(path)}" + (f" (with {wanted})" if wanted is not None else "")
    if path.is_symlink() and not path.exists():
        raise ModelError(f"{which} is a link to a file that is missing")
    if not path.exists():
        raise ModelError(f"{which} is missing")
    if not path.is_file():
        raise ModelError(f"{which} is no file")
    try:
        header, data_bytes, start = _read_header(path)
    except OSError as error:
        raise ModelError(f"{which} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{which} {error}") from error
    tensors: dict[str, StoredTensor] = {}
    for tensor, entry in header.items():
        if tensor != "__metadata__":
            shape, (_, end) = _read_entry(entry, f"{name!r}: {_place(path)}: {tensor}")
            if end > data_bytes:
                raise ModelError(
                    f"{name!r}: {_place(path)} is cut short: it ends after {start + data_bytes} bytes, within or before"
                    f" the tensor {tensor}"
                )
            tensors[tensor] = StoredTensor(path, shape)
    return tensors


def _read_header(path: Path) -> tuple[Mapping[str, Any], int, int]:
    """A file's header, how many bytes of tensors follow it, and where they begin. Raises ValueError, OSError."""
    size = path.stat().st_size
    if not size:
        raise ValueError("is empty")
    with path.open("rb") as file:
        first = file.read(8)
        if LFS_POINTER.startswith(first) and (first + file.read(64)).startswith(LFS_POINTER):
            raise ValueError("is a pointer of Git LFS and not the weights; `git lfs pull` in its folder fetches them")
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else MAX_HEADER_BYTES + 1
        if length > MAX_HEADER_BYTES:
            raise ValueError("is no safetensors file")
        if 8 + length > size:
            raise ValueError(f"is cut short: it ends after {size} bytes, within its header")
        file.seek(8)
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise ValueError("is no safetensors file: its header is no JSON") from error
    if not isinstance(header, dict):
        raise ValueError("is no safetensors file: its header is no JSON object")
    return header, size - 8 - length, 8 + length


def _read_entry(entry: Any, place: str) -> tuple[tuple[int, ...], tuple[int, int]]:
    """A tensor's shape, and where its bytes begin and end. Raises ModelError."""
    shape, offsets = (entry.get("shape"), entry.get("data_offsets")) if isinstance(entry, dict) else (None, None)
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ModelError(f"{place}: the file's header gives it no sound shape and place")
    return tuple(shape), (offsets[0], offsets[1])


def _are_counts(numbers: Any) -> TypeGuard[list[int]]:
    return isinstance(numbers, list) and all(is_integer(number) and number >= 0 for number in numbers)


def _place(path: Path) -> str:
    """A file as a user knows it: no path of this machine, since a tenant may be told."""
    return f"{path.parent.name}/{path.name}"


def _what_is_there_instead(folder: Path, stem: str) -> str:
    """What a folder without the weights that are looked for holds."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    variant = next((name for name in names if name.startswith(f"{stem}.") and ".safetensors" in name), None)
    if variant is not None:
        kind = variant.removeprefix(f"{stem}.").split(".")[0]
        return (
            f"{folder.name} holds weights of the variant {kind!r} only ({variant}); Longtake loads {stem}.safetensors:"
            " save the model without a variant"
        )
    other = next((name for name in names if name.endswith(".safetensors")), None)
    if other is not None:
        return f"{folder.name} holds {other}, but no {stem}.safetensors nor an index of shards"
    if any(name.endswith(PICKLED) for name in names):
        return (
            f"{folder.name} holds pickled weights only, which can run code when they are read; save it again with"
            " safe_serialization=True"
        )
    return f"{folder.name} holds no safetensors"
