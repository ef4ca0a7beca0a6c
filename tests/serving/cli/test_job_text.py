"""Jobs in a person's words: lines, pictures of a size, times and money. Pure, with a clock of their own."""

import io
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from serving.cli.options import read_due
from serving.cli.output.job_text import (
    byte_words,
    clock,
    cost_words,
    due_words,
    left_words,
    money,
    progress_line,
    rough,
    span,
)
from serving.cli.submit import quote_words
from serving.cli.watch import PlainJobLines, choose_takes, last_words, picture
from serving.errors import UserError
from serving.settings import PLAIN_PROGRESS_S

NOW = datetime(2027, 1, 31, 12, 0).timestamp()


def take(key: str, status: str = "rendering", done: int = 0, **values: Any) -> dict[str, Any]:
    cost = {"gpu_seconds": 1.5, "wasted_gpu_seconds": 0.0, "usd": 0.0}
    counts = {"calls": 20, "calls_done": done, "latents": 10, "latents_finished": done // 2, "frames": 37}
    state = {"status": status, "progress": 5.0 * done, "frames_decoded": 0, "cached": False, "retries": 0}
    return {"key": key, "shots": [key], "cost": cost, **counts, **state, **values}


def job(**values: Any) -> dict[str, Any]:
    return {
        "id": "job_" + "0" * 22,
        "title": "A ball",
        "version": 1,
        "status": "in_progress",
        "reason": "a gang is free",
        "progress": 42.0,
        "takes": [take("open", done=8), take("dusk", "waiting")],
        "cost": {"gpu_seconds": 90.0, "wasted_gpu_seconds": 0.0, "usd": 0.0},
        "budget_usd": None,
        "due_at": None,
        "at_risk": False,
        "eta": NOW + 75,
        "started_at": NOW - 60,
        "finished_at": None,
        "film": None,
        "error": None,
        **values,
    }


def drawn(value: dict[str, Any], *, height: int = 24, width: int = 100) -> str:
    screen = io.StringIO()
    Console(file=screen, width=width, height=height, highlight=False).print(picture(value, NOW, height=height))
    return screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (0, "0.0 s", "0 s"), (9.94, "9.9 s", "10 s"), (9.96, "10 s", "10 s"), (59.4, "59 s", "59 s"),
        (75, "1:15 min", "1 min"), (3599, "59:59 min", "59 min"), (7505, "2:05 h", "2 h"), (5400, "1:30 h", "90 min"),
        (100_000, "1 d 3 h", "27 h"), (200_000, "2 d 7 h", "2 d"), (-1, "0.0 s", "0 s"),
    ],
)  # fmt: skip
def test_lengths_of_time_have_the_unit_that_fits(seconds: float, long: str, short: str) -> None:
    assert (span(seconds), rough(seconds)) == (long, short)


def test_money_has_as_many_digits_as_say_something() -> None:
    assert [money(usd) for usd in (0, 1234.5, 0.25, 0.00012)] == ["$0.00", "$1,234.50", "$0.2500", "$0.000120"]
    assert [byte_words(size) for size in (0, 1023, 1024, 5 << 30)] == ["0 bytes", "1023 bytes", "1.0 KiB", "5.0 GiB"]


def test_a_moment_has_its_date_unless_it_is_today() -> None:
    assert (clock(NOW + 60, NOW), clock(NOW + 86_400, NOW)) == ("12:01", "2027-02-01 12:00")


def test_one_line_says_how_far_a_job_is() -> None:
    head = f"job_{'0' * 22} in progress 42 %, calls 8/40"
    assert progress_line(job(), NOW) == f"{head}, 1:15 min left, 1:30 min of GPU"
    paused = job(status="paused", reason="its budget is spent", budget_usd=2.0, cost={**job()["cost"], "usd": 2.0})
    assert progress_line(paused, NOW).endswith("1:30 min of GPU, $2.00 of $2.00, its budget is spent")


def test_wasted_seconds_budget_and_due_time_are_told() -> None:
    spent = {"gpu_seconds": 30.0, "wasted_gpu_seconds": 30.0, "usd": 0.5}
    assert cost_words(job(cost=spent, budget_usd=3)) == "1:00 min of GPU (30 s wasted), $0.5000 of $3.00"
    assert due_words(job(due_at=NOW + 60, at_risk=True), NOW) == "due 12:01, at risk"
    over = {"status": "completed", "finished_at": NOW, "eta": None}
    assert due_words(job(due_at=NOW - 60, **over), NOW) == "due 11:59, missed"
    assert left_words(job(**over), NOW) == "took 1:00 min"


def test_the_end_of_a_job_is_told_with_what_can_be_done() -> None:
    failed = job(status="failed", error={"code": "poison", "message": "a call killed three gangs"})
    assert "a call killed three gangs\n`longtake retry" in last_words(failed, NOW)
    assert "`longtake resume" in last_words(job(status="paused", reason="budget"), NOW)
    assert last_words(job(status="cancelled", reason="by admin"), NOW).endswith("is cancelled: by admin")


def test_a_picture_shows_every_take_and_when_it_ends() -> None:
    text = drawn(job(takes=[take("open", done=8), take("old", "decoded", done=20, cached=True)]))
    for words in (
        "A ball",
        "in progress",
        "open",
        "calls 8/20, latents 4/10",
        "rendered before",
        "1:15 min left, at 12:01",
    ):
        assert words in text


@given(st.lists(st.sampled_from(["waiting", "rendering", "rendered", "decoded"]), max_size=60), st.integers(7, 40))
def test_a_picture_is_never_higher_than_its_terminal(statuses: list[str], height: int) -> None:
    takes = [take(f"take-{index}", status) for index, status in enumerate(statuses)]
    assert len(drawn(job(takes=takes), height=height).splitlines()) < height
    shown = choose_takes(takes, height)
    assert [item["key"] for item in takes if item in shown] == [item["key"] for item in shown]
    at_work = [item for item in takes if item["status"] in ("rendering", "rendered")]
    assert all(item in shown for item in at_work[: height - 1])


def test_without_a_terminal_a_line_comes_with_each_status_and_seldom_else() -> None:
    lines: list[str] = []
    clock_s = iter([0.0, 1.0, PLAIN_PROGRESS_S, PLAIN_PROGRESS_S + 1, PLAIN_PROGRESS_S + 2])
    write = PlainJobLines(write=lines.append, now=lambda: next(clock_s))
    for status, progress in (("queued", 0), ("queued", 1), ("queued", 2), ("in_progress", 3), ("completed", 100)):
        write(job(status=status, progress=progress))
    assert [line.split()[1:4] for line in lines] == [
        ["queued", "0", "%,"],
        ["queued", "2", "%,"],
        ["in", "progress", "3"],
    ]


def test_a_price_names_what_need_not_be_rendered() -> None:
    takes = [{"cached": False}, {"cached": True}]
    price = {
        "takes": takes,
        "calls": 96,
        "gpu_seconds": 12.0,
        "usd": 0.5,
        "finishes_at": NOW + 60,
        "due_feasible": False,
    }
    assert quote_words(price, NOW) == (
        "1 of 2 takes to render: 96 calls, 12 s of GPU, $0.5000; done in about 1:00 min, at 12:01, which is too late"
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("in 2h", 7200), ("in 90min", 5400), ("in 90 m", 5400), ("In 1d 6h", 108_000), ("in 1.5h", 5400),
        ("in 30s", 30), ("2027-01-31T12:01", 60), ("2027-01-31 12:00:30", 30),
    ],
)  # fmt: skip
def test_due_times_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert read_due(text, NOW) == NOW + seconds


@given(st.text(max_size=20) | st.text(max_size=10).map("in {}".format))
def test_any_due_time_is_in_the_future_or_refused(text: str) -> None:
    refused = False
    try:
        at = read_due(text, NOW)
        assert at is not None
        assert at > NOW
    except UserError as error:
        refused = "--due" in str(error)
    assert refused or at is not None
