"""/v1/links: a link to a file that an element of a page, or anybody without a key, can load for a while."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from serving.api.answer import Answer, respond
from serving.api.caller import AnyCaller
from serving.api.errors import not_found, refuse
from serving.api.links import LINKED, Links
from serving.api.routes.jobs import find_job
from serving.api.services import TheServices
from serving.api.wire.openapi import failures
from serving.errors import Problem

router = APIRouter(tags=["media"])

LINKABLE = (
    "must be the path of a job's film, manifest, thumbnail or spritesheet, of a take's head or preview, or of an asset"
)


class Link(Answer):
    """A URL of one file."""

    object: Literal["link"] = "link"
    url: str = Field(description="Below the address of the API. Works for GET and HEAD of this file alone.")
    expires_at: int | None = Field(description="Unix seconds at which it ends; null on a farm without keys.")


@router.get("/v1/links", summary="Link to a file", response_model=Link, responses=failures(404))
def link(
    caller: AnyCaller,
    services: TheServices,
    path: Annotated[str, Query(max_length=200, examples=["/v1/jobs/job_1/film"], description="As a job names it.")],
) -> Response:
    """A URL by which one file can be fetched for an hour without a key: for players and pictures in a page, which
    cannot send one. Whoever has the URL can fetch the file, so treat it like the file. It ends early if the key that
    asked for it is revoked. A farm without keys answers the path itself."""
    found = LINKED.fullmatch(path)
    if found is None:
        raise refuse([Problem("path", LINKABLE, value=path[:100])])
    if found["job"] is not None:
        find_job(services, caller, found["job"])
    elif services.assets.find(caller.tenant, found["asset"]) is None:
        raise not_found(f"asset sha256:{found['asset']}")
    url, ends_at = path, None
    if caller.key_id is not None:
        url, ends_at = Links(services.keys, services.clock).sign(path, caller.key_id)
    return respond(Link(url=url, expires_at=ends_at), headers={"Cache-Control": "no-store"})
