"""How many tokens of a prompt a model reads, and how many one takes. Imports neither torch nor transformers."""

import html
import re
import unicodedata
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.errors import ModelError
from serving.models.config_files import is_integer, read_config

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_TOKENS: Final = 512
"""Tokens of a prompt: the default of WanPipeline, which is what Wan was trained with."""

LEAST_TOKENS: Final = 4
"""Tokens that a tokenizer must allow for; with fewer no prompt says anything."""


def clean_prompt(text: str) -> str:
    """As WanPipeline cleans a prompt before it is cut into tokens (prompt_clean of diffusers' pipeline_wan)."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip()


def read_token_limit(tokenizer_folder: Path, name: str) -> int:
    """The most tokens of a prompt, its end mark included: WanPipeline's, or fewer if the tokenizer says so.

    Raises ModelError.
    """
    path = tokenizer_folder / "tokenizer_config.json"
    if not path.exists():
        return MAX_TOKENS
    config = read_config(path, name)
    most = config.get("model_max_length", MAX_TOKENS)
    if isinstance(most, float) and most.is_integer():  # transformers writes 1e30 for "no limit"
        most = int(most)
    if not is_integer(most) or most < LEAST_TOKENS:
        raise config.unfit("model_max_length", f"an integer of at least {LEAST_TOKENS}")
    return min(MAX_TOKENS, int(most))


class PromptTokens:
    """Counts the tokens of one checkpoint's prompts. `fetch` gives the folder of its tokenizer, with everything in it;
    `folder` may hold its config alone."""

    def __init__(self, folder: Path, name: str, *, fetch: Callable[[], Path]) -> None:
        self._name = name
        self._fetch = fetch
        self.limit = read_token_limit(folder, name)
        """Tokens of a prompt with its style and its end mark."""

    def fits(self, text: str) -> bool:
        """Whether the model reads all of a text; most texts are so short that no tokenizer is needed to tell.

        Raises ModelError.
        """
        # No token stands for less than a byte, but for the end mark and the mark that some put before the first word.
        most = len(unicodedata.normalize("NFKC", text).encode()) + 2
        return most <= self.limit or self.count(text) <= self.limit

    def count(self, text: str) -> int:
        """Tokens of a text, its end mark included. Raises ModelError."""
        return len(self._tokenizer.encode(clean_prompt(text)).ids)

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        folder = self._fetch()
        path = folder / "tokenizer.json"
        if not path.exists():  # an older one, which transformers turns into a fast one
            from serving.models.loading import load_tokenizer

            tokenizer: Tokenizer = load_tokenizer(folder).backend_tokenizer
        else:
            try:
                tokenizer = Tokenizer.from_file(str(path))
            except Exception as error:  # the library raises Exception itself
                raise ModelError(f"{self._name!r}: cannot read {path}: {str(error).splitlines()[0]}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
