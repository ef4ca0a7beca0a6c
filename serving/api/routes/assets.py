"""/v1/assets: pictures that storyboards name. Known by their bytes, so that sending one twice changes nothing."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from serving.api.answer import Deleted, respond
from serving.api.assets import keep_asset, keep_piece, received_bytes
from serving.api.caller import AnyCaller, Caller
from serving.api.errors import ApiError, not_found, refuse
from serving.api.media import Media, send_media
from serving.api.repeats import TheRequest, answer_once
from serving.api.services import Services, TheServices
from serving.api.wire.assets import Asset, AssetPage, Upload
from serving.api.wire.openapi import asset_body, binary, failures
from serving.documents.places import show
from serving.errors import Problem
from serving.pictures.reading import MAX_PICTURE_BYTES
from serving.settings import MAX_LIST
from serving.store import assets as stored
from serving.store.artifact_keys import asset_artifact
from serving.store.audit import AuditEntry
from serving.storyboard.schema import asset_of

router = APIRouter(tags=["assets"])

AssetId = Annotated[str, Path(max_length=80, description="sha256: and 64 hexadecimal digits.")]

_Wanted = Annotated[
    str | None, Query(max_length=80, description="The id that its bytes must have; needed for pieces.", alias="id")
]


@router.post(
    "/v1/assets",
    status_code=201,
    summary="Send a picture",
    response_model=Asset | Upload,
    openapi_extra=asset_body(),
    responses={200: {"model": Asset, "description": "It was there."}, 202: {"model": Upload}, **failures(409)},
)
def send_asset(
    caller: AnyCaller,
    incoming: TheRequest,
    services: TheServices,
    wanted: _Wanted = None,
    offset: Annotated[int | None, Query(ge=0, le=MAX_PICTURE_BYTES, description="Of a piece, in bytes.")] = None,
    total: Annotated[int | None, Query(ge=1, le=MAX_PICTURE_BYTES, description="Bytes of the whole file.")] = None,
) -> Response:
    """PNG, JPEG, WebP or AVIF, as the body. A large one is sent in pieces: with `id`, `total` and the `offset` of each,
    in order; after an interruption `HEAD` of the id says where to go on (`Upload-Offset`). It is kept for the caller's
    tenant until nobody has used it for `retention.assets_days`."""
    sha256 = _hash_asked("id", wanted)
    if (offset is None) != (total is None) or (offset is not None and sha256 is None):
        raise refuse([Problem("offset", "pieces need id, total and offset together")])
    if offset is None or total is None or sha256 is None:
        kept = keep_asset(services, caller.tenant, incoming.body, sha256)
        status = 200 if kept.was_there else 201
        return answer_once(services, incoming.record, lambda: Asset.of(kept.asset), status=status)
    whole = keep_piece(services, caller.tenant, sha256, incoming.body, offset=offset, total=total)
    if isinstance(whole, int):
        return respond(Upload(id=f"sha256:{sha256}", received=whole, total=total), 202)
    return respond(Asset.of(whole.asset), 200 if whole.was_there else 201)


@router.get("/v1/assets", summary="List pictures")
def list_assets(
    caller: AnyCaller,
    services: TheServices,
    after: Annotated[str | None, Query(max_length=80, description="`last_id` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
) -> AssetPage:
    """The caller's assets, by hash."""
    found = services.assets.list(tenant=caller.tenant, after=_hash_asked("after", after), limit=limit + 1)
    return AssetPage.of([Asset.of(asset) for asset in found[:limit]], has_more=len(found) > limit)


@router.head("/v1/assets/{asset_id}", summary="Ask whether a picture is there", responses=failures(404))
def ask_for_asset(asset_id: AssetId, caller: AnyCaller, services: TheServices) -> Response:
    """200 if it is there; else 404, with `Upload-Offset` if some of it was sent."""
    sha256 = _hash_in(asset_id)
    asset = services.assets.find(caller.tenant, sha256)
    if asset is not None:
        return Response(headers={"Content-Length": str(asset.bytes)}, media_type=asset.media_type)
    received = received_bytes(services, caller.tenant, sha256)
    raise ApiError(
        404, f"there is no {asset_id}", code="not_found", headers={"Upload-Offset": str(received)} if received else {}
    )


@router.get("/v1/assets/{asset_id}", summary="Fetch a picture", responses=binary("image/png", "image/jpeg"))
def fetch_asset(asset_id: AssetId, request: Request, caller: AnyCaller, services: TheServices) -> Response:
    """The bytes as they were sent."""
    asset = _find(services, caller, asset_id)
    name = f"{asset.sha256[:12]}.{asset.media_type.removeprefix('image/')}"
    media = Media(asset_artifact(asset.tenant, asset.sha256), asset.media_type, name)
    return send_media(request, services.artifacts, media)


@router.delete("/v1/assets/{asset_id}", summary="Delete a picture", responses=failures(404, 409))
def delete_asset(asset_id: AssetId, caller: AnyCaller, services: TheServices) -> Deleted:
    """Removes it, unless a job that is not over names it. What was rendered from it stays."""
    asset = _find(services, caller, asset_id)
    services.assets.delete(asset.tenant, asset.sha256)
    services.audit.add(AuditEntry(services.clock(), asset.tenant, caller.actor, "delete_asset", asset_id))
    return Deleted(id=asset_id, object="asset.deleted")


def _find(services: Services, caller: Caller, asset_id: str) -> stored.Asset:
    """The caller's asset. Raises ApiError 404, the same for what another tenant has."""
    asset = services.assets.find(caller.tenant, _hash_in(asset_id))
    if asset is None:
        raise not_found(f"asset {asset_id}")
    return asset


def _hash_asked(name: str, asset_id: str | None) -> str | None:
    """The hash in a parameter. Raises ApiError 422 for what cannot be an asset's id."""
    if asset_id is None:
        return None
    if (sha256 := asset_of(asset_id)) is None:
        raise refuse([Problem(name, "must be sha256: and 64 hexadecimal digits", value=show(asset_id))])
    return sha256


def _hash_in(asset_id: str) -> str:
    """Raises ApiError 404 for what cannot be an asset's id."""
    if (sha256 := asset_of(asset_id)) is None:
        raise not_found(f"asset {asset_id[:80]!r}: an id is sha256: and 64 hexadecimal digits")
    return sha256
