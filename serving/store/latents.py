"""Finished latents, prompt embeddings and conditions among the artifacts: safetensors, found by what they depend on."""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from serving.errors import Fault
from serving.store.artifact_keys import condition_artifact, latents_artifact
from serving.store.artifacts import Artifacts

Array = NDArray[np.float32]


def write_latents(artifacts: Artifacts, content_key: str, latents_NChw: Array) -> str:
    """Keep the finished latents of a take, float32 [N, C, h, w]; returns the sha256 of their little-endian bytes."""
    sha256 = hash_latents(latents_NChw)
    artifacts.create(latents_artifact(content_key), save({"latents": latents_NChw}, metadata={"sha256": sha256}))
    return sha256


def read_latents(artifacts: Artifacts, content_key: str) -> Array:
    """The finished latents of a take, float32 [N, C, h, w]. Raises ArtifactMissing."""
    latents: Array = load(artifacts.get(latents_artifact(content_key)))["latents"]
    return latents


def hash_latents(latents_NChw: Array) -> str:
    """sha256, hexadecimal, of latents as float32 little-endian [N, C, h, w]."""
    return hashlib.sha256(np.ascontiguousarray(latents_NChw, dtype="<f4").tobytes()).hexdigest()


def write_prompt(artifacts: Artifacts, key: str, embedding_LD: Array) -> None:
    """Keep the embedding of one text, float32 [tokens, dim]."""
    artifacts.create(key, save({"embedding": embedding_LD}))


def write_condition(artifacts: Artifacts, content_key: str, arrays: Mapping[str, Array]) -> None:
    """Keep what the pictures of a take became: its arrays by name, float32."""
    artifacts.create(condition_artifact(content_key), save(dict(arrays)))


def read_condition(artifacts: Artifacts, content_key: str) -> dict[str, Array]:
    """What the pictures of a take became. Raises ArtifactMissing, Fault if it is corrupt."""
    try:
        arrays: dict[str, Array] = load(artifacts.get(condition_artifact(content_key)))
    except ValueError as error:
        raise Fault(f"the condition of take {content_key} cannot be read: {error}") from error
    return arrays


def read_prompts(artifacts: Artifacts, keys: Mapping[str, str]) -> dict[str, Array]:
    """The embeddings of texts, given text -> artifact key. Raises ArtifactMissing, Fault for one that is corrupt."""
    return {text: _read_prompt(artifacts, key) for text, key in keys.items()}


def _read_prompt(artifacts: Artifacts, key: str) -> Array:
    try:
        embedding: Array = load(artifacts.get(key))["embedding"]
    except (ValueError, KeyError) as error:
        raise Fault(f"the prompt embedding {key} cannot be read: {error}") from error
    return embedding
