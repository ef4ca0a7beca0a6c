"""How fast the Api answers is counted by route, told to the Director once, and keeps nobody waiting."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from serving.api.latency import Latencies
from serving.telemetry.histograms import ApiReport, Counted, Labels
from tests.serving.api.api_double import ApiDouble, running, wait_until


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiDouble]:
    monkeypatch.setattr("serving.api.app.API_REPORT_S", 0.02)
    with running(tmp_path) as double:
        yield double


def total(reports: Iterable[ApiReport]) -> dict[Labels, int]:
    """Requests by labels over all reports."""
    counts: dict[Labels, int] = {}
    for report in reports:
        for labels, counted in report.requests.items():
            counts[labels] = counts.get(labels, 0) + sum(counted.counts)
    return counts


def test_requests_are_told_by_the_template_of_their_route(api: ApiDouble) -> None:
    job_id = api.submit()["id"]
    for path in (f"/v1/jobs/{job_id}", "/v1/jobs/job_none", "/v1/jobs", "/nowhere/at/all"):
        api.http.get(path)
    api.http.request("PROPFIND", "/v1/jobs")
    told = {
        ("/v1/jobs", "POST", "2xx"): 1,
        ("/v1/jobs/{job_id}", "GET", "2xx"): 1,
        ("/v1/jobs/{job_id}", "GET", "4xx"): 1,
        ("/v1/jobs", "GET", "2xx"): 1,
        ("other", "GET", "4xx"): 1,
    }
    wait_until(lambda: told.items() <= total(api.live.reports).items())
    wait_until(lambda: any(method == "other" for _, method, _ in total(api.live.reports)))
    assert not any(job_id in label for labels in total(api.live.reports) for label in labels)


def test_what_is_measured_without_a_director_is_told_to_the_next_once(api: ApiDouble) -> None:
    api.live.away = True
    for _ in range(50):
        assert api.http.get("/v1/models").status_code == 200
    api.live.away = False
    wait_until(lambda: total(api.live.reports).get(("/v1/models", "GET", "2xx"), 0) >= 50)
    assert total(api.live.reports)["/v1/models", "GET", "2xx"] == 50
    assert [report.number for report in api.live.reports] == list(range(1, len(api.live.reports) + 1))


def test_a_director_that_hangs_keeps_no_request_waiting(api: ApiDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, free = threading.Event(), threading.Event()

    def hang(report: ApiReport) -> None:
        asked.set()
        free.wait()

    monkeypatch.setattr(api.live, "hear_api", hang)
    try:
        api.http.get("/v1/models")
        wait_until(asked.is_set)
        assert all(api.http.get("/v1/models").status_code == 200 for _ in range(20))
        assert not free.is_set()
    finally:
        free.set()


def test_events_that_come_while_somebody_watches_are_timed(api: ApiDouble) -> None:
    job_id = api.submit()["id"]
    with api.http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        lines = answer.iter_lines()
        next(lines)
        api.act(job_id, "cancel")
        assert any("cancelled" in line for line in lines)
    wait_until(lambda: sum(sum(report.events_lag.counts) for report in api.live.reports) == 1)
    assert sum(report.events_lag.total for report in api.live.reports) < 60


def test_a_client_that_missed_events_is_no_lag(api: ApiDouble) -> None:
    job_id = api.submit()["id"]
    for action in ("pause", "resume", "cancel"):
        api.act(job_id, action)
    first = api.services.jobs.events_after(0, job_id=job_id)[0].id
    with api.http.stream("GET", f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": str(first)}) as answer:
        assert sum(line.startswith("event: change") for line in answer.iter_lines()) == 3
    seen = ("/v1/jobs/{job_id}/events", "GET", "2xx")
    wait_until(lambda: seen in total(api.live.reports))
    assert all(not any(report.events_lag.counts) for report in api.live.reports)


def test_a_report_whose_answer_is_lost_is_sent_again_as_it_was() -> None:
    latencies = measured()
    first = latencies.report()
    latencies.request(route="/v1/jobs", method="GET", status=200, seconds=0.1)
    assert latencies.report() is first
    latencies.heard()
    second = latencies.report()
    assert first is not None
    assert second is not None
    assert (first.number, second.number, first.sender) == (1, 2, second.sender)
    assert total([first, second]) == {("/v1/jobs", "GET", "2xx"): 2}


def test_nothing_is_told_where_nothing_happened() -> None:
    assert Latencies(clock=lambda: 0.0).report() is None


def test_what_is_kept_does_not_grow_with_requests() -> None:
    latencies = measured()
    for status in itertools.islice(itertools.cycle((200, 404, 500)), 10_000):
        latencies.request(route="/v1/jobs", method="GET", status=status, seconds=status / 100)
    latencies.heard()
    report = latencies.report()
    assert report is not None
    assert len(report.requests) <= 3
    assert all(isinstance(counted, Counted) and len(counted.counts) == 12 for counted in report.requests.values())


def measured(clock: Callable[[], float] = lambda: 0.0) -> Latencies:
    """Of one request."""
    latencies = Latencies(clock=clock)
    latencies.request(route="/v1/jobs", method="GET", status=200, seconds=0.1)
    return latencies
