"""What a process of the farm loads before it is asked for anything, so that the first job need not wait for it.

Importing diffusers takes seconds. It is done on a thread and a little later, so that the farm is ready first. A job
that comes meanwhile waits for what is missing, as if nothing had been begun.
"""

import logging
import threading
from collections.abc import Callable, Iterable

from serving.config.farm import FarmConfig
from serving.errors import LongtakeError

WARM_UP_DELAY_S = 3.0
"""Seconds for which a process leaves the cores to the start of the others."""

log = logging.getLogger(__name__)


def warm_up_later(load: Callable[[str], object], models: Iterable[str]) -> None:
    """Calls `load` with each model, on a thread of its own. A failure is only logged: the first job meets it too."""
    timer = threading.Timer(WARM_UP_DELAY_S, _run, (load, tuple(models)))
    timer.daemon = True
    timer.start()


def models_of(config: FarmConfig) -> list[str]:
    """The models of all pools, each once."""
    return list(dict.fromkeys(pool.model for pool in config.pools))


def _run(load: Callable[[str], object], models: tuple[str, ...]) -> None:
    for model in models:
        try:
            load(model)
        except LongtakeError as error:
            log.warning("%s is not loaded ahead: %s", model, error, extra={"action": "warm_up"})
