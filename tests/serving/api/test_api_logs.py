"""The farm's log over HTTP: a job's lines for whoever may see the job; all, and the farm's insides, for admins."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.store.insides import hide_insides
from serving.store.log_lines import LogLine
from tests.serving.api.api_double import STORYBOARD, ApiDouble, running
from tests.serving.api.test_api_document import check


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiDouble]:
    with running(tmp_path, auth="on") as double:
        yield double


def submitted(api: ApiDouble, tenant: str) -> str:
    answer = api.http.post("/v1/jobs", json={"storyboard": STORYBOARD}, headers=api.key(tenant))
    job_id: str = answer.json()["id"]
    return job_id


def line(message: str, job: str | None, level: Any = "info", **fields: Any) -> LogLine:
    return LogLine(1000.5, level, "call_failed", message, job, fields)


def test_a_tenant_sees_the_lines_of_its_jobs_and_no_others(api: ApiDouble) -> None:
    ours, theirs = submitted(api, "studio"), submitted(api, "other")
    api.services.log_lines.add([line("ours", ours), line("theirs", theirs), line("the farm's", None, "error")])
    studio = api.key("studio")
    page = api.http.get(f"/v1/jobs/{ours}/logs", headers=studio).json()
    check("LogLineList", page)
    check("LogLine", page["data"][0])
    assert [one["message"] for one in page["data"]] == ["ours"]
    assert api.http.get(f"/v1/jobs/{theirs}/logs", headers=studio).status_code == 404
    assert api.http.get("/v1/logs", headers=studio).status_code == 403
    assert api.http.get(f"/v1/jobs/{theirs}/logs", headers=api.key("admin")).status_code == 200


def test_an_administrator_sees_the_faults_of_the_whole_farm(api: ApiDouble) -> None:
    job = submitted(api, "studio")
    api.services.log_lines.add([line("fine", job), line("bad", job, "warning"), line("worse", None, "error")])
    admin = api.key("admin")

    def found(**query: Any) -> list[str]:
        return [one["message"] for one in api.http.get("/v1/logs", params=query, headers=admin).json()["data"]]

    assert found() == ["bad", "worse"]
    assert found(level="error") == ["worse"]
    assert found(level="info") == ["fine", "bad", "worse"]
    assert api.http.get("/v1/logs?level=loud", headers=admin).status_code == 422


def test_pages_go_on_after_the_last_line_and_begin_at_the_newest(api: ApiDouble) -> None:
    job, admin = submitted(api, "studio"), api.key("admin")
    api.services.log_lines.add([line(f"{number}", job) for number in range(7)])
    seen: list[str] = []
    page: dict[str, Any] = {"has_more": True, "last_id": 0}
    while page["has_more"]:
        query = {"after": page["last_id"], "limit": 3}
        page = api.http.get(f"/v1/jobs/{job}/logs", params=query, headers=admin).json()
        seen += [one["message"] for one in page["data"]]
    assert seen == [f"{number}" for number in range(7)]
    newest = api.http.get(f"/v1/jobs/{job}/logs?limit=2", headers=admin).json()
    assert ([one["message"] for one in newest["data"]], newest["has_more"]) == (["5", "6"], True)
    after_all = api.http.get(f"/v1/jobs/{job}/logs", params={"after": newest["last_id"]}, headers=admin).json()
    assert (after_all["data"], after_all["has_more"], after_all["last_id"]) == ([], False, None)


def test_the_farms_insides_are_for_administrators_alone(api: ApiDouble) -> None:
    job = submitted(api, "studio")
    message = "call failed: OSError: /srv/longtake/weights.bin at 10.0.3.7:6379\n  File /usr/lib/python3/x.py, line 3"
    api.services.log_lines.add(
        [line(message, job, "warning", take="red", gang="pool-1-0", node="ip-10-0-3-7", pids="12")]
    )
    (seen,) = api.http.get(f"/v1/jobs/{job}/logs", headers=api.key("studio")).json()["data"]
    assert seen["message"] == "call failed: OSError: [path] at [address]"
    assert seen["fields"] == {"take": "red", "gang": "pool-1-0"}
    (whole,) = api.http.get(f"/v1/jobs/{job}/logs", headers=api.key("admin")).json()["data"]
    assert whole["message"] == message
    assert whole["fields"]["node"] == "ip-10-0-3-7"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("take red goes on: 12 of 40 calls are done", "take red goes on: 12 of 40 calls are done"),
        ("120/200 calls, Wan-AI/Wan2.2", "120/200 calls, Wan-AI/Wan2.2"),
        ("no room at s3://bucket/prefix/x", "no room at [address]"),
        ("cannot read '../a/b.bin', ~/c/d", "cannot read '[path]', [path]"),
        ("node " + "ab12" * 14 + " is gone, pid 3122", "node [id] is gone, [process]"),
        ("at fe80::1:2 and C:\\farm\\x", "at [address] and [path]"),
        ("", ""),
    ],
)
def test_paths_addresses_and_ids_are_hidden_and_words_are_not(message: str, shown: str) -> None:
    assert hide_insides(message) == shown


@given(
    before=st.text("abc :=('\"\n", max_size=10),
    parts=st.lists(st.text("abz019._-", min_size=1, max_size=8), min_size=2, max_size=5),
)
def test_no_absolute_path_gets_through(before: str, parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    assert path not in hide_insides(f"{before} {path} and more")


def test_an_error_shows_a_tenant_nothing_of_the_farms_insides(api: ApiDouble) -> None:
    """Wherever it is shown: the job, its events, its explanation, the video."""
    message = "call failed: OSError: /srv/weights.bin at 10.0.3.7:6379"
    error = {"code": "call_failed", "message": message, "attempts": [_attempt(message)]}
    studio, admin = api.key("studio"), api.key("admin")
    job = api.http.post("/v1/videos", json={"prompt": "a ball"}, headers=studio).json()["id"]
    api.services.lifecycle.apply(job, "fail", reason=message, now=time.time(), error=error)
    seen = {"Last-Event-ID": "0"}
    for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/events", f"/v1/jobs/{job}/explain", f"/v1/videos/{job}"):
        assert "/srv" not in (told := api.http.get(path, headers=studio | seen).text), path
        assert "OSError: [path] at [address]" in told, path
        assert message in api.http.get(path, headers=admin | seen).text, path
    assert "attempts" not in api.http.get(f"/v1/jobs/{job}", headers=studio).json()["error"]
    assert api.http.get(f"/v1/jobs/{job}", headers=admin).json()["error"]["attempts"] == [_attempt(message)]


def _attempt(message: str) -> dict[str, Any]:
    return {"gang": "pool-1-0", "kind": "call_raised", "detail": message, "at": 1000.5}
