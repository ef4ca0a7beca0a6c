"""The studio's page as it is served, and what it asks: who am I, the timeline, the storyboard, counts, models."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.app import openapi_document
from serving.api.routes import studio
from serving.errors import StoryboardError
from serving.store.records import JobStatus
from serving.storyboard import parse_storyboard, write_yaml
from tests.serving.api.api_double import STORYBOARD, ApiDouble, running
from tests.serving.api.test_api_document import check

YAML = {"Accept": "application/yaml"}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiDouble]:
    with running(tmp_path) as double:
        yield double


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page of our own in the place of the studio."""
    folder = tmp_path / "web"
    (folder / "views").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>A page</title>")
    (folder / "views" / "one.js").write_text("export const one = 1;")
    (folder / "secret.py").write_text("1")
    (folder / ".hidden.js").write_text("1")
    (tmp_path / "outside.js").write_text("1")
    (folder / "link.js").symlink_to(tmp_path / "outside.js")
    monkeypatch.setattr(studio, "FOLDER", folder)
    return folder


# ---------------------------------------------------------------------------------------------- the page


def test_the_page_that_ships_is_served_with_everything_it_names(api: ApiDouble) -> None:
    assert "<!doctype html" in api.http.get("/").text.lower()
    for path in studio.FOLDER.rglob("*"):
        if path.is_file() and path.suffix not in (".md", ".pyc"):
            assert api.http.get(f"/studio/{path.relative_to(studio.FOLDER)}").status_code == 200, path


def test_the_page_needs_no_key_and_is_not_counted(tmp_path: Path, page: Path) -> None:
    with running(tmp_path, auth="on", limits={"requests_per_minute": 1}) as api:
        for _ in range(5):
            assert api.http.get("/").status_code == 200
            assert api.http.get("/studio/views/one.js").status_code == 200
        assert api.http.get("/v1/me").status_code == 401


def test_a_file_has_its_type_and_may_load_nothing_from_elsewhere(api: ApiDouble, page: Path) -> None:
    answer = api.http.get("/studio/views/one.js")
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert api.http.get("/").headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "*" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert api.http.head("/").headers["content-length"] == api.http.get("/").headers["content-length"]
    assert api.http.head("/").content == b""


def test_an_edit_shows_at_once_and_the_same_is_not_sent_again(api: ApiDouble, page: Path) -> None:
    first = api.http.get("/")
    assert first.headers["cache-control"] == "no-cache"
    known = {"If-None-Match": first.headers["etag"]}
    again = api.http.get("/", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    (page / "index.html").write_text("<!doctype html><title>Another page</title>")
    assert "Another" in api.http.get("/", headers=known).text


@pytest.mark.parametrize(
    "path",
    [
        "secret.py", ".hidden.js", "link.js", "", "views", "views/", "none.js", "%2e%2e/outside.js", "..%2foutside.js",
        "..%5coutside.js", "views/../../outside.js", "/etc/passwd", "%2fetc%2fpasswd", "views//one.js", "one.js%00",
        "a" * 5000 + ".js",
    ],
)  # fmt: skip
def test_nothing_else_is_served(api: ApiDouble, page: Path, path: str) -> None:
    raw = httpx.URL(api.url).copy_with(raw_path=f"/studio/{path}".encode())
    assert api.http.get(raw).status_code in (400, 404)
    assert api.http.post("/studio/views/one.js").status_code == 405


def test_a_file_that_is_too_large_is_not_served(api: ApiDouble, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio, "MAX_STUDIO_FILE_BYTES", 10)
    assert api.http.get("/").status_code == 404


@given(path=st.text(st.sampled_from("abc./\\%\0~ "), max_size=30))
def test_no_path_leads_out_of_the_folder(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    root = tmp_path_factory.mktemp("page")
    (root / "a.js").write_text("outside")
    (root / "web").mkdir()
    (root / "web" / "a.js").write_text("inside")
    found = studio.find_file(root / "web", path)
    assert found is None or found.read_text() == "inside"
    shutil.rmtree(root)


def test_the_page_is_no_part_of_the_document() -> None:
    assert not [
        path for path in openapi_document()["paths"] if not path.startswith(("/v1/", "/metrics", "/health", "/ready"))
    ]


# ---------------------------------------------------------------------------------------------- what it asks


def test_a_caller_learns_who_they_are(tmp_path: Path) -> None:
    with running(tmp_path / "keys", auth="on") as api:
        wanted = {"object": "caller", "tenant": "studio", "is_admin": False, "needs_keys": True}
        found = api.http.get("/v1/me", headers=api.key("studio")).json()
        assert {name: found[name] for name in wanted} == wanted
        assert api.http.get("/v1/me", headers=api.key("admin")).json()["is_admin"] is True
    with running(tmp_path / "local") as api:
        found = api.http.get("/v1/me").json()
        assert (found["is_admin"], found["needs_keys"]) == (True, False)
        check("Me", found)


def test_a_caller_learns_what_every_status_means(api: ApiDouble) -> None:
    statuses = {one.pop("status"): one for one in api.http.get("/v1/me").json()["statuses"]}
    assert list(statuses) == list(JobStatus)
    assert statuses["in_progress"] == {"is_live": True, "is_over": False, "actions": ["pause", "cancel"]}
    assert statuses["paused"] == {"is_live": False, "is_over": False, "actions": ["resume", "cancel"]}
    assert statuses["completed"] == {"is_live": False, "is_over": True, "actions": []}
    assert statuses["failed"]["actions"] == ["retry"]


def test_a_storyboard_comes_back_as_it_was_accepted(api: ApiDouble) -> None:
    job = api.submit()
    found = api.http.get(f"/v1/jobs/{job['id']}/storyboard")
    check("Storyboard", found.json())
    stored = api.services.jobs.get(job["id"])
    assert stored is not None
    assert found.json() == stored.storyboard
    as_yaml = api.http.get(f"/v1/jobs/{job['id']}/storyboard", headers=YAML)
    assert as_yaml.headers["content-type"].startswith("application/yaml")
    assert "seed" not in as_yaml.text, "what is as it would be anyway is left out"
    revise = f"/v1/jobs/{job['id']}/revise"
    answers = [
        api.http.post(revise, json={"storyboard": found.json()}),
        api.http.post(revise, content=as_yaml.content, headers={"Content-Type": "application/yaml"}),
    ]
    for answer in answers:
        revised = api.services.jobs.get(answer.json()["id"])
        assert revised is not None
        assert revised.storyboard == stored.storyboard
    assert api.http.get("/v1/jobs/job_none/storyboard").status_code == 404


words = st.text(min_size=1, max_size=40).filter(lambda text: text.strip() and "\0" not in text) | st.sampled_from(
    [
        "1e5",
        "~",
        "null",
        "no",
        "1:30",
        ".5",
        "0x1f",
        "- a",
        "a: b",
        "# a",
        "2020-01-01",
        "a\n b\n",
        "<<",
        "=",
        "\u2028",
        "\ufeff",
    ]
)


@given(prompt=words, title=words, style=words, seconds=st.floats(0.05, 600), identity=st.floats(0, 1))
def test_a_storyboard_written_as_yaml_is_read_as_the_same(
    prompt: str, title: str, style: str, seconds: float, identity: float
) -> None:
    shots = [
        {"prompt": prompt.replace("{", "").replace("}", "") + "a", "seconds": seconds},
        {"id": "b", "prompt": "b", "seconds": 1.0, "transition": "continue"},
    ]
    given_one = {"version": 1, "title": title, "style": style, "identity": identity, "shots": shots}
    try:
        expected = parse_storyboard(json.dumps(given_one).encode(), form="json")
    except StoryboardError:
        return  # not a storyboard: a control character, a title of two lines, half a surrogate pair
    assert parse_storyboard(write_yaml(expected).encode()) == expected


def test_jobs_are_counted_by_status_whatever_is_listed(tmp_path: Path) -> None:
    with running(tmp_path, auth="on") as api:
        ours, theirs = api.key("studio"), api.key("other")
        ids = [api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}, headers=ours).json()["id"] for _ in range(3)]
        api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}, headers=theirs)
        api.http.post(f"/v1/jobs/{ids[0]}/pause", headers=ours)
        found = api.http.get("/v1/jobs?counts=true&status=paused&limit=1", headers=ours).json()
        assert [job["id"] for job in found["data"]] == [ids[0]]
        assert (found["counts"]["paused"], found["counts"]["queued"]) == (1, 2)
        assert sum(found["counts"].values()) == 3
        everything = api.http.get("/v1/jobs?counts=true", headers=api.key("admin")).json()
        assert sum(everything["counts"].values()) == 4
        check("JobList", everything)
        assert "counts" not in api.http.get("/v1/jobs", headers=ours).json()


def live_take(**values: Any) -> dict[str, Any]:
    call = {"start": 0, "stop": 5, "step": 3, "gang": "default-0", "since": 1000.25, "try": 1}
    take = {
        "key": "red", "latents": 5, "steps": 8,
        "draft_steps": 2, "reached": [[3, 4], [2, 1]], "exact": True, "in_flight": [call],
        "retries": 0,
    }  # fmt: skip
    return {**take, **values}


def test_a_timeline_is_what_the_director_says(api: ApiDouble) -> None:
    job = api.submit()["id"]
    api.live.timelines[job] = [live_take()]
    found = api.http.get(f"/v1/jobs/{job}/timeline").json()
    check("TimelineView", found)
    assert (found["live"], found["takes"]) == (True, [live_take()])
    assert abs(found["at"] - time.time()) < 60


def test_without_the_director_a_timeline_is_what_the_store_knows(api: ApiDouble) -> None:
    job = api.submit(steps=4)["id"]
    found = api.http.get(f"/v1/jobs/{job}/timeline").json()
    check("TimelineView", found)
    assert found["live"] is False
    red = found["takes"][0]
    assert (red["key"], red["steps"], red["reached"], red["in_flight"]) == ("red", 4, [[0, red["latents"]]], [])
    api.live.away = True
    assert api.http.get(f"/v1/jobs/{job}/timeline").json()["takes"] == found["takes"]
    api.live.away = False
    api.live.timelines[job] = [live_take()]
    api.http.post(f"/v1/jobs/{job}/cancel")
    assert api.http.get(f"/v1/jobs/{job}/timeline").json()["live"] is False, "what is over is asked of nobody"
    assert api.http.get("/v1/jobs/job_none/timeline").status_code == 404


def test_a_model_says_what_a_storyboard_may_ask_for(api: ApiDouble) -> None:
    (model,) = api.http.get("/v1/models").json()["data"]
    check("Model", model)
    assert (model["fps"], model["width"], model["height"]) == (16, 96, 64)
    assert model["width"] % model["size_multiple"] == 0
    assert model["qualities"] == {"draft": 8, "standard": 24, "final": 40}
    assert sorted(model["stitchings"]) == ["chained", "drafted", "joint", "keyed"]
