"""Text that is safe to print: nothing in it steers a terminal, ends a line early or hides what follows. Pure.

What people write (titles, tags, reasons, names) is stored as they wrote it and shown to others. So it is made plain at
the moment it is printed, and nowhere else.
"""

import re
import unicodedata

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 and C1 control characters: escape sequences begin with one of them
    "\u2028\u2029"  # separators of lines and paragraphs
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that turn the direction of the text after them
    "\ud800-\udfff]"  # halves of surrogate pairs, which no encoding can write
)


def make_plain(text: str, *, lines: bool = False) -> str:
    """The text with each unsafe character written as its escape in JSON and Python, such as `\\u001b`.

    It is one line; with `lines`, line feeds are kept.
    """
    return _UNSAFE.sub(lambda match: match[0] if lines and match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


def is_control_character(character: str) -> bool:
    """Whether it is one of Unicode's control characters (category Cc): NUL, escape, line feed, tab and the like."""
    return unicodedata.category(character) == "Cc"
