"""Loads diffusers and transformers, which several threads of a process may need first at the same time.

While they load they put another module in their own place. A thread whose `import` statement waits for that gets the
module that was there before, which lacks most names. `importlib.import_module` looks again after it has waited.
"""

import importlib
from typing import Any


def load_library(name: str) -> Any:
    """The module of this name, wholly loaded."""
    return importlib.import_module(name)
