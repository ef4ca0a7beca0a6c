"""What the fake API server refuses, in the form that a real one gives it: a Status."""

from collections.abc import Sequence

from testkit.json_object import Json


class Refusal(Exception):
    """Becomes an HTTP answer."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        causes: Sequence[Json] = (),
        details: Json | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.retry_after_s = code, reason, message, retry_after_s
        self.details = dict(details or {})
        if causes:
            self.details["causes"] = list(causes)
        if retry_after_s is not None:
            self.details["retryAfterSeconds"] = retry_after_s

    def status(self) -> Json:
        status: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        status |= {"message": self.message, "reason": self.reason, "code": self.code}
        return status | ({"details": self.details} if self.details else {})


def bad_request(message: str) -> Refusal:
    return Refusal(400, "BadRequest", message)


def not_found(plural: str, group: str, name: str) -> Refusal:
    what = f"{plural}.{group}" if group else plural
    details = {"name": name, "group": group, "kind": plural}
    return Refusal(404, "NotFound", f'{what} "{name}" not found', details=details)


def no_such_path() -> Refusal:
    return Refusal(404, "NotFound", "the server could not find the requested resource")


def conflict(plural: str, group: str, name: str, why: str = "") -> Refusal:
    what = f"{plural}.{group}" if group else plural
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    details = {"name": name, "group": group, "kind": plural}
    message = f'Operation cannot be fulfilled on {what} "{name}": {why}'
    return Refusal(409, "Conflict", message, details=details)


def invalid(kind: str, group: str, name: str, problems: Sequence[tuple[str, str]]) -> Refusal:
    """`problems`: path of a field and what is wrong with it."""
    what = f"{kind}.{group}" if group else kind
    told = [f"{path}: {text}" for path, text in problems]
    text = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    causes = [{"reason": "FieldValueInvalid", "message": text, "field": path} for path, text in problems]
    details = {"name": name, "group": group, "kind": kind}
    return Refusal(422, "Invalid", f'{what} "{name}" is invalid: {text}', causes=causes, details=details)


def expired(version: int, floor: int) -> Refusal:
    return Refusal(410, "Expired", f"too old resource version: {version} ({floor})")


def forbidden(verb: str, plural: str, group: str, name: str) -> Refusal:
    what = f"{plural}.{group}" if group else plural
    message = f'{what} "{name}" is forbidden: User "test" cannot {verb} resource "{plural}" in API group "{group}"'
    return Refusal(403, "Forbidden", message, details={"name": name, "group": group, "kind": plural})
