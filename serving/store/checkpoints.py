"""Checkpoints of a take: its timeline between two events, from which it goes on to the same bits.

A checkpoint is safetensors and the sha256 of it. Its name is the writer's fencing token and a sequence number, and it
is only ever created, so that a writer that has been replaced cannot make the newest one. What cannot be read, or is
not of this take, is skipped for the one before it.

Legend: N latents of the take, C channels, h and w height and width of a latent.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from serving.errors import ArtifactMissing, Fenced
from serving.store.artifact_keys import checkpoints_folder
from serving.store.artifacts import Artifacts
from sharding.solver import History
from sharding.timeline import Snapshot

log = logging.getLogger(__name__)

CHECKPOINTS_KEPT = 2
"""Checkpoints kept of one take: the newest, and the one before it should the newest be damaged."""


FORMAT = "longtake-checkpoint-1"
"""Named in every checkpoint; rises when its content changes."""

_NAME = re.compile(r"(\d{12})-(\d{8})\.ckpt", re.ASCII)
_DIGEST_BYTES = hashlib.sha256().digest_size
_LISTINGS = 3
"""Times that the checkpoints are listed anew because all were pruned between listing and reading."""


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that was read, and what its name says."""

    snapshot: Snapshot
    token: int
    sequence: int


class BadCheckpoint(ValueError):
    """Bytes that are no checkpoint of this take; the message says why."""


class Checkpoints:
    """The checkpoints of the take with this content key. One writer holds each token; tokens rise."""

    def __init__(self, artifacts: Artifacts, content_key: str) -> None:
        self._artifacts = artifacts
        self._content_key = content_key
        self._folder = checkpoints_folder(content_key)

    def save(self, snapshot: Snapshot, *, token: int, sequence: int) -> int:
        """Keep a snapshot as the newest of `token`, and delete all but the newest few; returns its bytes.

        `sequence` rises with every save. Raises Fenced if a higher token has saved before, or another writer has
        this one. Raises ArtifactsUnavailable.
        """
        before = self._names()
        if before and before[-1][0] > token:
            raise Fenced(f"take {self._content_key} is held by token {before[-1][0]}; {token} must stop")
        content = _seal(_encode(snapshot, content_key=self._content_key, token=token, sequence=sequence))
        key = self._key(token, sequence)
        if not self._artifacts.create(key, content):
            self._replace_damaged(key, content, token=token, sequence=sequence)
        kept = sorted({*before, (token, sequence)})[-CHECKPOINTS_KEPT:]
        self._artifacts.delete([self._key(*name) for name in before if name not in kept])
        return len(content)

    def load_newest(self, *, shape: tuple[int, ...] | None = None) -> Loaded | None:
        """The newest checkpoint that is whole and of this take, or None. `shape` is [N, C, h, w], if it is known.

        Raises ArtifactsUnavailable, but nothing for what a checkpoint may contain.
        """
        for _ in range(_LISTINGS):
            pruned = False
            for token, sequence in reversed(self._names()):
                try:
                    return self._load(token, sequence, shape)
                except ArtifactMissing:
                    pruned = True  # by a writer that is still at work: there is a newer one
                except BadCheckpoint as error:
                    key = self._key(token, sequence)
                    log.warning("checkpoint %s is skipped: %s", key, error, extra={"action": "skip_checkpoint"})
            if not pruned:
                return None
        return None

    def clear(self) -> None:
        """Delete all checkpoints of the take; its finished latents have taken their place."""
        self._artifacts.delete_folder(self._folder)

    # ------------------------------------------------------------------------------------------------ inner

    def _names(self) -> list[tuple[int, int]]:
        """(token, sequence) of every checkpoint, ascending; files with other names are no checkpoints."""
        names = (info.key.removeprefix(f"{self._folder}/") for info in self._artifacts.list(self._folder))
        matches = (_NAME.fullmatch(name) for name in names)
        return sorted((int(match[1]), int(match[2])) for match in matches if match)

    def _key(self, token: int, sequence: int) -> str:
        return f"{self._folder}/{token:012d}-{sequence:08d}.ckpt"

    def _load(self, token: int, sequence: int, shape: tuple[int, ...] | None = None) -> Loaded:
        content = _unseal(self._artifacts.get(self._key(token, sequence)))
        snapshot = _decode(content, content_key=self._content_key, token=token, sequence=sequence)
        if shape is not None and tuple(snapshot.latents.shape) != shape:
            raise BadCheckpoint(f"its latents are {(*snapshot.latents.shape,)}, those of the take {shape}")
        return Loaded(snapshot, token, sequence)

    def _replace_damaged(self, key: str, content: bytes, *, token: int, sequence: int) -> None:
        """The name is taken. By a damaged checkpoint, which was skipped on loading, it may be taken over."""
        try:
            self._load(token, sequence)
        except BadCheckpoint:
            self._artifacts.put(key, content)
        except ArtifactMissing:
            raise Fenced(f"another writer with token {token} deleted {key}") from None
        else:
            raise Fenced(f"another writer with token {token} has written {key}")


def _seal(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def _unseal(sealed: bytes) -> bytes:
    content, digest = sealed[:-_DIGEST_BYTES], sealed[-_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise BadCheckpoint("it is torn or corrupt: its bytes do not match their sha256")
    return content


def _encode(snapshot: Snapshot, *, content_key: str, token: int, sequence: int) -> bytes:
    """Tensors as safetensors, everything else as JSON in its metadata."""
    tensors = {"latents": snapshot.latents}
    for (step, chunk), prediction in snapshot.predictions.items():
        tensors[f"prediction.{step}.{chunk}"] = prediction
    histories = []
    for n, history in enumerate(snapshot.histories):
        tensors |= {f"history.{n}.{k}": value for k, value in enumerate(history) if isinstance(value, Tensor)}
        histories.append([_scalar_json(value) for value in history])
    state = {
        "content_key": content_key,
        "token": token,
        "sequence": sequence,
        "steps": snapshot.steps,
        "predictions": sorted(snapshot.predictions),
        "histories": histories,
    }
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return save(contiguous, metadata={"format": FORMAT, "state": json.dumps(state)})


def _scalar_json(value: Tensor | int | float | None) -> Any:
    """None, an int, a float as its exact hexadecimal text, or the mark of a tensor that is kept beside."""
    if isinstance(value, Tensor):
        return {"tensor": True}
    return value.hex() if isinstance(value, float) else value


def _decode(content: bytes, *, content_key: str, token: int, sequence: int) -> Snapshot:
    """What `_encode` was given. Raises BadCheckpoint for anything else, whatever it is."""
    try:
        state = _read_state(content)
        named = (state["content_key"], state["token"], state["sequence"])
        if named != (content_key, token, sequence):
            raise BadCheckpoint(f"it says that it is checkpoint {named[1]}-{named[2]} of take {named[0]}")
        tensors = load(content)
        snapshot = Snapshot(
            latents=tensors["latents"],
            steps=tuple(state["steps"]),
            histories=tuple(_history(n, values, tensors) for n, values in enumerate(state["histories"])),
            predictions={(i, k): tensors[f"prediction.{i}.{k}"] for i, k in state["predictions"]},
        )
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, BadCheckpoint):
            raise
        raise BadCheckpoint(f"it cannot be understood: {type(error).__name__}: {error}") from error
    for complaint in _misshapen(snapshot):
        raise BadCheckpoint(complaint)
    return snapshot


def _read_state(content: bytes) -> dict[str, Any]:
    """The JSON in the header of safetensors, which begin with the length of that header (8 bytes, little-endian)."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header["__metadata__"]
    if metadata["format"] != FORMAT:
        raise BadCheckpoint(f"its format is {metadata['format']!r}, not {FORMAT!r}")
    return cast("dict[str, Any]", json.loads(metadata["state"]))


def _history(n: int, values: list[Any], tensors: Mapping[str, Tensor]) -> History:
    def entry(k: int, value: Any) -> Tensor | int | float | None:
        if isinstance(value, dict):
            return tensors[f"history.{n}.{k}"]
        return float.fromhex(value) if isinstance(value, str) else cast("int | None", value)

    return tuple(entry(k, value) for k, value in enumerate(values))


def _misshapen(snapshot: Snapshot) -> Iterator[str]:
    """What about a snapshot no timeline can have written."""
    latents = snapshot.latents
    if latents.dtype != torch.float32 or latents.ndim != 4:
        yield f"its latents are {latents.dtype} {(*latents.shape,)}"
    elif not len(latents) == len(snapshot.steps) == len(snapshot.histories):
        yield f"{len(latents)} latents, {len(snapshot.steps)} steps and {len(snapshot.histories)} histories"
    elif any(p.shape[1:] != latents.shape[1:] or p.dtype != torch.float32 for p in snapshot.predictions.values()):
        yield "its predictions have another shape than its latents"
