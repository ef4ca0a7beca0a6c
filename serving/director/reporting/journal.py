"""The Director's journal: log records of its process that tell of a job, of a gang or of a fault, on their way to the
store, where `longtake logs` and the studio find them.

It holds the newest few while the store is away and says how many are missing. It never blocks and never fails whoever
logs. Tracebacks stay in the process's own log.
"""

import contextlib
import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.contract.log_lines import extra_of
from serving import settings
from serving.errors import StoreUnavailable
from serving.store.log_lines import Level, LogLine, LogLines

JOURNAL_LINES = 2000
"""Log lines that the Director keeps while the store cannot take them; the newest ones."""

JOURNAL_BATCH = 500
"""Of those, that it writes at once."""


@dataclass(eq=False)
class _Kept:
    number: int
    """Rises by one with every line."""
    line: LogLine
    times: int = 1
    """Lines like this one, since it was first said."""
    handed_out: bool = field(default=False)
    """It is being written; what is said again is a new line."""


class Journal(logging.Handler):
    """Takes records from any thread; `write` takes them to the store. A batch whose answer was lost is written again,
    and so stands there twice."""

    def __init__(self, *, most: int = JOURNAL_LINES) -> None:
        super().__init__(logging.INFO)
        self._most = most
        self._kept: deque[_Kept] = deque()
        self._said: dict[tuple[str, str, str | None], _Kept] = {}
        """Kept lines by what they say: a store that is away fails the same way repeatedly."""
        self._next = 0
        """Number of the next line to be written, were none lost."""
        self._last = -1

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record that is worth it, in the place of the oldest if there is no room."""
        try:
            line = read_record(record)
        except Exception:
            self.handleError(record)
            return
        if line is None:
            return
        key = _key(line)
        before = self._said.get(key)
        if before is not None and not before.handed_out:
            before.times += 1
            return
        self._last += 1
        kept = self._said[key] = _Kept(self._last, line)
        self._kept.append(kept)
        while len(self._kept) > self._most:
            self._forget_first()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within the block it hears all that our code logs in this process."""
        ours = logging.getLogger("serving")
        ours.addHandler(self)
        try:
            yield
        finally:
            ours.removeHandler(self)

    def write(self, store: LogLines) -> None:
        """Write what is kept, a batch at a time. Raises StoreUnavailable; then it is kept. Lines that the store cannot
        hold, which would be a bug of ours, are given up, so that they do not stand in the way of others."""
        while batch := self._hand_out():
            try:
                store.add(self._as_lines(batch))
            except StoreUnavailable:
                with self._locked():
                    for kept in batch:
                        kept.handed_out = False
                raise
            except Exception:
                self._forget_until(batch[-1].number)
                raise
            self._forget_until(batch[-1].number)
            self._next = batch[-1].number + 1

    def _hand_out(self) -> list[_Kept]:
        with self._locked():
            batch = [kept for kept, _ in zip(self._kept, range(JOURNAL_BATCH), strict=False)]
            for kept in batch:
                kept.handed_out = True
            return batch

    def _as_lines(self, batch: Sequence[_Kept]) -> list[LogLine]:
        lines = [
            replace(kept.line, fields={**kept.line.fields, "times": kept.times}) if kept.times > 1 else kept.line
            for kept in batch
        ]
        lost = batch[0].number - self._next
        if lost > 0:
            words = f"{lost} lines before this one were lost"
            lines.insert(0, LogLine(batch[0].line.at, "warning", "log_gap", words, fields={"lost": lost}))
        return lines

    def _forget_until(self, number: int) -> None:
        with self._locked():
            while self._kept and self._kept[0].number <= number:
                self._forget_first()

    def _forget_first(self) -> None:
        first = self._kept.popleft()
        key = _key(first.line)
        if self._said.get(key) is first:
            del self._said[key]

    def _locked(self) -> Any:
        assert self.lock is not None
        return self.lock


def read_record(record: logging.LogRecord) -> LogLine | None:
    """A record as a line; None for one that tells of no job, no gang and no fault."""
    extra = extra_of(record)
    action, job_id = str(extra.pop("action", "")), extra.pop("job", None)
    if job_id is None and "gang" not in extra and record.levelno < logging.WARNING:
        return None
    message = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        message = f"{message}: {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
    fields = {name: _plain(value) for name, value in extra.items()}
    level: Level = "info"
    if record.levelno >= logging.WARNING:
        level = "error" if record.levelno >= logging.ERROR else "warning"
    return LogLine(record.created, level, action, _text(message), None if job_id is None else str(job_id), fields)


def _key(line: LogLine) -> tuple[str, str, str | None]:
    """What it says, whenever that was."""
    return line.action, line.message, line.job_id


def _plain(value: Any) -> Any:
    """As JSON and every database can hold it."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _text(str(value))


def _text(text: str) -> str:
    return text[: settings.MAX_LOG_CHARS].replace("\0", " ").encode("utf-8", "replace").decode()
