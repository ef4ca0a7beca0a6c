"""How every failure is answered: a problem document (RFC 9457) on native routes, OpenAI's shape on /v1/videos.

ApiError is what routes raise; `install` also catches what the rest of the farm raises, and what FastAPI and Starlette
answer by themselves: unknown routes, wrong methods, bodies that do not fit.
"""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serving.api import problem_document as document
from serving.api.answer import respond, shown
from serving.documents.places import find_nearest, show, write_path
from serving.errors import (
    ArtifactMissing,
    Fault,
    IdempotencyBusy,
    IdempotencyConflict,
    ModelError,
    NotFound,
    Problem,
    StoryboardError,
    UserError,
    WrongState,
)

log = logging.getLogger(__name__)

VIDEOS = "/v1/videos"
"""Below this path errors have OpenAI's shape."""

PROBLEM_TYPE = "application/problem+json"

RETRY_FAULT_S = 5
"""Seconds after which a client may try again what failed because a part of the farm was not there."""

_TITLES = {
    400: "The request cannot be read",
    401: "An API key is needed",
    403: "Not allowed",
    404: "Not found",
    405: "Wrong method",
    409: "Not possible now",
    413: "The request is too large",
    415: "Unknown kind of content",
    416: "No such range of bytes",
    422: "The request cannot be accepted",
    429: "Too many requests",
    431: "The headers are too large",
    500: "Something of ours failed",
    503: "A part of the farm cannot be reached",
}

_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""OpenAI's names for kinds of errors; others are invalid_request_error, from 500 on server_error."""

_PARAMETERS = {"video": "size", "shots": "shots", "model": "model", "pool": "model"}
"""The parameter of /v1/videos that a part of the storyboard came from."""


_WORDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be an object"),
    **dict.fromkeys(("string_type", "string_unicode"), "must be text"),
    "list_type": "must be a list",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "may have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "may have at most {max_length} entries",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}
"""What pydantic's kinds of errors are called here."""


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str,
        problems: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
        allowed: Sequence[str] | None = None,
    ) -> None:
        """`allowed` names what the job can be asked to do instead."""
        self.status = status
        self.detail = detail
        self.code = code
        self.problems = tuple(problems)
        self.headers = dict(headers or {})
        self.allowed = allowed
        super().__init__(detail)

    @property
    def shown_problems(self) -> list[document.Problem]:
        """The problems as they are answered."""
        return [document.Problem.model_validate(problem) for problem in self.problems]


def not_found(what: str) -> ApiError:
    """The same answer for what is not there and what is another tenant's."""
    return ApiError(404, f"there is no {what}", code="not_found")


def refuse(problems: Sequence[Problem]) -> ApiError:
    """422 with everything that is wrong."""
    detail = str(problems[0]) if len(problems) == 1 else f"{len(problems)} problems"
    return ApiError(422, detail, code="invalid_request", problems=problems)


def explain(detail: Any, known: Sequence[str] = ()) -> Problem:
    """One of pydantic's errors in a person's words. `known` are the keys that the whole may have."""
    place = tuple(part for part in detail["loc"] if isinstance(part, str | int) and part != "[key]")
    path, kind = write_path(place), detail["type"]
    if kind == "extra_forbidden":
        words = f"is not known here; known are {', '.join(known)}" if known else "is not known here"
        return Problem(path, words, nearest=find_nearest(place[-1], known))
    if kind == "missing":
        return Problem(path, "is missing")
    if kind in _WORDS:
        return Problem(path, _WORDS[kind].format(**detail.get("ctx", {})), value=show(detail["input"]))
    message = detail["msg"].removeprefix("Value error, ")
    return Problem(path, f"{message[:1].lower()}{message[1:]}", value=show(detail["input"]))


def answer_error(error: ApiError, path: str) -> Response:
    """The answer to a request for `path`."""
    if path == VIDEOS or path.startswith(f"{VIDEOS}/"):
        return respond(document.OpenAIError(error=_openai_error(error)), _openai_status(error), error.headers)
    return respond(_problem_document(error), error.status, error.headers, media_type=PROBLEM_TYPE)


def _problem_document(error: ApiError) -> document.ProblemDocument:
    """What a refused request is answered on native routes."""
    return document.ProblemDocument(
        title=_TITLES.get(error.status) or HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        code=error.code,
        problems=error.shown_problems or None,
        allowed=None if error.allowed is None else list(error.allowed),
    )


def install(app: FastAPI, routes: Sequence[APIRoute]) -> None:
    """Have the application answer every failure this way. `routes` are all that it has."""

    async def answer(request: Request, error: Exception) -> Response:
        caller = getattr(request.state, "caller", None)
        found = as_api_error(error, is_admin=caller is not None and caller.is_admin)
        if found.status == 405:  # Starlette names the methods of the first route alone
            fitting = (route.methods for route in routes if route.path_regex.match(request.url.path))
            found.headers["Allow"] = ", ".join(sorted({method for methods in fitting for method in methods or ()}))
        return answer_error(found, request.url.path)

    for kind in (ApiError, UserError, Fault, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def as_api_error(error: Exception, *, is_admin: bool = False) -> ApiError:
    """What any exception means to a client. Only an administrator is told paths and addresses of the farm's."""
    match error:
        case ApiError():
            return error
        case StoryboardError():
            return refuse(error.problems)
        case NotFound():
            return ApiError(404, str(error), code="not_found")
        case WrongState():
            return ApiError(409, str(error), code="wrong_state", allowed=error.allowed)
        case IdempotencyConflict():
            return ApiError(422, str(error), code="idempotency_conflict")
        case IdempotencyBusy():
            return ApiError(409, str(error), code="idempotency_busy", headers={"Retry-After": "1"})
        case ModelError():
            return refuse([Problem("model", shown(str(error), is_admin=is_admin))])
        case UserError():
            return refuse([Problem("", str(error))])
        case ArtifactMissing():
            return ApiError(404, "it is not there, or no longer", code="not_found")
        case Fault():
            log.warning("answered 503: %s", error, extra={"action": "refuse"})
            headers = {"Retry-After": str(RETRY_FAULT_S)}
            detail = shown(str(error), is_admin=is_admin)
            return ApiError(503, detail, code="unavailable", headers=headers)
        case RequestValidationError():
            return _unfit(error)
        case HTTPException():
            return _of_starlette(error)
        case _:
            log.error("unexpected: %s", error, exc_info=error, extra={"action": "fail"})
            return ApiError(500, "an error that nobody expected; it is in the log of the Api", code="internal")


def _unfit(error: RequestValidationError) -> ApiError:
    """pydantic's errors in our words; what is not JSON at all cannot be read."""
    details = error.errors()
    if any(detail["type"] == "json_invalid" for detail in details):
        return ApiError(400, "the body is not JSON", code="invalid_json")
    return refuse([explain({**detail, "loc": detail["loc"][1:] or detail["loc"]}) for detail in details])


def _of_starlette(error: HTTPException) -> ApiError:
    if isinstance(error.__cause__, ApiError):  # FastAPI takes whatever the reader of a body raises for its own
        return error.__cause__
    codes = {404: "no_such_route", 405: "wrong_method", 413: "body_too_large"}
    details = {404: "there is no such route; /openapi.json lists them", 405: "this route has other methods: see Allow"}
    detail = details.get(error.status_code, str(error.detail))
    code = codes.get(error.status_code, "bad_request")
    return ApiError(error.status_code, detail, code=code, headers=error.headers)


def _openai_error(error: ApiError) -> document.OpenAIErrorBody:
    kind = "server_error" if error.status >= 500 else _KINDS.get(error.status, "invalid_request_error")
    message = "; ".join(str(problem) for problem in error.problems) or error.detail
    param = _parameter(error.problems[0]) if error.problems else None
    return document.OpenAIErrorBody(message=message, type=kind, param=param, code=error.code)


def _openai_status(error: ApiError) -> int:
    """OpenAI answers 400 where we say 422; and its clients try a 409 again, which cannot help here."""
    return 400 if error.status in (409, 422) and not error.code.startswith("idempotency_") else error.status


def _parameter(problem: Problem) -> str | None:
    if problem.path.startswith("shots[0].") and not problem.path.startswith("shots[0].id"):
        return problem.path.removeprefix("shots[0].")
    first = problem.path.split(".")[0].split("[")[0]
    return _PARAMETERS.get(first, first) or None
