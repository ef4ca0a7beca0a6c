import dataclasses
import threading

import pytest

from serving import settings
from serving.store.database import Database
from serving.store.log_lines import LogLine, LogLines
from serving.store.row_expiry import LOG_LINES_KEPT_S, forget_old_rows
from testkit.records import NOW


def line(message: str, *, job: str | None = "job_a", level: str = "info", at: float = NOW) -> LogLine:
    return LogLine(at, level, "test", message, job, {"take": "red", "step": 3})  # type: ignore[arg-type]


def messages(log: LogLines, **how: object) -> list[str]:
    return [found.message for found in log.list(**how)]  # type: ignore[arg-type]


def test_lines_come_back_as_they_were_in_order_after_any_of_them(database: Database) -> None:
    log = LogLines(database)
    written = [line(f"line {number}", level=("info", "warning", "error")[number % 3]) for number in range(6)]
    log.add(written)
    found = log.list()
    assert [dataclasses.replace(one, id=0) for one in found] == written
    assert messages(log, after=found[2].id) == ["line 3", "line 4", "line 5"]
    assert messages(log, after=found[2].id, limit=1) == ["line 3"]
    assert messages(log, limit=2) == ["line 4", "line 5"], "without a place to begin at the newest"
    assert messages(log, after=found[-1].id) == []


def test_lines_of_a_job_and_of_a_level_are_found_alone(database: Database) -> None:
    log = LogLines(database)
    log.add([line("ours"), line("theirs", job="job_b", level="warning"), line("the farm's", job=None, level="error")])
    assert messages(log, job_id="job_a") == ["ours"]
    assert messages(log, level="warning") == ["theirs", "the farm's"]
    assert messages(log, level="error") == ["the farm's"]
    assert messages(log, job_id="job_a", level="error") == []


def test_a_job_keeps_its_newest_lines_and_takes_none_of_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.store.log_lines.LOG_LINES_PER_JOB", 3)
    log = LogLines(database)
    log.add([line("other", job="job_b"), line("farm", job=None)])
    for number in range(5):
        log.add([line(f"{number}"), line(f"{number}+")])
    assert messages(log, job_id="job_a") == ["3+", "4", "4+"]
    assert messages(log, job_id="job_b") == ["other"]
    assert len(messages(log)) == 5


def test_the_farm_keeps_its_newest_lines(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.store.log_lines.LOG_LINES_OF_FARM", 4)
    log = LogLines(database)
    log.add([line(f"{number}", job=f"job_{number}") for number in range(10)])
    assert messages(log) == ["6", "7", "8", "9"]


def test_what_no_database_keeps_is_cut_and_replaced(database: Database) -> None:
    log = LogLines(database)
    log.add([line("a\0b" + "c" * settings.MAX_LOG_CHARS)])
    (found,) = messages(log)
    assert found.startswith("a bc")
    assert len(found) == settings.MAX_LOG_CHARS


def test_old_lines_are_forgotten(database: Database) -> None:
    log = LogLines(database)
    log.add([line("old"), line("new", at=NOW + 10)])
    assert forget_old_rows(database, now=NOW + 1) == 0
    assert forget_old_rows(database, now=NOW + LOG_LINES_KEPT_S) == 1
    assert messages(log) == ["new"]


def test_a_reader_that_goes_on_after_the_last_it_saw_misses_no_line_of_two_writers(database: Database) -> None:
    log = LogLines(database)

    def write(name: str) -> None:
        for number in range(25):
            log.add([line(f"{name} {number}"), line(f"{name} {number}+")])

    writers = [threading.Thread(target=write, args=(name,)) for name in ("one", "two")]
    for writer in writers:
        writer.start()
    seen: list[LogLine] = []
    while True:
        done = not any(writer.is_alive() for writer in writers)
        seen += log.list(after=seen[-1].id if seen else 0)
        if done and not log.list(after=seen[-1].id):
            break
    assert len({found.message for found in seen}) == len(seen) == 100
