"""Where each artifact is kept: keys below the farm's prefix. Pure, and imports nothing, so that all may use it.

What a take is made of lies under its content key, so that equal takes share it; what belongs to a film under its job.
"""

import hashlib

FILM_NAME = "film.mp4"
"""The film among what belongs to it."""


def latents_artifact(content_key: str) -> str:
    """The finished latents of a take."""
    return f"takes/{content_key}/latents.safetensors"


def frames_artifact(content_key: str) -> str:
    """The frames of a take, handles included and surplus not."""
    return f"takes/{content_key}/frames.mkv"


def head_artifact(content_key: str, frames: int) -> str:
    """The first `frames` decoded frames of a take, for watching. Each length has a key of its own, so that none is
    rewritten under a reader."""
    return f"takes/{content_key}/head-{frames}.mp4"


def preview_artifact(content_key: str) -> str:
    """The picture of a take that is being denoised."""
    return f"takes/{content_key}/preview.png"


def checkpoints_folder(content_key: str) -> str:
    """The checkpoints of a take while it renders."""
    return f"takes/{content_key}/checkpoints"


def condition_artifact(content_key: str) -> str:
    """What the pictures of a take became for its model."""
    return f"takes/{content_key}/condition.safetensors"


def asset_artifact(tenant: str, sha256: str) -> str:
    """A file that a tenant has sent."""
    return f"assets/{_folder_of(tenant)}/{sha256}"


def uploads_folder(tenant: str, sha256: str = "") -> str:
    """The pieces of a file that a tenant is sending; without a hash, of all its files."""
    return f"uploads/{_folder_of(tenant)}/{sha256}".rstrip("/")


def upload_artifact(tenant: str, sha256: str, offset: int) -> str:
    """The piece of a file that begins at a byte."""
    return f"{uploads_folder(tenant, sha256)}/{offset}"


def _folder_of(tenant: str) -> str:
    """A tenant's name may hold what a key may not."""
    return hashlib.sha256(tenant.encode()).hexdigest()[:16]


def film_artifact(job_id: str, name: str = FILM_NAME) -> str:
    """A job's film and what belongs to it: film.json, thumbnail.jpg, spritesheet.jpg."""
    return f"films/{job_id}/{name}"


def prompt_artifact(weights: str, text: str) -> str:
    """The embedding of a text by a model."""
    return f"prompts/{weights}/{hashlib.sha256(text.encode()).hexdigest()}.safetensors"


def rgb_artifact(weights_sha256: str) -> str:
    """The map from latents to colours that was fitted for a model."""
    return f"models/{weights_sha256}/latent_rgb.json"
