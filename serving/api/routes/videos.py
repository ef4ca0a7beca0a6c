"""/v1/videos: OpenAI's video API over the same jobs, so that its clients work unchanged. Fields, states and errors are
theirs; what is ours is any length and size, `shots`, `seed` and `quality`.

A video is one take, however long: beyond the model's window it is what Longtake is for. Deleting one that is not done
cancels it first, because there is no other way to.
"""

import base64
import hashlib
import json
import re
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.formparsers import MultiPartException
from starlette.responses import Response

from serving.api.answer import respond
from serving.api.assets import keep_asset
from serving.api.caller import AnyCaller, Caller
from serving.api.errors import ApiError, not_found, refuse
from serving.api.media import send_media
from serving.api.repeats import REPLAYED, name_request
from serving.api.routes.files import film_media
from serving.api.routes.jobs import find_job
from serving.api.services import Poker, Services, ThePoker, TheServices
from serving.api.submitting import Order, accept
from serving.api.wire.forms import fields_of_form
from serving.api.wire.openapi import binary, failures, video_body
from serving.api.wire.reading import JSON_TYPE, check, read_json, read_storyboard
from serving.api.wire.requests import REFUSED, InputReference, JobOptions, NewVideo, RemixedVideo
from serving.api.wire.videos import STATES, OpenAIVideo, VideoDeleted, VideoList, poll_after_ms, remixed, storyboard_of
from serving.documents.places import show
from serving.errors import Problem
from serving.jobs.admission import open_known_model
from serving.settings import MAX_IDEMPOTENCY_KEY_CHARS, MAX_LIST
from serving.store.records import ENDED, IdempotencyRecord, Job, JobStatus
from serving.storyboard import Storyboard

MAX_FORM_FIELDS = 32
"""Fields of a multipart form on /v1/videos."""

MAX_FIELD_BYTES = 32 << 20
"""Bytes of one field, which may be a picture in base64; the gate bounds the whole."""


router = APIRouter(tags=["videos"])

_DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,")

_VARIANTS = {"video": "film", "thumbnail": "thumbnail", "spritesheet": "spritesheet"}

_IDEMPOTENCY = Annotated[str | None, Header(max_length=MAX_IDEMPOTENCY_KEY_CHARS)]


async def read_fields(request: Request) -> dict[str, Any]:
    """The fields of a JSON body or a form. Raises ApiError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON_TYPE:
        value = read_json(await request.body())
        if not isinstance(value, dict):
            raise refuse([Problem("", "the body must be an object")])
        return value
    if kind != "multipart/form-data":
        raise ApiError(415, f"send {JSON_TYPE} or multipart/form-data", code="unknown_content_type")
    try:
        async with request.form(max_files=1, max_fields=MAX_FORM_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
            items = [(name, one if isinstance(one, str) else await one.read()) for name, one in form.multi_items()]
            return fields_of_form(items)
    except (MultiPartException, ValueError) as error:
        raise ApiError(400, "the form cannot be read", code="invalid_form") from error


@router.post(
    "/v1/videos",
    summary="Create a video",
    response_model=OpenAIVideo,
    openapi_extra=video_body(NewVideo),
    responses=failures(409, 415),
)
async def create_video(
    caller: AnyCaller,
    services: TheServices,
    poker: ThePoker,
    fields: Annotated[dict[str, Any], Depends(read_fields)],
    idempotency_key: _IDEMPOTENCY = None,
) -> Response:
    """A prompt and a length, or `shots` as in a storyboard. `seconds` may be any up to the limit of a shot. Fields of
    other video servers are taken if their meaning is plain, and else refused with the reason. `input_reference` is the
    picture that the video begins with."""
    content = json.dumps(fields, sort_keys=True, default=_digest).encode()
    record = name_request(caller.tenant, "POST /v1/videos", idempotency_key, content)
    return await run_in_threadpool(
        lambda: _make_video(services, poker, caller, _order(services, caller, fields), record)
    )


@router.post(
    "/v1/videos/{video_id}/remix",
    summary="Render a video with another prompt",
    response_model=OpenAIVideo,
    openapi_extra=video_body(RemixedVideo),
    responses=failures(404, 409, 415),
)
async def remix_video(
    video_id: str,
    caller: AnyCaller,
    services: TheServices,
    poker: ThePoker,
    fields: Annotated[dict[str, Any], Depends(read_fields)],
    idempotency_key: _IDEMPOTENCY = None,
) -> Response:
    """The next version of a video of one shot: the same seed, length and picture, another prompt. The video that it is
    made from stays, in whatever state it is."""
    content = json.dumps(fields, sort_keys=True, default=_digest).encode()
    record = name_request(caller.tenant, f"POST /v1/videos/{video_id}/remix", idempotency_key, content)

    def work() -> Response:
        previous = _find_video(services, caller, video_id)
        storyboard = read_storyboard(remixed(previous.storyboard, check(RemixedVideo, fields).prompt))
        order = Order(storyboard, JobOptions(), kind=previous.kind, previous=previous)
        return _make_video(services, poker, caller, order, record)

    return await run_in_threadpool(work)


@router.get("/v1/videos", summary="List videos")
def list_videos(
    caller: AnyCaller,
    services: TheServices,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> VideoList:
    """Videos by creation."""
    found = services.jobs.list(
        tenant=caller.scope, kind="video", after=after, limit=limit + 1, newest_first=order == "desc"
    )
    data = [OpenAIVideo.of(job, services.config, is_admin=caller.is_admin) for job in found[:limit]]
    return VideoList.of(data, has_more=len(found) > limit)


@router.get("/v1/videos/{video_id}", summary="Retrieve a video", response_model=OpenAIVideo, responses=failures(404))
def retrieve_video(video_id: str, caller: AnyCaller, services: TheServices) -> Response:
    """The video as it is now; the header openai-poll-after-ms says when it is worth asking again."""
    return _answer(services, caller, _find_video(services, caller, video_id))


@router.delete("/v1/videos/{video_id}", summary="Delete a video", responses=failures(404))
def delete_video(video_id: str, caller: AnyCaller, services: TheServices, poker: ThePoker) -> VideoDeleted:
    """Hides it for good; one that is not done is cancelled first."""
    job = _find_video(services, caller, video_id)
    now = services.clock()
    who: Any = {"actor": caller.actor, "now": now, "tenant": caller.scope}
    if job.status not in ENDED:
        services.lifecycle.apply(video_id, "cancel", reason="deleted before it was done", **who)
    services.jobs.delete(video_id, **who)
    poker.poke()
    return VideoDeleted(id=video_id)


@router.get(
    "/v1/videos/{video_id}/content",
    summary="Download a video",
    responses=binary("video/mp4", "image/jpeg"),
)
@router.head("/v1/videos/{video_id}/content", include_in_schema=False)
def video_content(
    video_id: str,
    request: Request,
    caller: AnyCaller,
    services: TheServices,
    variant: Literal["video", "thumbnail", "spritesheet"] = "video",
) -> Response:
    """The film, a picture of it, or many small ones."""
    job = _find_video(services, caller, video_id)
    if job.status != JobStatus.COMPLETED:
        detail = f"video {video_id} has no content yet: it is {STATES[job.status]}"
        raise ApiError(409, detail, code="video_not_ready")
    return send_media(request, services.artifacts, film_media(job, _VARIANTS[variant]))


def _make_video(
    services: Services, poker: Poker, caller: Caller, order: Order, record: IdempotencyRecord | None
) -> Response:
    made = accept(services, poker, caller, order, record=record)
    return _answer(services, caller, made.job, headers=REPLAYED if made.replayed else {})


def _digest(content: bytes) -> str:
    """What a file of a form is known by in its request's record."""
    return hashlib.sha256(content).hexdigest()


def _order(services: Services, caller: Caller, fields: dict[str, Any]) -> Order:
    refused = [Problem(name, REFUSED[name]) for name, value in fields.items() if name in REFUSED and value is not None]
    if refused:
        raise refuse(refused)
    picture = fields.get("input_reference")
    if isinstance(picture, bytes):
        fields = {**fields, "input_reference": _keep_picture(services, caller, picture)}
    wanted = check(NewVideo, {name: value for name, value in fields.items() if name not in REFUSED})
    if isinstance(wanted.input_reference, InputReference):
        asset_id = _find_picture(services, caller, wanted.input_reference)
        wanted = wanted.model_copy(update={"input_reference": asset_id})
    default_model = services.config.pools[0].model
    storyboard = read_storyboard(storyboard_of(wanted, default_model=default_model, fps_of=_fps_of))
    options: dict[str, Any] = {"steps": wanted.num_inference_steps, "tags": wanted.tags or None}
    given = JobOptions(**{name: value for name, value in options.items() if value is not None})
    return Order(_with_size(services, storyboard), given, kind="video")


def _find_picture(services: Services, caller: Caller, reference: InputReference) -> str:
    """The asset that a reference means. Raises ApiError."""
    if (reference.file_id is None) == (reference.image_url is None):
        raise refuse([Problem("input_reference", "must have either file_id or image_url")])
    if reference.file_id is not None:
        return reference.file_id
    match = _DATA_URL.match(str(reference.image_url))
    if match is None:
        message = "must be a data: URL of an image in base64; the farm fetches no addresses: send the picture itself"
        raise refuse([Problem("input_reference.image_url", message, value=show(reference.image_url))])
    try:
        content = base64.b64decode(str(reference.image_url)[match.end() :], validate=True)
    except ValueError as error:
        raise refuse([Problem("input_reference.image_url", "is not base64")]) from error
    return _keep_picture(services, caller, content)


def _keep_picture(services: Services, caller: Caller, content: bytes) -> str:
    """The id of a picture that came with the request. Raises ApiError."""
    try:
        return f"sha256:{keep_asset(services, caller.tenant, content).asset.sha256}"
    except ApiError as error:
        if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            raise
        raise refuse([Problem("input_reference", problem.message) for problem in error.problems]) from error


def _fps_of(model: str) -> int:
    """Frames per second of a model's films. Raises ModelError."""
    return open_known_model(model).capabilities.fps


def _with_size(services: Services, storyboard: Storyboard) -> Storyboard:
    """The same with its size written down, so that it can be told at any time."""
    if storyboard.video.width is not None:
        return storyboard
    plan = services.admission.plan(storyboard, pool=None, steps=None, due_at=None, now=services.clock()).plan
    video = storyboard.video.model_copy(update={"width": plan.width, "height": plan.height})
    return storyboard.model_copy(update={"video": video})


def _find_video(services: Services, caller: Caller, video_id: str) -> Job:
    job = find_job(services, caller, video_id)
    if job.kind != "video":
        raise not_found(f"video {video_id}")
    return job


def _answer(services: Services, caller: Caller, job: Job, *, headers: dict[str, str] | None = None) -> Response:
    poll = {"openai-poll-after-ms": str(poll_after_ms(job, services.clock()))}
    video = OpenAIVideo.of(job, services.config, is_admin=caller.is_admin)
    return respond(video, headers=poll | (headers or {}))
