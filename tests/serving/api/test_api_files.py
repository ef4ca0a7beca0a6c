"""Films and pictures over HTTP: ranges, ETag, HEAD, and what is not there (yet)."""

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.api import media
from serving.store.records import JobProgress
from tests.serving.api.api_double import ApiDouble, running

FILM = random.Random(1).randbytes(10_000)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiDouble]:
    with running(tmp_path_factory.mktemp("files")) as double:
        yield double


@pytest.fixture(scope="module")
def path(api: ApiDouble) -> str:
    job = api.submit()["id"]
    api.complete(job, FILM)
    return f"/v1/jobs/{job}/film"


def test_a_whole_film_comes_with_its_length_type_and_tag(api: ApiDouble, path: str) -> None:
    answer = api.http.get(path)
    assert answer.content == FILM
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-length"] == str(len(FILM))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"] == 'inline; filename="Two-balls.mp4"'
    head = api.http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "content-type", "accept-ranges"):
        assert head.headers[name] == answer.headers[name]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.none() | st.integers(0, 10_050), last=st.none() | st.integers(0, 10_050))
def test_any_range_is_the_same_part_of_the_film(api: ApiDouble, path: str, first: int | None, last: int | None) -> None:
    text = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    answer = api.http.get(path, headers={"Range": text})
    if first is None and last is None:
        wanted: bytes | None = FILM
    elif first is None:
        wanted = FILM[-last:] if last else None
    elif last is not None and last < first:
        wanted = FILM
    else:
        wanted = FILM[first : None if last is None else last + 1] or None
    if wanted is None:
        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{len(FILM)}"
        return
    assert answer.content == wanted
    if answer.status_code == 206:
        unit, _, rest = answer.headers["content-range"].partition(" ")
        span, _, size = rest.partition("/")
        start, stop = (int(part) for part in span.split("-"))
        assert (unit, int(size), FILM[start : stop + 1]) == ("bytes", len(FILM), wanted)
    else:
        assert wanted == FILM


@pytest.mark.parametrize("text", ["bytes=0-1,5-6", "lines=0-1", "bytes=a-b", "bytes", "bytes=" + "1" * 40 + "-"])
def test_a_range_of_another_form_is_ignored(api: ApiDouble, path: str, text: str) -> None:
    answer = api.http.get(path, headers={"Range": text})
    assert (answer.status_code, answer.content) == (200, FILM)


def test_what_the_client_has_is_not_sent_again(api: ApiDouble, path: str) -> None:
    etag = api.http.head(path).headers["etag"]
    for value in (etag, f'"other", W/{etag}', "*"):
        answer = api.http.get(path, headers={"If-None-Match": value})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert api.http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_range_of_a_file_that_has_changed_is_the_whole_new_one(api: ApiDouble, path: str) -> None:
    etag = api.http.head(path).headers["etag"]
    same = api.http.get(path, headers={"Range": "bytes=0-9", "If-Range": etag})
    other = api.http.get(path, headers={"Range": "bytes=0-9", "If-Range": '"older"'})
    assert (same.status_code, same.content) == (206, FILM[:10])
    assert (other.status_code, other.content) == (200, FILM)


def test_a_large_film_is_sent_in_parts(api: ApiDouble, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "ARTIFACT_PART_BYTES", 999)
    assert api.http.get(path).content == FILM
    assert api.http.get(path, headers={"Range": "bytes=500-7000"}).content == FILM[500:7001]


def test_a_file_that_is_rewritten_while_it_is_sent_ends_early(
    api: ApiDouble, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(media, "ARTIFACT_PART_BYTES", 1000)
    job = api.submit()["id"]
    api.complete(job, FILM)
    real = api.services.artifacts.get_range

    def rewrite(key: str, start: int, stop: int) -> bytes:
        content = real(key, start, stop)
        api.services.artifacts.put(key, b"x" * 20_000)
        return content

    monkeypatch.setattr(api.services.artifacts, "get_range", rewrite)
    with pytest.raises(httpx.RemoteProtocolError):
        api.http.get(f"/v1/jobs/{job}/film")
    assert any("rewritten" in str(record.exc_info) for record in caplog.records)


def test_a_picture_that_is_rewritten_while_it_is_looked_at_comes_whole(
    api: ApiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = api.submit()["id"]
    api.complete(job)
    real, newer = api.services.artifacts.get, [b"shorter", b"a picture that is longer than both"]

    def rewrite(key: str) -> bytes:
        if newer:
            api.services.artifacts.put(key, newer.pop(0))
        return real(key)

    monkeypatch.setattr(api.services.artifacts, "get", rewrite)
    answer = api.http.get(f"/v1/jobs/{job}/thumbnail")
    assert answer.content == b"a picture that is longer than both"
    assert answer.headers["content-length"] == str(len(answer.content))


def test_a_finished_film_has_a_manifest_and_pictures(api: ApiDouble, path: str) -> None:
    job = path.removesuffix("/film")
    assert api.http.get(f"{job}/manifest").json() == {"frames": 32}
    assert api.http.get(f"{job}/thumbnail").headers["content-type"] == "image/jpeg"
    assert api.http.get(f"{job}/spritesheet").content == b"pictures"
    links = api.http.get(job).json()
    assert links["film"]["url"] == links["links"]["film"] == path
    assert api.http.get(links["links"]["manifest"]).status_code == 200


def test_what_is_not_there_yet_is_not_found(api: ApiDouble) -> None:
    job = api.submit()
    home = job["links"]["self"]
    for end in ("film", "manifest", "thumbnail", "spritesheet", "takes/red/head", "takes/none/preview"):
        answer = api.http.get(f"{home}/{end}")
        assert answer.status_code == 404, end
        assert answer.headers["content-type"] == "application/problem+json"
        assert api.http.head(f"{home}/{end}").status_code == 404
    assert [take["preview"] for take in job["takes"]] == [None, None]


def test_what_there_is_of_a_take_can_be_watched(api: ApiDouble) -> None:
    job_id = api.submit()["id"]
    jobs, key = api.services.jobs, "c" * 64
    held = next(job for job in jobs.claim(owner="d", now=time.time(), lease_s=60, limit=100) if job.id == job_id)
    take = replace(jobs.takes(job_id)[0], content_key=key, status="rendering", calls_done=1, frames_decoded=9)
    take = replace(take, head_frames=4, has_preview=True)
    report = JobProgress(job_id, held.lease_token, 5.0, 20, 1, None, at_risk=False, takes=(take,))
    jobs.save_progress([report], now=time.time())
    api.services.artifacts.put(f"takes/{key}/head-4.mp4", b"the head")
    api.services.artifacts.put(f"takes/{key}/head-2.mp4", b"its beginning")
    api.services.artifacts.put(f"takes/{key}/preview.png", b"a picture")
    told = api.http.get(f"/v1/jobs/{job_id}").json()["takes"][0]
    assert told["head"].endswith("/head/4")
    assert api.http.get(told["head"]).content == b"the head"
    assert api.http.get(told["head"].replace("/4", "")).content == b"the head"
    assert api.http.get(told["head"].replace("/4", "/2")).content == b"its beginning"
    assert api.http.get(told["head"].replace("/4", "/9")).status_code == 404
    assert api.http.get(told["head"].replace("/4", "/0")).status_code == 422
    assert api.http.get(told["preview"]).headers["content-type"] == "image/png"


@pytest.mark.parametrize(("title", "name"), [("../../a\r\nb", "a-b"), ("ä", "film"), ("x" * 200, "x" * 60)])
def test_a_title_never_breaks_out_of_a_header(title: str, name: str) -> None:
    assert media.file_name(title, "mp4") == f"{name}.mp4"
