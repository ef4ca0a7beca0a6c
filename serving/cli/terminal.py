"""How client commands print: JSON as the API sent it, or tables and lines for people."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_PIPE_WIDTH = 200
"""Columns of a table that no terminal shows: nothing in it should be cut."""


def print_json(value: Any) -> None:
    """The object, as it is."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_answer(found: Any, words: str, *, as_json: bool) -> None:
    """What the farm answered: itself as JSON, or in words."""
    if as_json:
        print_json(found)
    else:
        print(words)


def tell(line: str) -> None:
    """A line for people, beside what a program may read on stdout."""
    print(line, file=sys.stderr, flush=True)


def open_console(*, stderr: bool = False) -> "Console":
    """A console that cuts nothing where its output is read by a program."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(highlight=False, stderr=stderr, width=wide)


def open_table(*columns: str) -> "Table":
    """A table without lines between rows. A column whose name ends with ">" holds numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        add_column(table, name)
    return table


def add_column(table: "Table", name: str) -> None:
    """A column that is never cut while another can give way; ">" at the end of its name: it holds numbers."""
    table.add_column(name.rstrip(">"), justify="right" if name.endswith(">") else "left", no_wrap=True)


def add_words_column(table: "Table", name: str) -> None:
    """A column that gives way where the terminal is narrow; its cells are made by `words`."""
    table.add_column(name, min_width=8)


def words(text: str) -> "Text":
    """A cell of words, cut where there is no room."""
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")
