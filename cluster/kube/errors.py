"""Every error of the Kubernetes API, translated once.

KubeError
+-- NoCluster        no usable configuration: nobody to ask
+-- NotFound         404: the object, its kind or its namespace
+-- AlreadyExists    409 on create
+-- Conflict         409: the object moved on, or another manager owns a field
+-- Gone             410: a resourceVersion or a page that is too old; list again
+-- Forbidden        401 and 403: who we are, or what we may
+-- Invalid          400, 413, 415, 422: what we sent is wrong; sending it again does not help
+-- Unavailable      429, 5xx, no connection, no answer in time: a later try may succeed

Only client.py raises them from answers; everyone else catches them.
"""

import json
from collections.abc import Mapping
from typing import Any

MAX_RETRY_AFTER_S = 120.0
"""Seconds; a server that asks for more patience gets this much."""

MAX_MESSAGE_CHARS = 2000
"""Characters of a server's message that are kept."""


class KubeError(Exception):
    """Base of all errors of the Kubernetes API. `status` is the HTTP status, 0 if there was no answer."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        """Kubernetes' word for it, such as AlreadyExists; empty if it gave none."""


class NoCluster(KubeError):
    """There is no kubeconfig and no cluster around us, or what there is cannot be used."""


class NotFound(KubeError):
    """The object, its kind or its namespace is not there."""


class AlreadyExists(KubeError):
    """An object of this name is there already."""


class Conflict(KubeError):
    """The object has changed since it was read, a precondition failed, or another manager owns a field."""

    def __init__(
        self, message: str, *, status: int = 409, reason: str = "Conflict", fields: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, status=status, reason=reason)
        self.fields: Mapping[str, str] = fields or {}
        """Of a refused server-side apply: path of each field in dispute -> what the server says of its owner."""


class Gone(KubeError):
    """A resourceVersion that the server has forgotten."""


class Forbidden(KubeError):
    """Not allowed."""


class Invalid(KubeError):
    """The server will not take this body, however often it is sent."""


class Unavailable(KubeError):
    """No answer, or one that asks to come back."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, status=status, reason=reason)
        self.retry_after_s = retry_after_s
        """Seconds that the server asked to wait, at most MAX_RETRY_AFTER_S; None if it said nothing."""


def error_of(status: int, body: bytes | str, headers: Mapping[str, str], *, what: str) -> KubeError:
    """The error for an answer of `status`. `what` says what was asked, for the message."""
    answer = _status_object(body)
    reason = str(answer.get("reason") or "")
    message = f"{what}: {_message(answer, body)} ({status}{' ' + reason if reason else ''})"
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(message, status=status, reason=reason)
    if status == 409:
        return Conflict(message, reason=reason or "Conflict", fields=_disputed(answer))
    if status == 429 or status >= 500:
        return Unavailable(message, status=status, reason=reason, retry_after_s=_retry_after_s(headers, answer))
    kind = {401: Forbidden, 403: Forbidden, 404: NotFound, 410: Gone}.get(status, Invalid)
    return kind(message, status=status, reason=reason)


def error_of_event(status_object: Mapping[str, Any], *, what: str) -> KubeError:
    """The error for the object of an ERROR event of a watch, which is a Status."""
    code = status_object.get("code")
    return error_of(code if isinstance(code, int) else 500, json.dumps(status_object), {}, what=what)


def _status_object(body: bytes | str) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:  # a proxy in between answers in its own way
        return {}
    return answer if isinstance(answer, dict) else {}


def _message(answer: Mapping[str, Any], body: bytes | str) -> str:
    text = answer.get("message") or (body.decode(errors="replace") if isinstance(body, bytes) else body)
    return str(text).strip()[:MAX_MESSAGE_CHARS] or "no message"


def _disputed(answer: Mapping[str, Any]) -> dict[str, str]:
    causes = (answer.get("details") or {}).get("causes") or []
    return {
        str(cause.get("field", "")): str(cause.get("message", ""))
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
    }


def _retry_after_s(headers: Mapping[str, str], answer: Mapping[str, Any]) -> float | None:
    """From the header, or the Status's details. The header's other form, a date, is not used by API servers."""
    text = headers.get("Retry-After") or (answer.get("details") or {}).get("retryAfterSeconds")
    try:
        return min(MAX_RETRY_AFTER_S, max(0.0, float(text))) if text is not None else None
    except ValueError:
        return None
