"""Revise, finalize, list and compare versions of a film; the quote beforehand says what will be rendered."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.api.api_double import STORYBOARD, ApiDouble, running


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiDouble]:
    with running(tmp_path) as double:
        yield double


def edited(**changes: Any) -> dict[str, Any]:
    """The storyboard with its second shot changed."""
    storyboard = copy.deepcopy(STORYBOARD)
    storyboard["shots"][1].update(changes)
    return storyboard


def test_a_revision_is_the_next_version_and_keeps_what_is_left_out(api: ApiDouble) -> None:
    first = api.submit(priority=80, tags={"p": "x"}, budget_usd=3)
    answer = api.http.post(
        f"/v1/jobs/{first['id']}/revise", json={"storyboard": edited(prompt="a green ball"), "budget_usd": None}
    )
    assert answer.status_code == 201
    second = answer.json()
    assert (second["version"], second["family"], second["parent"]) == (2, first["id"], first["id"])
    assert (second["priority"], second["tags"], second["budget_usd"]) == (80, {"p": "x"}, None)
    assert second["quote"]["calls"] > 0
    again = api.http.post(f"/v1/jobs/{first['id']}/revise", json={"storyboard": edited(seconds=2.0)}).json()
    assert again["version"] == 3, "two revisions of one version are two versions"
    listed = api.http.get(f"/v1/jobs/{second['id']}/versions").json()["data"]
    assert [(job["version"], job["id"]) for job in listed] == [(1, first["id"]), (2, second["id"]), (3, again["id"])]
    assert api.http.get(f"/v1/jobs/{first['id']}").json()["status"] == "queued", "the version before goes on"


def test_a_dry_run_says_what_will_be_rendered_and_stores_nothing(api: ApiDouble) -> None:
    job = api.submit()
    store_takes_of(api, job["id"])
    quote = api.http.post(
        f"/v1/jobs/{job['id']}/revise?dry_run=true", json={"storyboard": edited(prompt="a green ball")}
    )
    assert quote.status_code == 200
    assert [(take["key"], take["cached"]) for take in quote.json()["takes"]] == [("red", True), ("blue", False)]
    assert quote.json()["takes"][0]["calls"] == 0
    assert len(api.http.get("/v1/jobs").json()["data"]) == 1


def store_takes_of(api: ApiDouble, job_id: str) -> None:
    """Have every take of a job among the artifacts, as if it had been rendered."""
    numerics = {"device": "a test"}
    api.services.jobs.learn("numerics", "default", numerics, now=time.time())
    admission: Any = api.services.admission
    job = api.services.jobs.get(job_id)
    assert job is not None
    for key in admission.content_keys(admission.plan_job(job), numerics, tenant=job.tenant):
        api.services.artifacts.put(f"takes/{key}/frames.mkv", b"frames")


def test_an_edited_yaml_is_revised_with_its_lines(api: ApiDouble) -> None:
    path = f"/v1/jobs/{api.submit()['id']}/revise"
    yaml = {"Content-Type": "application/yaml"}
    good = "version: 1\nshots:\n  - {id: red, prompt: a ball, seconds: 1}\n"
    assert api.http.post(f"{path}?priority=3", content=good, headers=yaml).json()["priority"] == 3
    bad = api.http.post(path, content=good.replace("seconds: 1", "seconds: -1"), headers=yaml)
    assert (bad.status_code, bad.json()["problems"][0]["line"]) == (422, 3)
    dry = api.http.post(f"{path}?dry_run=true", content=good, headers=yaml)
    assert (dry.status_code, dry.json()["object"]) == (200, "quote")


def test_a_final_has_the_drafts_shots_and_seeds(api: ApiDouble) -> None:
    draft = api.submit(steps=4)
    final = api.http.post(f"/v1/jobs/{draft['id']}/finalize").json()
    assert (final["version"], final["parent"]) == (2, draft["id"])
    stored = [api.services.jobs.get(job["id"]) for job in (draft, final)]
    assert stored[0] is not None
    assert stored[1] is not None
    assert stored[1].storyboard == {**stored[0].storyboard, "quality": "final"}
    assert (stored[0].steps, stored[1].steps) == (4, None)
    again = api.http.post(f"/v1/jobs/{final['id']}/finalize")
    assert (again.status_code, again.json()["code"]) == (409, "already_final")
    dry = api.http.post(f"/v1/jobs/{draft['id']}/finalize?dry_run=1", json={"priority": 9})
    assert (dry.status_code, dry.json()["object"]) == (200, "quote")


def test_a_version_has_the_steps_of_the_one_before_unless_it_says_otherwise(api: ApiDouble) -> None:
    first = api.submit(steps=4)

    def revised(storyboard: dict[str, Any], **options: Any) -> int | None:
        body = {"storyboard": storyboard, **options}
        steps: int | None = api.http.post(f"/v1/jobs/{first['id']}/revise", json=body).json()["steps"]
        return steps

    assert first["steps"] == 4
    assert revised(edited(prompt="a green ball")) == 4
    assert revised(edited(prompt="a green ball"), steps=6) == 6
    assert revised(edited(prompt="a green ball"), steps=None) is None
    assert revised({**edited(prompt="a green ball"), "quality": "final"}) is None


def test_versions_are_compared_shot_by_shot(api: ApiDouble) -> None:
    first = api.submit()
    longer = copy.deepcopy(STORYBOARD)
    longer["shots"].insert(1, {"id": "new", "prompt": "a cube", "seconds": 1.0})
    longer["shots"][0]["prompt"] = "a red cube"
    second = api.http.post(f"/v1/jobs/{first['id']}/revise", json={"storyboard": longer}).json()
    diff = api.http.get(f"/v1/jobs/{second['id']}/diff").json()
    assert (diff["job"], diff["against"]) == (second["id"], first["id"])
    changes = {change["path"]: (change["before"], change["after"]) for change in diff["changes"]}
    assert changes["shots.red.prompt"] == ("a red ball rolls", "a red cube")
    assert changes["shots.new"][0] is None
    assert changes["order"] == (["red", "blue"], ["red", "new", "blue"])
    assert not any(path.startswith("shots.blue") for path in changes)
    assert {take["key"]: take["change"] for take in diff["takes"]} == {"red": "changed", "blue": "same", "new": "added"}
    other_way = api.http.get(f"/v1/jobs/{first['id']}/diff", params={"against": second["id"]}).json()
    assert {take["key"]: take["change"] for take in other_way["takes"]}["new"] == "removed"
    assert api.http.get(f"/v1/jobs/{first['id']}/diff").status_code == 422
    assert api.http.get(f"/v1/jobs/{first['id']}/diff?against=job_none").status_code == 404


def test_an_equal_storyboard_differs_in_nothing(api: ApiDouble) -> None:
    first = api.submit()
    second = api.http.post(f"/v1/jobs/{first['id']}/revise", json={"storyboard": STORYBOARD}).json()
    diff = api.http.get(f"/v1/jobs/{second['id']}/diff").json()
    assert diff["changes"] == []
    assert {take["change"] for take in diff["takes"]} == {"same"}


def test_a_video_is_revised_as_a_video(api: ApiDouble) -> None:
    video = api.http.post("/v1/videos", json={"prompt": "a ball", "seconds": 1}).json()
    job = api.http.post(f"/v1/jobs/{video['id']}/finalize").json()
    assert job["kind"] == "video"
    assert api.http.get(f"/v1/videos/{job['id']}").json()["prompt"] == "a ball"
