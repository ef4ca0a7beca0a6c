"""Signed links: one file, GET and HEAD, for an hour, without a key."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from serving.api.gate import WRONG_KEYS_PER_MINUTE
from serving.api.links import LINK_LIFE_S
from tests.serving.api.api_double import ApiDouble, running
from tests.serving.api.test_api_document import check

FILM = random.Random(2).randbytes(5000)


@dataclass
class Clock:
    """Unix seconds that stand still until they are moved."""

    now: float = 1_900_000_000.5

    def __call__(self) -> float:
        return self.now


@dataclass
class Locked:
    """A farm that asks for keys, with a finished film of tenant a."""

    api: ApiDouble
    clock: Clock
    job: str = ""
    a: dict[str, str] = field(default_factory=dict)
    b: dict[str, str] = field(default_factory=dict)

    def link(self, what: str = "film", *, by: dict[str, str] | None = None) -> str:
        """A link to a file of the job."""
        path = f"/v1/jobs/{self.job}/{what}"
        answer = self.api.http.get("/v1/links", params={"path": path}, headers=by or self.a).raise_for_status().json()
        check("Link", answer)
        url: str = answer["url"]
        return url


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Locked]:
    clock = Clock()
    with running(tmp_path, clock=clock, auth="on") as api:
        farm = Locked(api, clock, a=api.key("a"), b=api.key("b"))
        api.http.headers.update(farm.a)
        farm.job = api.submit()["id"]
        api.complete(farm.job, FILM)
        del api.http.headers["authorization"]
        yield farm


def refused(answer: httpx.Response, status: int, code: str) -> bool:
    return (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_link_gives_the_file_its_ranges_and_its_head_without_a_key(farm: Locked) -> None:
    url = farm.link()
    http = farm.api.http
    assert http.get(url).content == FILM
    part = http.get(url, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, FILM[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(FILM)}"
    assert http.head(url).headers["content-length"] == str(len(FILM))
    assert http.get(f"{url}&at=7").content == FILM, "a page may name the version that it wants to see"
    assert http.get(farm.link("thumbnail")).content == b"a picture"
    assert http.get(url).headers["referrer-policy"] == "no-referrer"


def test_a_link_ends(farm: Locked) -> None:
    url = farm.link()
    farm.clock.now += LINK_LIFE_S - 1
    assert farm.api.http.get(url).status_code == 200
    farm.clock.now += 1
    assert refused(farm.api.http.get(url), 403, "link_expired")


def test_an_altered_link_is_refused(farm: Locked) -> None:
    url = farm.link()
    path, query = urlsplit(url).path, dict(httpx.URL(url).params)
    changes = [
        {"expires": str(int(query["expires"]) + 1)},
        {"expires": f"0{query['expires']}"},
        {"expires": "never"},
        {"key": f"{query['key']}x"},
        {"key": ""},
        {"signature": ""},
        {"signature": query["signature"][:-1]},
        {"signature": query["signature"].swapcase()},
        {"signature": "é\ufffd"},
    ]
    for change in changes:
        assert refused(farm.api.http.get(path, params={**query, **change}), 403, "invalid_link"), change


def test_a_link_is_for_one_file_and_for_reading(farm: Locked) -> None:
    path, _, query = farm.link().partition("?")
    http = farm.api.http
    for other in (
        f"/v1/jobs/{farm.job}/thumbnail",
        f"/v1/jobs/{farm.job}",
        "/v1/jobs",
        "/v1/keys",
        f"{path}/",
        "/v1/me",
    ):
        assert refused(http.get(f"{other}?{query}"), 403, "invalid_link"), other
    assert refused(http.post(f"/v1/jobs/{farm.job}/cancel?{query}"), 403, "invalid_link")
    assert refused(http.request("DELETE", f"{path}?{query}"), 403, "invalid_link")
    assert http.get(f"/v1/jobs/{farm.job}/film").status_code == 401


def test_a_link_is_made_for_those_alone_who_may_see_the_job(farm: Locked) -> None:
    http = farm.api.http
    where = {"path": f"/v1/jobs/{farm.job}/film"}
    assert http.get("/v1/links", params=where).status_code == 401
    assert http.get("/v1/links", params=where, headers=farm.b).status_code == 404
    assert http.get(farm.link(by=farm.api.key("admin"))).content == FILM
    assert refused(
        http.get(f"/v1/links?path={where['path']}", headers={"Authorization": "Bearer no"}), 401, "invalid_api_key"
    )


@pytest.mark.parametrize(
    "path",
    ["", "/v1/me", "/v1/keys", "/v1/jobs/{job}", "/v1/jobs/{job}/film/", "/v1/jobs/{job}/film?x=1",
     "//evil/{job}/film", "/v1/jobs/../keys/film", "/v1/jobs/{job}/takes/a/b/head", "http://evil/v1/jobs/{job}/film",
     "/v1/videos/{job}/content"],
)  # fmt: skip
def test_only_files_of_jobs_can_be_linked(farm: Locked, path: str) -> None:
    answer = farm.api.http.get("/v1/links", params={"path": path.format(job=farm.job)}, headers=farm.a)
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["path"] == "path"


def test_a_link_ends_with_the_key_that_asked_for_it(farm: Locked) -> None:
    headers = farm.api.key("a")
    url = farm.link(by=headers)
    key_id = httpx.URL(url).params["key"]
    farm.api.services.keys.revoke(key_id, now=farm.clock())
    assert refused(farm.api.http.get(url), 403, "invalid_link")
    assert farm.api.http.get(farm.link()).status_code == 200


def test_a_link_counts_as_a_request_of_its_tenant(tmp_path: Path) -> None:
    with running(tmp_path, auth="on", limits={"requests_per_minute": 4}) as api:
        api.http.headers.update(api.key("a"))
        job = api.submit()["id"]
        api.complete(job, FILM)
        url = api.http.get("/v1/links", params={"path": f"/v1/jobs/{job}/film"}).json()["url"]
        del api.http.headers["authorization"]
        assert [api.http.get(url).status_code for _ in range(3)] == [200, 200, 429]


def test_an_address_that_sends_many_wrong_links_is_held_back_and_right_ones_are_not(farm: Locked) -> None:
    url = farm.link()
    wrong = f"{url[:-1]}{'A' if url[-1] != 'A' else 'B'}".replace("key=key_", "key=key_0")
    statuses = [farm.api.http.get(wrong).status_code for _ in range(WRONG_KEYS_PER_MINUTE + 1)]
    assert statuses == [403] * WRONG_KEYS_PER_MINUTE + [429]
    assert farm.api.http.get(url).status_code == 200


def test_heads_of_any_length_can_be_linked(farm: Locked) -> None:
    for what in ("takes/red/head", "takes/red/head/16", "takes/red/preview"):
        answer = farm.api.http.get(farm.link(what))
        assert answer.json()["code"] == "not_found", "none of them is there, and the link lets us see that"


def test_a_link_holds_no_secret_and_every_replica_honours_it(farm: Locked) -> None:
    url = farm.link()
    secret = farm.a["Authorization"].removeprefix("Bearer ")
    assert secret.split("_", 2)[2] not in url
    again = farm.link()
    assert again == url, "it depends on path, end and key alone, so on no process"


def test_a_farm_without_keys_answers_the_path_itself(tmp_path: Path) -> None:
    with running(tmp_path) as api:
        path = f"/v1/jobs/{api.submit()['id']}/film"
        answer = api.http.get("/v1/links", params={"path": path}).json()
        assert answer == {"object": "link", "url": path, "expires_at": None}
