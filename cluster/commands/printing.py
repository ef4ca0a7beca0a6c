"""How commands print what others wrote: without control characters. Results go to stdout, all else to stderr."""

import json
import sys
from typing import Any

from cluster.contract.plain_text import make_plain


def print_line(text: str) -> None:
    """One line of a result."""
    print(make_plain(text), flush=True)


def print_json(value: Any) -> None:
    """The value as JSON that any encoding can write."""
    print(make_plain(json.dumps(value, indent=2), lines=True), flush=True)


def tell(text: str) -> None:
    """An error or something to know, on stderr; each of its lines says from which program it comes."""
    for line in text.splitlines():
        print(f"longtake: {make_plain(line)}", file=sys.stderr, flush=True)
