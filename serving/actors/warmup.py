"""What a process of the farm loads before it is asked for anything, so that the first job need not wait for it.

Importing diffusers takes seconds. It begins when there is a Director, which is about when the farm is ready: before
that it would only take the cores from what `longtake up` waits for. A job that comes earlier waits for what is missing.
"""

import logging
from collections.abc import Callable, Iterable

from serving.config.farm import FarmConfig
from serving.errors import LongtakeError

log = logging.getLogger(__name__)


def load_ahead(load: Callable[[str], object], models: Iterable[str]) -> None:
    """Calls `load` with each model. A failure is only logged: the first job meets it too."""
    for model in models:
        try:
            load(model)
        except LongtakeError as error:
            log.warning("%s is not loaded ahead: %s", model, error, extra={"action": "warm_up"})


def models_of(config: FarmConfig) -> list[str]:
    """The models of all pools, each once."""
    return list(dict.fromkeys(pool.model for pool in config.pools))
