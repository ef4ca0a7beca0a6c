"""Keeps diffusers, transformers and the hub client from writing to the user's terminal.

Their switches are global to the process, so these are meant for short stretches: loading, downloading.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silences progress bars and every log below an error; puts things back as they were. What loads is imported."""
    with ExitStack() as stack:
        stack.enter_context(quiet_downloads())
        for name in ("diffusers.utils.logging", "transformers.utils.logging"):
            if name in sys.modules:
                stack.enter_context(_quiet_library(sys.modules[name]))
        yield


@contextmanager
def quiet_downloads() -> Iterator[None]:
    """Silences the hub client alone, which is cheap to import."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    had_bars = not are_progress_bars_disabled()
    if had_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        if had_bars:
            enable_progress_bars()


@contextmanager
def _quiet_library(logging: Any) -> Iterator[None]:
    """`logging` is a library's own logging module; diffusers and transformers share its design."""
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
