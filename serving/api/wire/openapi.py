"""The OpenAPI document beyond what routes say of themselves: tags, errors, bodies that routes read by hand."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.api.errors import PROBLEM_TYPE, VIDEOS
from serving.api.problem_document import OpenAIError, ProblemDocument
from serving.api.wire import requests
from serving.storyboard import Storyboard

DESCRIPTION = """ Longtake renders films longer than any model can hold. Post a storyboard to `/v1/jobs`, watch
`/v1/jobs/{id}/events`, fetch `/v1/jobs/{id}/film`. Programs written for OpenAI's video API work unchanged on
`/v1/videos`.

* Times are unix seconds. Links in answers are paths: follow them, build none.
* A 2xx answer to a POST means that what was asked for is stored.
* Every POST takes an `Idempotency-Key`: the same key and body give the same answer and act once.
* Errors are RFC 9457 problem documents, and of OpenAI's shape on `/v1/videos`.
"""

TAGS = [
    {"name": "jobs", "description": "Films: submit, watch, steer, revise."},
    {"name": "media", "description": "What was rendered; ranges, ETag and HEAD are served."},
    {"name": "assets", "description": "Pictures that storyboards name. A tenant sees its own alone."},
    {"name": "videos", "description": "OpenAI's video API. `shots` is ours; a paused job reads in_progress."},
    {"name": "farm", "description": "Models, pools, prices, usage, health."},
    {"name": "access", "description": "Keys, tenants, webhooks, the audit log."},
]

_TEXTS = {
    400: "The request cannot be read.",
    401: "An API key is needed.",
    403: "Not allowed.",
    404: "There is no such thing, or it is another tenant's.",
    409: "Its status does not allow that; `allowed` names what it does.",
    413: "The body is too large.",
    415: "Neither JSON nor YAML.",
    416: "No such range of bytes.",
    422: "Refused; `problems` names everything that is wrong.",
    429: "Too many requests, or too much is waiting; see Retry-After.",
    431: "The headers are too large.",
    503: "A part of the farm cannot be reached; see Retry-After.",
}

Responses = dict[int | str, dict[str, Any]]

EVENT_STREAM: dict[str, Any] = {
    "description": "`snapshot` (the job), then `change` (an event, with its id) and `progress` (the job, without id).",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'id: 17\nevent: snapshot\ndata: {"id":"job_...","status":"in_progress"}\n\n',
        }
    },
}

METRICS: dict[str, Any] = {
    "description": "Prometheus' text format.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


def failures(*statuses: int) -> Responses:
    """How these errors are answered, for a route's documentation."""
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {status: {"description": _TEXTS[status], "content": content} for status in statuses}


EVERYWHERE = failures(400, 401, 403, 413, 422, 429, 431, 503)
"""What any route may answer."""


def binary(*types: str) -> Responses:
    """A file, whole or in part, for a route's documentation."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in types}
    return {
        200: {"description": "The file.", "content": content},
        206: {"description": "The range that was asked for.", "content": content},
        304: {"description": "The client has it already."},
        **failures(404, 416),
    }


def job_body() -> dict[str, Any]:
    """The body of requests that carry a storyboard."""
    yaml: dict[str, Any] = {
        "schema": {"type": "string"},
        "example": "version: 1\nshots:\n  - id: ball\n    prompt: a red ball rolls\n    seconds: 2\n",
    }
    json = {"schema": {"$ref": "#/components/schemas/NewJob"}, "examples": _examples(requests.NewJob)}
    content = {"application/json": json, "application/yaml": yaml}
    return {"requestBody": {"required": True, "content": content}}


def asset_body() -> dict[str, Any]:
    """The body that is a picture."""
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"required": True, "description": "Of any content type.", "content": content}}


def storyboard_answer() -> Responses:
    """A storyboard in either of its forms."""
    content = {
        "application/json": {"schema": {"$ref": "#/components/schemas/Storyboard"}},
        "application/yaml": {"schema": {"type": "string"}},
    }
    return {200: {"description": "The storyboard.", "content": content}, **failures(404)}


def video_body(model: type[BaseModel]) -> dict[str, Any]:
    """The body that makes a video, in either of its forms."""
    schema = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    content = {"application/json": schema | {"examples": _examples(model)}, "multipart/form-data": schema}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    components = document.setdefault("components", {})
    schemas_there = components.setdefault("schemas", {})
    own = _own_schemas()
    assert not [name for name in own if name in schemas_there and schemas_there[name] != own[name]], "two of one name"
    schemas_there.update(own)
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "Not needed by a farm on loopback alone."}
    }
    document["security"] = [{"key": []}, {}]
    for path, operations in document["paths"].items():
        if path.startswith(VIDEOS):
            _use_openai_errors(operations)
    return document


def _own_schemas() -> dict[str, Any]:
    _, found = models_json_schema(
        [
            (ProblemDocument, "serialization"),
            (OpenAIError, "serialization"),
            (requests.NewJob, "validation"),
            (requests.NewVideo, "validation"),
            (requests.RemixedVideo, "validation"),
            (Storyboard, "validation"),
        ],
        ref_template="#/components/schemas/{model}",
    )
    own: dict[str, Any] = found["$defs"]
    return own


def _examples(model: Any) -> dict[str, Any]:
    examples = model.model_config["json_schema_extra"]["examples"]
    return {f"example {number}": {"value": value} for number, value in enumerate(examples, 1)}


def _use_openai_errors(operations: dict[str, Any]) -> None:
    shape = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
    for operation in operations.values():
        for response in operation["responses"].values():
            if PROBLEM_TYPE in response.get("content", {}):
                response["content"] = shape
