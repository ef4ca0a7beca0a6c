"""The farm as client commands see it: its API over HTTP, with the farm's refusals in the words of local commands.

Every POST carries an Idempotency-Key that stays the same when it is tried again, so a retry never does a thing twice.
"""

import ipaddress
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx

from cluster.contract.backoff import Backoff
from serving.cli.output.terminal import warn
from serving.errors import Fault, Problem, UserError
from serving.settings import MAX_LIST, api_key, farm_url, home

CLIENT_RETRY_S = 15.0
"""Seconds for which a client command tries again to reach a farm that does not answer."""

CLIENT_CONNECT_S = 3.0
"""Seconds for which a client command tries to reach a farm that has never answered: usually none runs there."""

CLIENT_BACKOFF = Backoff(first_s=0.1, cap_s=10.0)
"""Between two tries of a client; the farm's Retry-After may ask for more, up to CLIENT_RETRY_S."""

CLIENT_TIMEOUT_S = 60.0
"""Seconds that a client waits for an answer, and for the next event of a stream."""


if TYPE_CHECKING:
    from serving.documents.places import Lines

DEFAULT_URL = "http://127.0.0.1:8000"

Json = dict[str, Any]
Params = Mapping[str, str | int | float | bool | Sequence[str] | None]

_JOB_ID = r"job_[0-9a-z]{22}"

_OPTIONS = {
    "priority": "--priority",
    "due_at": "--due",
    "budget_usd": "--budget",
    "tags": "--tag",
    "pool": "--pool",
    "steps": "--steps",
    "tenant": "--tenant",
}
"""The option that each member of a request stands for; everything else is part of the storyboard."""

_BUSY = (429, 502, 503, 504)
"""Answers after which the same request may be sent again."""


class Refused(UserError):
    """The farm refused a request. `problems` say what is wrong with it, if the farm said so."""

    def __init__(self, detail: str, *, status: int, code: str, problems: Sequence[Problem] = ()) -> None:
        self.status = status
        self.code = code
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems) or detail)


class FarmClient:
    """Requests to one farm. Tries again if the farm is busy or away, for a bounded time."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.url = url
        self._reached = False
        self._http = _open_http(url, headers, transport)
        self._sleep = sleep
        self._now = now

    def close(self) -> None:
        """Gives connections back."""
        self._http.close()

    def get(self, path: str, params: Params | None = None) -> Json:
        """The JSON at a path. Raises Refused, Fault."""
        return self._send("GET", path, params=params)

    def post(self, path: str, body: Json | None = None, params: Params | None = None) -> Json:
        """Does something once, however often it has to be sent. Raises Refused, Fault."""
        return self._send("POST", path, body=body, params=params, headers={"Idempotency-Key": uuid.uuid4().hex})

    def missing_from(self, path: str) -> int | None:
        """None if a file is there; else how many bytes of it are, of an upload that was broken off. Raises Refused,
        Fault."""
        response = self._request("HEAD", path)
        if response.status_code == httpx.codes.NOT_FOUND:
            return int(response.headers.get("Upload-Offset", "0"))
        if response.is_error:
            raise _refusal(response)
        return None

    def upload(self, path: str, content: bytes, params: Params) -> Json:
        """Sends bytes; sent again they change nothing. Raises Refused, Fault."""
        headers = {"Content-Type": "application/octet-stream"}
        return _read(self._request("POST", path, content=content, params=params, headers=headers))

    def patch(self, path: str, body: Json) -> Json:
        """Changes something. Raises Refused, Fault."""
        return self._send("PATCH", path, body=body)

    def put(self, path: str, body: Json) -> Json:
        """Replaces something. Raises Refused, Fault."""
        return self._send("PUT", path, body=body)

    def delete(self, path: str) -> Json:
        """Removes something. Raises Refused, Fault."""
        return self._send("DELETE", path)

    def find_job(self, name: str) -> str:
        """The id of the job that a user means: the id itself, or the end of it. Raises UserError."""
        if re.fullmatch(_JOB_ID, name):
            return name
        if not re.fullmatch(r"[0-9a-z_]{1,30}", name):
            raise UserError(f"JOB: must be a job's id, or the last letters of it (got {name[:60]!r})")
        known = [str(job["id"]) for job in self.get("/v1/jobs", {"limit": MAX_LIST})["data"]]
        found = [job_id for job_id in known if job_id.endswith(name)]
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} jobs" if found else f"none of the last {len(known)} jobs"
        raise UserError(f"JOB: {what} end with {name!r}; `longtake jobs` lists them")

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """An answer whose body is still to be read, sent once. Raises Refused, and httpx's errors as they are."""
        with self._http.stream("GET", path, headers=dict(headers)) as response:
            if response.status_code in _BUSY:
                raise httpx.RemoteProtocolError(f"the farm answered {response.status_code}")
            if response.is_error:
                response.read()
                raise _refusal(response)
            yield response

    def patience(self) -> "Patience":
        """How long to go on trying what was begun."""
        return Patience(self.url, sleep=self._sleep, now=self._now)

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        return _read(self._request(method, path, body=body, params=params, headers=headers))

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        content: bytes | None = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        patience = self.patience()
        while True:
            try:
                response = self._http.request(
                    method, path, json=body, content=content, params=_plain(params), headers=headers
                )
            except httpx.TransportError as error:
                nobody = isinstance(error, httpx.ConnectError) and not self._reached
                patience.wait(error, limit_s=CLIENT_CONNECT_S if nobody else CLIENT_RETRY_S)
                continue
            self._reached = True
            if response.status_code in _BUSY and patience.wait_as_told(response):
                continue
            return response


class Patience:
    """Waits between tries, ever longer, for a bounded time in all."""

    def __init__(self, url: str, *, sleep: Callable[[float], None], now: Callable[[], float]) -> None:
        self._url = url
        self._sleep = sleep
        self._now = now
        self.reset()

    def reset(self) -> None:
        """The farm has answered: the time begins anew with the next failure."""
        self._since: float | None = None
        self._waits = CLIENT_BACKOFF.waits()
        self._next_s = next(self._waits)
        self._said = False

    def wait(self, error: Exception, *, limit_s: float) -> None:
        """Waits before another try. Raises Fault if the farm has been away for `limit_s`."""
        left_s = limit_s if self._since is None else self._since + limit_s - self._now()
        if left_s <= 0 or not self._pause(min(self._next_s, left_s), limit_s):
            raise Fault(_unreachable(self._url, error)) from error

    def wait_as_told(self, response: httpx.Response) -> bool:
        """Waits as long as the farm asks for; False, without waiting, if that is too long."""
        try:
            asked_s = float(response.headers.get("Retry-After", "0"))
        except ValueError:
            asked_s = 0.0
        return self._pause(max(self._next_s, asked_s), CLIENT_RETRY_S)

    def _pause(self, seconds: float, limit_s: float) -> bool:
        now = self._now()
        self._since = now if self._since is None else self._since
        if now + seconds - self._since > limit_s + 1e-6:
            return False
        if self._next_s > 1 and not self._said:
            warn(f"waiting for the farm at {self._url}")
            self._said = True
        self._sleep(seconds)
        self._next_s = next(self._waits)
        return True


@contextmanager
def farm() -> Iterator[FarmClient]:
    """The farm that LONGTAKE_URL names, or the one that this home runs, as whom LONGTAKE_API_KEY says.

    Raises UserError for a URL that is none.
    """
    own = _own_farm()
    own_url = own.url if own is not None else DEFAULT_URL
    url = (farm_url() or own_url).rstrip("/")
    if not _is_web_address(url):
        from serving.errors import hide_secrets

        raise UserError(
            f"LONGTAKE_URL: must begin with http:// or https:// and name a host (got {hide_secrets(url)!r})"
        )
    own_key = own.admin_key if own is not None and own.url == url else None
    client = FarmClient(url, api_key=api_key() or own_key)
    try:
        yield client
    finally:
        client.close()


def name_places(refused: Refused, *, file: str, lines: "Lines") -> UserError:
    """The same refusal as a local command words it: the file and the line of what is wrong in it, else the option."""
    told = []
    for problem in refused.problems:
        option = _OPTIONS.get(problem.path.split("[")[0].split(".")[0])
        if option is not None:
            told.append(f"{option}: {replace(problem, path='')}")
            continue
        told.append(name_place(problem, file=file, lines=lines))
    return UserError("\n".join(told)) if told else refused


def name_place(problem: Problem, *, file: str, lines: "Lines") -> str:
    """A problem of a file as a local command words it, with its line."""
    place = _read_path(problem.path)
    line = lines.of(place) if place and problem.line is None else problem.line
    return f"{file}: {replace(problem, line=line)}"


def _read_path(path: str) -> tuple[str | int, ...]:
    """`shots[2].seconds` as its parts; only its beginning if the rest is not a plain key."""
    found = re.findall(r"([^.\[\]]+)|\[(\d{1,9})\]", path.partition("['")[0])
    return tuple(key or int(index) for key, index in found)


def _open_http(url: str, headers: dict[str, str], transport: httpx.BaseTransport | None) -> httpx.Client:
    """A client that goes through the proxy of the environment, unless the farm is on this machine. Raises UserError for
    a proxy that cannot be used."""
    try:
        return httpx.Client(
            base_url=url,
            headers=headers,
            timeout=CLIENT_TIMEOUT_S,
            transport=transport,
            trust_env=not _is_this_machine(httpx.URL(url).host),
        )
    except (ImportError, ValueError) as error:  # httpx's for SOCKS, and for an address that is none
        told = "the environment names a proxy that cannot be used for it; http:// proxies can"
        raise UserError(f"{url}: {told}; NO_PROXY names hosts that need none") from error


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_web_address(url: str) -> bool:
    try:
        return url.startswith(("http://", "https://")) and bool(httpx.URL(url).host)
    except httpx.InvalidURL:
        return False


@dataclass(frozen=True)
class _OwnFarm:
    """The farm that `longtake up` started on this home, and its administrator's key, if it asks for keys."""

    url: str
    admin_key: str | None


def _own_farm() -> _OwnFarm | None:
    from serving.local_farm.home import FarmHome

    own = FarmHome(home().absolute())
    state = own.read()
    return _OwnFarm(state.address, own.admin_key) if state is not None else None


def _plain(params: Params | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _read(response: httpx.Response) -> Json:
    if response.is_error:
        raise _refusal(response)
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Fault(f"{response.url.copy_with(query=None)} does not answer as a farm does; is LONGTAKE_URL right?")
    return found


def _refusal(response: httpx.Response) -> Exception:
    """The error that an answer stands for: the user's, or a fault of the farm's."""
    try:
        document = response.json()
        assert isinstance(document, dict)
    except (ValueError, AssertionError):
        document = {}
    detail = str(document.get("detail") or f"the farm answered {response.status_code} {response.reason_phrase}")
    if response.status_code >= 500:
        return Fault(detail)
    problems = [_problem(item) for item in document.get("problems") or () if isinstance(item, dict)]
    return Refused(detail, status=response.status_code, code=str(document.get("code", "")), problems=problems)


def _problem(item: Json) -> Problem:
    known = ("path", "message", "value", "nearest", "line")
    return Problem(**{"path": "", "message": "", **{name: item[name] for name in known if name in item}})


def _unreachable(url: str, error: Exception) -> str:
    if isinstance(error, httpx.ConnectError):
        return f"no farm answers at {url}; `longtake up` starts one here, LONGTAKE_URL names another"
    return f"the farm at {url} does not answer: {error}"
