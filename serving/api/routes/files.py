"""What was rendered, as files: films, manifests, pictures, and what there is of a take so far."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from serving.api.caller import AnyCaller
from serving.api.errors import not_found
from serving.api.media import Media, file_name, send_media
from serving.api.routes.jobs import JobId, find_job
from serving.api.services import Services, TheServices
from serving.api.wire.openapi import binary
from serving.store.artifact_keys import FILM_NAME, film_artifact, head_artifact, preview_artifact
from serving.store.records import Job, Take

router = APIRouter(tags=["media"])

FrameCount = Annotated[int, Path(ge=1, le=1_000_000_000, description="Its length, as `head` of the take names it.")]

FILMS = {
    "film": (FILM_NAME, "video/mp4", "mp4"),
    "manifest": ("film.json", "application/json", "json"),
    "thumbnail": ("thumbnail.jpg", "image/jpeg", "jpg"),
    "spritesheet": ("spritesheet.jpg", "image/jpeg", "jpg"),
}
"""What a finished film comes with: the artifact's last name, its type, and the ending of a saved file."""


def film_media(job: Job, kind: str) -> Media:
    """One of FILMS of a job."""
    name, content_type, extension = FILMS[kind]
    title = job.title if kind == "film" else f"{job.title} {kind}"
    return Media(film_artifact(job.id, name), content_type, file_name(title, extension))


@router.get("/v1/jobs/{job_id}/film", summary="The film", responses=binary("video/mp4"))
@router.head("/v1/jobs/{job_id}/film", include_in_schema=False)
def film(job_id: JobId, request: Request, caller: AnyCaller, services: TheServices) -> Response:
    """The finished film, H.264 in MP4."""
    return send_media(request, services.artifacts, film_media(find_job(services, caller, job_id), "film"))


@router.get("/v1/jobs/{job_id}/manifest", summary="What the film was made from", responses=binary("application/json"))
@router.head("/v1/jobs/{job_id}/manifest", include_in_schema=False)
def manifest(job_id: JobId, request: Request, caller: AnyCaller, services: TheServices) -> Response:
    """The finished film's manifest: versions, seeds, hashes, seams, timings."""
    return send_media(request, services.artifacts, film_media(find_job(services, caller, job_id), "manifest"))


@router.get("/v1/jobs/{job_id}/thumbnail", summary="A picture of the film", responses=binary("image/jpeg"))
@router.head("/v1/jobs/{job_id}/thumbnail", include_in_schema=False)
def thumbnail(job_id: JobId, request: Request, caller: AnyCaller, services: TheServices) -> Response:
    """One frame of the finished film."""
    return send_media(request, services.artifacts, film_media(find_job(services, caller, job_id), "thumbnail"))


@router.get("/v1/jobs/{job_id}/spritesheet", summary="Many small pictures", responses=binary("image/jpeg"))
@router.head("/v1/jobs/{job_id}/spritesheet", include_in_schema=False)
def spritesheet(job_id: JobId, request: Request, caller: AnyCaller, services: TheServices) -> Response:
    """Frames of the finished film in rows and columns."""
    return send_media(request, services.artifacts, film_media(find_job(services, caller, job_id), "spritesheet"))


@router.get("/v1/jobs/{job_id}/takes/{key}/head", summary="A take so far", responses=binary("video/mp4"))
@router.head("/v1/jobs/{job_id}/takes/{key}/head", include_in_schema=False)
def newest_head(job_id: JobId, key: str, request: Request, caller: AnyCaller, services: TheServices) -> Response:
    """The longest film there is of a take's first frames; another one when there is more."""
    take = _find_take(services, find_job(services, caller, job_id), key)
    return _send_head(request, services, take, take.head_frames)


@router.get(
    "/v1/jobs/{job_id}/takes/{key}/head/{frames}", summary="A take's first frames", responses=binary("video/mp4")
)
@router.head("/v1/jobs/{job_id}/takes/{key}/head/{frames}", include_in_schema=False)
def take_head(
    job_id: JobId, key: str, frames: FrameCount, request: Request, caller: AnyCaller, services: TheServices
) -> Response:
    """A take's first frames as a film that never changes; it is kept for a while after a longer one is there."""
    take = _find_take(services, find_job(services, caller, job_id), key)
    return _send_head(request, services, take, frames)


@router.get("/v1/jobs/{job_id}/takes/{key}/preview", summary="A take's latents", responses=binary("image/png"))
@router.head("/v1/jobs/{job_id}/takes/{key}/preview", include_in_schema=False)
def take_preview(job_id: JobId, key: str, request: Request, caller: AnyCaller, services: TheServices) -> Response:
    """A rough picture of a take as it comes out of the noise."""
    take = _find_take(services, find_job(services, caller, job_id), key)
    media = Media(preview_artifact(str(take.content_key)), "image/png", file_name(key, "png"))
    return send_media(request, services.artifacts, media)


def _send_head(request: Request, services: Services, take: Take, frames: int) -> Response:
    media = Media(head_artifact(str(take.content_key), frames), "video/mp4", file_name(take.key, "mp4"))
    return send_media(request, services.artifacts, media)


def _find_take(services: Services, job: Job, key: str) -> Take:
    """The take, once it has content. Raises ApiError 404."""
    for take in services.jobs.takes(job.id):
        if take.key == key and take.content_key is not None:
            return take
    raise not_found(f"take {key[:64]} in job {job.id}, or nothing of it yet")
