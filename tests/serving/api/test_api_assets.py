"""Pictures over HTTP: sent whole or in pieces, found by their tenant alone, and refused where they are hostile."""

import hashlib
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from serving.config.farm import PoolConfig
from serving.models.testing import write_tiny_checkpoint
from testkit.picture_files import drawing, written
from tests.serving.api.api_double import STORYBOARD, ApiDouble, running

PICTURE = written(drawing(), "PNG")
ID = f"sha256:{hashlib.sha256(PICTURE).hexdigest()}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that takes first pictures."""
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("model"), "2.2-5b"))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[ApiDouble]:
    pools = (PoolConfig(name="default", model=model),)
    with running(tmp_path_factory.mktemp("assets"), auth="on", pools=pools) as double:
        yield double


@pytest.fixture
def ada(api: ApiDouble, request: pytest.FixtureRequest) -> dict[str, str]:
    """A key of a tenant of the test's own."""
    return api.key(f"ada-{random.Random(request.node.name).randrange(10**9)}")


def send(api: ApiDouble, key: dict[str, str], content: bytes, **params: Any) -> httpx.Response:
    return api.http.post("/v1/assets", content=content, headers=key, params=params)


def noisy(size: int, seed: int = 0) -> bytes:
    """A picture of many bytes."""
    rng = random.Random(seed)
    return written(Image.frombytes("RGB", (size, size), rng.randbytes(3 * size * size)), "PNG")


def test_a_picture_is_sent_found_fetched_and_deleted(api: ApiDouble, ada: dict[str, str]) -> None:
    answer = send(api, ada, PICTURE)
    assert answer.status_code == 201, answer.text
    asset = answer.json()
    assert (asset["id"], asset["media_type"], asset["bytes"]) == (ID, "image/png", len(PICTURE))
    assert (asset["width"], asset["height"]) == drawing().size
    head = api.http.head(f"/v1/assets/{ID}", headers=ada)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(PICTURE)))
    assert api.http.get(f"/v1/assets/{ID}", headers=ada).content == PICTURE
    assert [one["id"] for one in api.http.get("/v1/assets", headers=ada).json()["data"]] == [ID]
    assert api.http.delete(f"/v1/assets/{ID}", headers=ada).json()["deleted"] is True
    assert api.http.head(f"/v1/assets/{ID}", headers=ada).status_code == 404


def test_sending_it_again_changes_nothing(api: ApiDouble, ada: dict[str, str]) -> None:
    statuses = [send(api, ada, PICTURE).status_code for _ in range(2)]
    keyed = {**ada, "Idempotency-Key": "once"}
    statuses += [send(api, keyed, PICTURE).status_code for _ in range(2)]
    assert statuses == [201, 200, 200, 200]
    assert len(api.http.get("/v1/assets", headers=ada).json()["data"]) == 1


def test_knowing_a_hash_gives_no_access(api: ApiDouble, ada: dict[str, str], model: str) -> None:
    send(api, ada, PICTURE)
    eve = api.key("eve")
    for method in ("HEAD", "GET", "DELETE"):
        assert api.http.request(method, f"/v1/assets/{ID}", headers=eve).status_code == 404
    assert api.http.get("/v1/assets", headers=eve).json()["data"] == []
    refused = api.http.post("/v1/jobs", headers=eve, json={"storyboard": with_pictures(model, ID)})
    assert (refused.status_code, refused.json()["code"]) == (422, "assets_missing")


def with_pictures(model: str, *ids: str) -> dict[str, Any]:
    first, second = STORYBOARD["shots"]
    return {**STORYBOARD, "model": model, "shots": [{**first, "image": ids[0]}, {**second, "image": ids[-1]}]}


def test_a_job_is_refused_with_every_picture_that_must_be_sent_first(
    api: ApiDouble, ada: dict[str, str], model: str
) -> None:
    other = f"sha256:{'e' * 64}"
    refused = api.http.post("/v1/jobs", headers=ada, json={"storyboard": with_pictures(model, ID, other)}).json()
    assert refused["code"] == "assets_missing"
    assert [(p["path"], p["value"]) for p in refused["problems"]] == [
        ("shots[0].image", ID), ("shots[1].image", other),
    ]  # fmt: skip
    assert api.http.get("/v1/jobs", headers=ada).json()["data"] == []
    quoted = api.http.post("/v1/quote", headers=ada, json={"storyboard": with_pictures(model, ID, other)})
    assert quoted.status_code == 200, quoted.text  # a price needs no picture


def test_a_job_keeps_its_pictures(api: ApiDouble, ada: dict[str, str], model: str) -> None:
    send(api, ada, PICTURE)
    job = api.http.post("/v1/jobs", headers=ada, json={"storyboard": with_pictures(model, ID)})
    assert job.status_code == 201, job.text
    refused = api.http.delete(f"/v1/assets/{ID}", headers=ada)
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
    assert job.json()["id"] in refused.json()["detail"]
    api.http.post(f"/v1/jobs/{job.json()['id']}/cancel", headers=ada)
    assert api.http.delete(f"/v1/assets/{ID}", headers=ada).status_code == 200


def test_a_path_is_no_asset_and_says_what_to_do(api: ApiDouble, ada: dict[str, str], model: str) -> None:
    refused = api.http.post("/v1/jobs", headers=ada, json={"storyboard": with_pictures(model, "/etc/passwd")}).json()
    assert refused["problems"][0]["message"].startswith("is not an asset: send the picture first (POST /v1/assets)")


def test_pieces_make_a_file_also_after_an_interruption(api: ApiDouble, ada: dict[str, str]) -> None:
    content = noisy(200)
    asset_id, total = f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)
    cuts = [0, total // 3, total // 2, total]

    def piece(start: int, stop: int) -> httpx.Response:
        return send(api, ada, content[start:stop], id=asset_id, total=total, offset=start)

    first = piece(cuts[0], cuts[1])
    assert (first.status_code, first.json()["received"]) == (202, cuts[1])
    gap = piece(cuts[2], cuts[3])
    assert (gap.status_code, gap.headers["upload-offset"]) == (409, str(cuts[1]))
    head = api.http.head(f"/v1/assets/{asset_id}", headers=ada)
    assert (head.status_code, head.headers["upload-offset"]) == (404, str(cuts[1]))
    assert api.http.head(f"/v1/assets/{asset_id}", headers=api.key("eve")).headers.get("upload-offset") is None
    assert piece(cuts[0], cuts[1]).json()["received"] == cuts[1]  # sent twice
    assert piece(cuts[1], cuts[2]).json()["received"] == cuts[2]
    last = piece(cuts[2], cuts[3])
    assert (last.status_code, last.json()["id"]) == (201, asset_id)
    assert api.http.get(f"/v1/assets/{asset_id}", headers=ada).content == content
    assert piece(cuts[2], cuts[3]).status_code == 200
    assert not [info for info in api.services.artifacts.list("uploads") if asset_id[7:] in info.key]


def test_pieces_of_another_file_are_refused_at_their_end_and_go(api: ApiDouble, ada: dict[str, str]) -> None:
    content = noisy(50)
    wrong = f"sha256:{'d' * 64}"
    assert send(api, ada, content[:100], id=wrong, total=len(content), offset=0).status_code == 202
    refused = send(api, ada, content[100:], id=wrong, total=len(content), offset=100)
    assert (refused.status_code, "these bytes are sha256:" in refused.text) == (422, True)
    assert api.http.head(f"/v1/assets/{wrong}", headers=ada).headers.get("upload-offset") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no PNG, JPEG, WebP or AVIF picture"),
        (b"<svg onload=alert(1)>", "is no PNG"),
        (PICTURE[: len(PICTURE) // 2], "cut short or damaged"),
        (written(drawing(), "GIF"), "is no PNG"),
        (written(drawing(), "WEBP", save_all=True, append_images=[drawing().rotate(90)]), "is animated (2 frames)"),
        (written(Image.new("1", (16_500, 1)), "PNG"), "16500 x 1 pixels"),
        (written(Image.new("1", (9000, 9000)), "PNG"), "9000 x 9000 pixels"),
    ],
)
def test_what_is_no_good_picture_is_refused_and_not_kept(
    api: ApiDouble, ada: dict[str, str], content: bytes, said: str
) -> None:
    refused = send(api, ada, content)
    assert refused.status_code == 422
    assert said in refused.json()["problems"][0]["message"]
    assert api.http.get("/v1/assets", headers=ada).json()["data"] == []


def test_a_polyglot_is_served_as_the_picture_that_it_is(api: ApiDouble, ada: dict[str, str]) -> None:
    polyglot = PICTURE + b"<script>alert(1)</script>"
    asset = send(api, ada, polyglot).json()
    answer = api.http.get(f"/v1/assets/{asset['id']}", headers=ada)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "sha256:..", "a" * 64, "sha256:" + "A" * 64, "%00"])
def test_an_id_that_can_be_none_is_not_found(api: ApiDouble, ada: dict[str, str], name: str) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        assert api.http.request(method, f"/v1/assets/{name}", headers=ada).status_code in (400, 404)


def test_a_hash_that_is_not_that_of_the_bytes_is_refused(api: ApiDouble, ada: dict[str, str]) -> None:
    refused = send(api, ada, PICTURE, id=f"sha256:{'0' * 64}")
    assert (refused.status_code, ID in refused.text) == (422, True)


@pytest.mark.parametrize("params", [{"offset": 0}, {"total": 5}, {"offset": 0, "total": 5}])
def test_pieces_need_id_offset_and_total(api: ApiDouble, ada: dict[str, str], params: dict[str, int]) -> None:
    assert send(api, ada, PICTURE, **params).json()["problems"][0]["path"] == "offset"


def test_a_file_beyond_the_quota_and_one_too_many_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    limits = {"files_per_tenant": 3, "bytes_per_tenant": 1 << 20}
    with running(tmp_path_factory.mktemp("quota"), assets=limits) as api:
        assert [send(api, {}, noisy(8, seed)).status_code for seed in range(4)] == [201, 201, 201, 409]
        refused = send(api, {}, noisy(8, 9)).json()
        assert (refused["code"], "may keep 3 assets" in refused["detail"]) == ("too_many_assets", True)


def test_a_picture_may_be_larger_than_other_requests_and_no_larger_than_the_farm_allows(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    small: dict[str, Any] = {"limits": {"max_body_bytes": 20_000}, "assets": {"upload_bytes": 1 << 17}}
    with running(tmp_path_factory.mktemp("sizes"), **small) as api:
        assert send(api, {}, noisy(180)).status_code == 201
        assert send(api, {}, noisy(300)).status_code == 413
        assert api.http.post("/v1/jobs", content=b"x" * 30_000).status_code == 413
