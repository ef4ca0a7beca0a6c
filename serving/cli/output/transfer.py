"""How much of a file has been transferred, as a bar on stderr if that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.cli.output.terminal import open_console


@contextmanager
def transfer_bar(num_bytes: int | None) -> Iterator[Callable[[int], object]]:
    """What to call with the bytes that are there, while the block runs."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        BarColumn(bar_width=None),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=open_console(stderr=True), transient=True, expand=True) as bars:
        bar = bars.add_task("", total=num_bytes)
        yield lambda done: bars.update(bar, completed=done)
