"""Fits a prompt and its style to the tokens that a model reads: the style stays, the prompt's own end goes.

A model's pipeline drops what is too long without a word, from the end: the style first. Pure.
"""

import bisect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from serving.storyboard.schema import add_style


class TokenCounter(Protocol):
    """What a model reads of a prompt."""

    limit: int
    """Tokens."""

    def fits(self, text: str) -> bool:
        """Whether it reads all of a text."""

    def count(self, text: str) -> int:
        """Tokens of a text."""


@dataclass(frozen=True)
class FittedPrompt:
    """A prompt as a model is given it."""

    text: str
    """With its style."""
    lost_prompt: str = ""
    """The end of the prompt that the model is not given; empty if all of it fits."""
    lost_style: str = ""


def fit_prompt(prompt: str, style: str, tokens: TokenCounter | None) -> FittedPrompt:
    """The prompt with its style, cut to the limit at the ends of words; whole for a model whose limit is not known.

    A style keeps what the prompt leaves, but at least half of the limit; the prompt takes the rest.
    """
    whole = add_style(prompt, style)
    if tokens is None or tokens.fits(whole):
        return FittedPrompt(whole)

    def style_fits(start: str) -> bool:
        return tokens.count(start) <= tokens.limit // 2 or tokens.fits(add_style(prompt, start))

    kept_style = _longest_start(style, style_fits)
    kept = _longest_start(prompt, lambda start: tokens.fits(add_style(start, kept_style)))
    return FittedPrompt(add_style(kept, kept_style), _after(kept, prompt), _after(kept_style, style))


def _after(kept: str, text: str) -> str:
    return text[len(kept) :].strip(" ,;:")


def _longest_start(text: str, fits: Callable[[str], bool]) -> str:
    """The longest start of a text that fits, up to the end of a word; within one if it is the first."""
    words = [match.end() for match in re.finditer(r"\S+", text)]
    return _longest(text, words, fits) or _longest(text, range(1, len(text) + 1), fits)


def _longest(text: str, ends: Sequence[int], fits: Callable[[str], bool]) -> str:
    index = bisect.bisect_left(ends, True, key=lambda end: not fits(text[:end]))
    while index and not fits(text[: ends[index - 1]]):  # a longer text may have fewer tokens
        index -= 1
    return text[: ends[index - 1]].rstrip(" ,;:") if index else ""
