"""Takes in files that are sent: checks that they are pictures and who they are, and puts pieces together."""

import hashlib
import threading
from dataclasses import dataclass

from serving.api.errors import ApiError, refuse
from serving.api.services import Services
from serving.errors import ArtifactMissing, Problem
from serving.pictures.reading import PictureError, describe_picture, read_picture
from serving.store.artifact_keys import upload_artifact, uploads_folder
from serving.store.assets import Asset, AssetQuota, TooManyAssets

MAX_UPLOADS = 64
"""Files of one tenant that may be on their way in pieces at once."""


DECODED_AT_ONCE = 2
"""Pictures that one process decodes at the same time: the largest takes half a gigabyte meanwhile."""

_DECODING = threading.BoundedSemaphore(DECODED_AT_ONCE)


@dataclass(frozen=True)
class Kept:
    """A file that is there now."""

    asset: Asset
    was_there: bool


def keep_asset(services: Services, tenant: str, content: bytes, sha256: str | None = None) -> Kept:
    """Keep a picture for a tenant. Raises ApiError: 422 for other bytes than a picture's or the hash's, 409 over quota.

    It is decoded here once, so that one which is cut short is refused while whoever sends it is there to hear it.
    """
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise refuse([Problem("", f"these bytes are sha256:{found}, not sha256:{sha256}")])
    if (there := services.assets.find(tenant, found)) is None:
        try:
            facts = describe_picture(content)
            with _DECODING:
                read_picture(content)
        except PictureError as error:
            raise refuse([Problem("", f"the file {error}")]) from error
    now, quota = services.clock(), services.config.assets
    asset = there or Asset(
        tenant=tenant, sha256=found, media_type=facts.media_type, bytes=len(content), width=facts.width,
        height=facts.height, created_at=now, used_at=now,
    )  # fmt: skip
    try:
        kept = services.assets.add(asset, content, AssetQuota(quota.files_per_tenant, quota.bytes_per_tenant))
    except TooManyAssets as error:
        raise ApiError(409, str(error), code="too_many_assets") from error
    return Kept(kept, was_there=there is not None)


def keep_piece(services: Services, tenant: str, sha256: str, piece: bytes, *, offset: int, total: int) -> Kept | int:
    """Keep a piece of a file; the file itself with its last piece, else how many bytes are here by now.

    Pieces come in order; one that is here already changes nothing. Raises ApiError 409 for one that leaves a gap, with
    the offset to go on from, and for more files at once than may be.
    """
    if (there := services.assets.find(tenant, sha256)) is not None:
        return Kept(there, was_there=True)
    received = received_bytes(services, tenant, sha256)
    if offset > received or offset + len(piece) > total or not piece:
        detail = f"{received} bytes of {total} are here: the next piece begins there and is not empty"
        raise ApiError(409, detail, code="wrong_offset", headers={"Upload-Offset": str(received)})
    if received == 0 and _num_uploads(services, tenant) >= MAX_UPLOADS:
        raise ApiError(409, f"{MAX_UPLOADS} files are on their way already; finish one", code="too_many_uploads")
    if offset == received:
        services.artifacts.put(upload_artifact(tenant, sha256, offset), piece)
        received += len(piece)
    if received < total:
        return received
    whole = b"".join(_pieces(services, tenant, sha256))
    try:
        return keep_asset(services, tenant, whole, sha256)
    finally:
        services.artifacts.delete_folder(uploads_folder(tenant, sha256))


def received_bytes(services: Services, tenant: str, sha256: str) -> int:
    """Bytes from a file's start that have come in pieces."""
    pieces = services.artifacts.list(uploads_folder(tenant, sha256))
    sizes = {int(piece.key.rpartition("/")[2]): piece.bytes for piece in pieces}
    received = 0
    while received in sizes:
        received += sizes[received]
    return received


def _pieces(services: Services, tenant: str, sha256: str) -> list[bytes]:
    pieces: list[bytes] = []
    while True:
        try:
            pieces.append(services.artifacts.get(upload_artifact(tenant, sha256, sum(map(len, pieces)))))
        except ArtifactMissing:
            return pieces


def _num_uploads(services: Services, tenant: str) -> int:
    return len({info.key.rpartition("/")[0] for info in services.artifacts.list(uploads_folder(tenant))})
