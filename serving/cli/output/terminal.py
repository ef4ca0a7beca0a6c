"""The one place through which commands print: people's text without control characters, in any encoding, at any width.

Commands give plain strings and tables; nothing else in serving.cli prints, opens a console or makes rich's texts (ruff
checks it). stdout is for results, stderr for what is said beside them.
"""

import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from cluster.contract.plain_text import make_plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_PIPE_WIDTH = 200
"""Columns of a table that no terminal shows: nothing in it should be cut."""


def set_up_streams() -> None:
    """Let stdout and stderr replace what their encoding cannot write, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def print_line(text: str) -> None:
    """One line of a result."""
    print(make_plain(text), flush=True)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """The value as JSON; on one line without `indent`."""
    text = json.dumps(value, indent=indent, ensure_ascii=not _writes_unicode(sys.stdout))
    print(make_plain(text, lines=True), flush=True)


def print_answer(found: Any, words: str, *, as_json: bool) -> None:
    """What the farm answered: as JSON, or in words."""
    if as_json:
        print_json(found)
    else:
        print_line(words)


def tell(text: str) -> None:
    """Something for people to know, on stderr; it may have several lines."""
    print(make_plain(text, lines=True), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """An error or a warning on stderr; each of its lines says from which program it comes."""
    for line in text.splitlines():
        print(f"longtake: {make_plain(line)}", file=sys.stderr, flush=True)


def print_table(table: "Table") -> None:
    """A table of a result."""
    open_console().print(table)


def open_console(*, stderr: bool = False) -> "Console":
    """A console that shows strings as they are, without control characters or markup, and cuts nothing if its output is
    read by a program."""
    from rich.console import Console
    from rich.text import Text

    class PlainConsole(Console):
        """Makes every string plain before it is measured, so that columns stay in line."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(make_plain(text), **options)

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return PlainConsole(highlight=False, markup=False, emoji=False, stderr=stderr, width=width)


def open_table(*columns: str) -> "Table":
    """A table without lines between rows. A column whose name ends with ">" holds numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        add_column(table, name)
    return table


def open_facts() -> "Table":
    """A table of names and what is known by them, a fact a line."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bright_black", no_wrap=True)
    table.add_column()
    return table


def add_column(table: "Table", name: str) -> None:
    """A column that is never cut while another can give way; ">" at the end of its name: it holds numbers. A name may
    have two lines."""
    from rich.text import Text

    table.add_column(Text(name.rstrip(">")), justify="right" if name.endswith(">") else "left", no_wrap=True)


def add_words_column(table: "Table", name: str) -> None:
    """A column that gives way on a narrow terminal; its cells are made by `cut_words`."""
    table.add_column(name, min_width=8)


def styled(*parts: str | tuple[str, str]) -> "Text":
    """Strings in a row, each alone or with its style."""
    from rich.text import Text

    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((make_plain(text), style) for text, style in pairs))


def cut_words(text: str, style: str = "") -> "Text":
    """Words on one line, cut if there is no room."""
    from rich.text import Text

    return Text(make_plain(text), style=style, no_wrap=True, overflow="ellipsis")


def _writes_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("_", "-").startswith("utf")
