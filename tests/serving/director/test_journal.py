"""The journal keeps what is worth keeping, bounded, says what it lost, and loses nothing while the store answers."""

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.director.reporting.journal import Journal
from serving.errors import StoreUnavailable
from serving.store.log_lines import LogLine


class Store:
    """Takes lines, or is away."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.away = False
        self.meanwhile: Any = None

    def add(self, lines: Sequence[LogLine]) -> None:
        if self.meanwhile is not None:
            self.meanwhile()
        if self.away:
            raise StoreUnavailable("it is away")
        self.lines += lines

    @property
    def messages(self) -> list[str]:
        return [line.message for line in self.lines]


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.Logger("serving.test")
    yield logger
    logger.handlers.clear()


def test_what_tells_of_a_job_a_gang_or_a_fault_is_kept_with_its_ids(log: logging.Logger) -> None:
    journal, store = Journal(), Store()
    log.addHandler(journal)
    log.info("nothing much", extra={"action": "tidy"})
    log.info("of %s", "a job", extra={"action": "start_job", "job": "job_a", "take": "red", "what": ("a", 1)})
    log.info("of a gang", extra={"action": "gang_joined", "gang": "g-1"})
    log.error("of a fault", extra={"action": "sync"})
    log.debug("of a job, too small", extra={"action": "x", "job": "job_a"})
    journal.write(store)  # type: ignore[arg-type]
    assert [(line.level, line.action, line.message, line.job_id, line.fields) for line in store.lines] == [
        ("info", "start_job", "of a job", "job_a", {"take": "red", "what": "('a', 1)"}),
        ("info", "gang_joined", "of a gang", None, {"gang": "g-1"}),
        ("error", "sync", "of a fault", None, {}),
    ]
    journal.write(store)  # type: ignore[arg-type]
    assert len(store.lines) == 3, "each is written once"


def test_a_traceback_leaves_only_its_last_line(log: logging.Logger) -> None:
    journal, store = Journal(), Store()
    log.addHandler(journal)
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("it failed", extra={"action": "internal_error", "job": "job_a"})
    journal.write(store)  # type: ignore[arg-type]
    assert store.messages == ["it failed: ValueError: why"]


def test_while_the_store_is_away_the_newest_are_kept_and_the_gap_is_said(log: logging.Logger) -> None:
    journal, store = Journal(most=3), Store()
    log.addHandler(journal)
    store.away = True
    for number in range(8):
        log.warning("line %d", number, extra={"action": "test"})
        with pytest.raises(StoreUnavailable):
            journal.write(store)  # type: ignore[arg-type]
    store.away = False
    journal.write(store)  # type: ignore[arg-type]
    assert store.messages[1:] == ["line 5", "line 6", "line 7"]
    assert (store.lines[0].action, store.lines[0].fields) == ("log_gap", {"lost": 5})
    log.warning("line 8", extra={"action": "test"})
    journal.write(store)  # type: ignore[arg-type]
    assert store.messages[4:] == ["line 8"], "a gap is said once"


def test_what_is_said_again_and_again_is_one_line_that_says_how_often(log: logging.Logger) -> None:
    journal, store = Journal(most=3), Store()
    log.addHandler(journal)
    log.warning("before", extra={"action": "test"})
    for _ in range(100):
        log.warning("the store is away", extra={"action": "store"})
    journal.write(store)  # type: ignore[arg-type]
    assert [(line.message, line.fields) for line in store.lines] == [
        ("before", {}), ("the store is away", {"times": 100}),
    ]  # fmt: skip


def test_what_is_said_while_it_is_being_written_is_written_too(log: logging.Logger) -> None:
    journal, store = Journal(), Store()
    log.addHandler(journal)
    log.warning("again", extra={"action": "test"})
    said = iter([None])

    def say() -> None:
        for _ in said:
            log.warning("again", extra={"action": "test"})

    store.meanwhile = say
    journal.write(store)  # type: ignore[arg-type]
    assert store.messages == ["again", "again"]


def test_a_record_that_cannot_be_read_harms_nobody(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    journal, store = Journal(), Store()
    log.addHandler(journal)
    log.warning("%d", "no number", extra={"action": "test"})
    log.warning("fine", extra={"action": "test"})
    journal.write(store)  # type: ignore[arg-type]
    assert store.messages == ["fine"]
    assert "no number" in capsys.readouterr().err


def test_many_threads_may_log_while_one_writes(log: logging.Logger) -> None:
    journal, store = Journal(most=10_000), Store()
    log.addHandler(journal)

    def say(name: str) -> None:
        for number in range(200):
            log.info("%s %d", name, number, extra={"action": "test", "job": name})

    threads = [threading.Thread(target=say, args=(f"job_{k}",)) for k in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        journal.write(store)  # type: ignore[arg-type]
    journal.write(store)  # type: ignore[arg-type]
    assert len(set(store.messages)) == len(store.messages) == 800
    for k in range(4):
        assert [line.message for line in store.lines if line.job_id == f"job_{k}"] == [
            f"job_{k} {number}" for number in range(200)
        ]


@given(
    message=st.text(),
    value=st.none() | st.integers() | st.floats() | st.text() | st.tuples(st.text()),
)
def test_whatever_is_logged_can_be_kept_by_a_database(message: str, value: Any) -> None:
    logger, journal, store = logging.Logger("serving.test"), Journal(), Store()
    logger.addHandler(journal)
    logger.warning("%s", f"{message}\ud800\0", extra={"action": "test", "value": value})
    journal.write(store)  # type: ignore[arg-type]
    (line,) = store.lines
    assert "\0" not in line.message
    line.message.encode()
    json.dumps(line.fields, allow_nan=False).encode()


def test_lines_that_the_store_cannot_hold_do_not_stand_in_the_way(log: logging.Logger) -> None:
    journal, store = Journal(), Store()
    log.addHandler(journal)
    log.warning("bad", extra={"action": "test"})

    def refuse() -> None:
        raise ValueError("it is a bug")

    store.meanwhile = refuse
    with pytest.raises(ValueError, match="bug"):
        journal.write(store)  # type: ignore[arg-type]
    store.meanwhile = None
    log.warning("good", extra={"action": "test"})
    journal.write(store)  # type: ignore[arg-type]
    assert [line.action for line in store.lines] == ["log_gap", "test"]
    assert store.messages[1] == "good"


@settings(max_examples=200)
@given(steps=st.lists(st.sampled_from(["say", "write", "fail"]), max_size=60), most=st.integers(1, 5))
def test_every_line_is_written_once_in_order_or_counted_as_lost(steps: list[str], most: int) -> None:
    logger, journal, store = logging.Logger("serving.test"), Journal(most=most), Store()
    logger.addHandler(journal)
    said = 0
    for step in [*steps, "write"]:
        if step == "say":
            logger.warning("%d", said, extra={"action": "test"})
            said += 1
            continue
        store.away = step == "fail"
        try:
            journal.write(store)  # type: ignore[arg-type]
        except StoreUnavailable:
            assert store.away
    expected = 0
    for line in store.lines:
        if line.action == "log_gap":
            expected += line.fields["lost"]
        else:
            assert line.message == str(expected)
            expected += 1
    assert expected == said
