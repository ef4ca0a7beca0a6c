"""How far a render is, on stderr: a live bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.cli.output.terminal import open_console, tell
from serving.render.local.progress import Progress
from serving.settings import PLAIN_PROGRESS_S

OnProgress = Callable[[Progress], None]


@contextmanager
def watch(*, fps: int) -> Iterator[OnProgress]:
    """What a render should call with its progress while the block runs."""
    if not sys.stderr.isatty():
        yield PlainLines(fps=fps)
        return
    with _bar(fps) as on_progress:
        yield on_progress


class PlainLines:
    """Writes a line at most every PLAIN_PROGRESS_S seconds, and one at the end."""

    def __init__(
        self,
        *,
        fps: int,
        write: Callable[[str], object] = tell,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fps = fps
        self._write = write
        self._now = now
        self._last_s: float | None = None
        self._last_line = ""

    def __call__(self, progress: Progress) -> None:
        done = progress.frames_encoded == progress.frames_total
        now_s = self._now()
        if not done and self._last_s is not None and now_s - self._last_s < PLAIN_PROGRESS_S:
            return
        line = describe(progress, fps=self._fps)
        if line != self._last_line:
            self._write(line)
            self._last_s, self._last_line = now_s, line


def describe(progress: Progress, *, fps: int) -> str:
    """One line: calls, latents, the head of the film that is encoded, time left."""
    parts = [
        f"calls {progress.calls_done}/{progress.calls_total}",
        f"latents {progress.latents_finished}/{progress.latents_total}",
        describe_head(progress, fps=fps),
        describe_left(progress),
    ]
    return ", ".join(part for part in parts if part)


def describe_head(progress: Progress, *, fps: int) -> str:
    """How much of the film, from its head, is encoded."""
    return f"film {progress.frames_encoded / fps:.1f}/{progress.frames_total / fps:.1f} s"


def describe_left(progress: Progress) -> str:
    """The time left, or nothing while it is unknown."""
    if progress.seconds_left is None:
        return ""
    minutes, seconds = divmod(max(0, round(progress.seconds_left)), 60)
    return f"{minutes}:{seconds:02d} left"


@contextmanager
def _bar(fps: int) -> Iterator[OnProgress]:
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        BarColumn(bar_width=None),
        TextColumn("calls {task.fields[calls]}"),
        TextColumn("latents {task.fields[latents]}"),
        TextColumn("{task.fields[head]}", markup=False),
        TextColumn("{task.fields[left]}"),
    )
    with Bars(*columns, console=open_console(stderr=True), transient=True, expand=True) as bars:
        bar = bars.add_task("", total=None, calls="0", latents="0", head="", left="")

        def show(progress: Progress) -> None:
            bars.update(
                bar,
                total=progress.calls_total,
                completed=progress.calls_done,
                calls=f"{progress.calls_done}/{progress.calls_total}",
                latents=f"{progress.latents_finished}/{progress.latents_total}",
                head=describe_head(progress, fps=fps),
                left=describe_left(progress),
            )

        yield show
