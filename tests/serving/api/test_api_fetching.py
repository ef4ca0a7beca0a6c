"""Addresses of pictures are fetched from hosts that the farm allows, and from nowhere else."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving.api import fetching
from serving.api.errors import ApiError
from serving.api.fetching import FetchError, fetch, fetch_pictures, stand_in
from serving.api.services import Services
from serving.config.farm import AssetsConfig
from serving.storyboard import Storyboard, parse_storyboard
from serving.storyboard.schema import asset_of
from testkit.picture_files import drawing, written
from tests.serving.api.api_double import ApiDouble, running

PICTURE = written(drawing(), "PNG")
PUBLIC = "93.184.215.14"


def look_up(name: str, port: int) -> list[str]:
    return ["10.0.0.7"] if name.startswith("inside") else [PUBLIC]


def answering(status: int = 200, content: bytes = PICTURE, **headers: str) -> httpx.MockTransport:
    """A server at the public address that was looked up, and nowhere else."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.host == PUBLIC
        assert request.extensions["sni_hostname"] == request.headers["host"]
        return httpx.Response(status, content=content, headers=headers)

    return httpx.MockTransport(answer)


def board(*images: str) -> Storyboard:
    shots = "".join(f"  - {{prompt: a ball, seconds: 1, image: '{image}'}}\n" for image in images)
    return parse_storyboard(f"version: 1\nshots:\n{shots}".encode())


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiDouble]:
    with running(tmp_path_factory.mktemp("fetching")) as double:
        yield double


@pytest.fixture
def services(api: ApiDouble) -> Services:
    """Of a farm that fetches from some hosts."""
    allowed = AssetsConfig(allow_hosts=("images.example.com", "*.example.org", "inside.example.net"))
    return dataclasses.replace(api.services, config=api.services.config.model_copy(update={"assets": allowed}))


def test_a_farm_fetches_nothing_unless_it_is_told_to(api: ApiDouble) -> None:
    storyboard = board("https://images.example.com/a.png").model_dump(mode="json")
    for path in ("/v1/jobs", "/v1/quote"):
        refused = api.http.post(path, json={"storyboard": storyboard})
        assert refused.status_code == 422
        assert "this farm fetches none" in refused.json()["problems"][0]["message"]


def test_an_allowed_address_becomes_an_asset_of_the_tenant(services: Services) -> None:
    addresses = ("https://images.example.com/a.png", "https://a.b.example.org/b.png?x=1")
    fetched = fetch_pictures(services, "ada", board(*addresses), look_up=look_up, transport=answering())
    assets = {asset_of(picture) for _, picture in fetched.pictures()}
    assert len(assets) == 1
    assert services.assets.read("ada", str(assets.pop())) == PICTURE


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/a.png",
        "https://images.example.com.evil.net/a.png",
        "https://example.org/a.png",
        "http://images.example.com/a.png",
        "https://images.example.com@evil.net/a.png",
        "https://[::1]/a.png",
    ],
)
def test_another_host_or_scheme_is_refused_before_anything_is_asked(services: Services, address: str) -> None:
    with pytest.raises(ApiError) as priced:
        stand_in(services, board(address))
    with pytest.raises(ApiError) as submitted:
        fetch_pictures(services, "ada", board(address))
    for refused in (priced.value, submitted.value):
        assert "must be an https:// address at images.example.com" in refused.problems[0].message


def test_a_price_fetches_nothing(services: Services) -> None:
    priced = stand_in(services, board("https://images.example.com/never-asked.png"))
    assert all(asset_of(picture) for _, picture in priced.pictures())


@pytest.mark.parametrize(
    ("address", "options", "said"),
    [
        ("https://inside.example.net/a.png", {}, "not on the public internet"),
        ("https://images.example.com:22/a.png", {}, "port 22"),
        ("https://images.example.com/a.png", {"status": 302, "location": "https://inside/"}, "answers 302"),
        ("https://images.example.com/a.png", {"status": 404}, "answers 404"),
        ("https://images.example.com/a.png", {"content": b"<html>"}, "is no PNG"),
    ],
)
def test_what_cannot_be_fetched_is_told_with_its_place(
    services: Services, address: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ApiError) as caught:
        fetch_pictures(services, "ada", board(address), look_up=look_up, transport=answering(**options))
    assert caught.value.status == 422
    assert caught.value.problems[0].path == "shots[0].image"
    assert said in caught.value.problems[0].message


def test_bytes_and_seconds_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "https://images.example.com/a.png"
    monkeypatch.setattr(fetching, "MAX_PICTURE_BYTES", 100)
    with pytest.raises(FetchError, match="larger than 100 bytes"):
        fetch(address, look_up=look_up, transport=answering())
    monkeypatch.setattr(fetching, "MAX_PICTURE_BYTES", 1 << 20)
    monkeypatch.setattr(fetching, "FETCH_S", -1.0)
    with pytest.raises(FetchError, match="did not come within"):
        fetch(address, look_up=look_up, transport=answering())


def test_a_storyboard_names_only_so_many_addresses(services: Services) -> None:
    many = board(*(f"https://images.example.com/{k}.png" for k in range(20)))
    with pytest.raises(ApiError) as caught:
        fetch_pictures(services, "ada", many)
    assert "at most 16 are fetched" in caught.value.problems[0].message
