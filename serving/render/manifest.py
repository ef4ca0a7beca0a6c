"""The manifest beside a film: what it was made from, with what, and how it came out."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.planning.plan import FilmPlan, plan_json

if TYPE_CHECKING:
    from serving.render.messages import Film

MANIFEST_NAME = "film.json"
"""The manifest lies beside the film under this name."""

_MAX_MANIFEST_BYTES = 64 << 20
"""Bytes of a file that are read to see whether it is a manifest: many times as many as a manifest has."""

_LIBRARIES = ("longtake", "torch", "diffusers", "transformers", "numpy", "pillow", "av")


def versions() -> dict[str, str]:
    """Releases of what a film's bytes may depend on."""
    libraries = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **libraries}


def build_manifest(
    plan: FilmPlan,
    *,
    name: str,
    film: "Film",
    weights_sha256: str,
    numerics: dict[str, str],
    latents_sha256: list[str],
    timings: dict[str, float],
    gangs: int,
) -> dict[str, Any]:
    """Everything about a finished film, ready for JSON. `name` is that of its file, beside which the manifest lies."""
    return {
        "manifest_version": 1,
        "film": name,
        "sha256": film.sha256,
        "bytes": film.bytes,
        "frames": film.frames,
        "fps": plan.fps,
        "seconds": film.frames / plan.fps,
        "width": plan.width,
        "height": plan.height,
        "title": plan.title,
        "storyboard_sha256": plan.storyboard_hash,
        "model": plan.model,
        "weights_sha256": weights_sha256,
        "numerics": numerics,
        "versions": versions(),
        "seed": plan.seed,
        "takes": [
            {
                "key": take.key,
                "seed": take.seed,
                "shots": [shot.id for shot in take.shots],
                "latents": take.latents,
                "latents_sha256": sha256,
            }
            for take, sha256 in zip(plan.takes, latents_sha256, strict=True)
        ],
        "seams": [_finite(seam) for seam in film.seams],
        "gangs": gangs,
        "timings": timings,
        "plan": plan_json(plan),
    }


def manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """The manifest as it is kept: JSON, UTF-8."""
    return (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode()


def is_manifest(path: Path) -> bool:
    """Whether a file is a film's manifest, and so may be replaced by another."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_MANIFEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"manifest_version", "storyboard_sha256"} <= content.keys()


def write_manifest(manifest: dict[str, Any], folder: Path) -> Path:
    """Write the manifest into `folder`, whole or not at all; returns its path."""
    path = folder / MANIFEST_NAME
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(manifest_bytes(manifest))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _finite(seam: dict[str, object]) -> dict[str, object]:
    """JSON knows no infinity: a ratio over a still take is written as null."""
    return {key: None if value == float("inf") else value for key, value in seam.items()}
