"""The JSON files of a checkpoint: of bounded size, and every number that is taken from one is checked first.

What is wrong is told with the model, the file, the key, the value and what is allowed.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import ModelError

MAX_CONFIG_BYTES = 16 << 20
"""Bytes of one JSON file of a checkpoint; the largest known, an index of shards, has some hundred thousand."""

MAX_CONFIG_NUMBER = 1_000_000
"""The largest integer that is taken from a config: ten times the largest of any model known."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ConfigFile:
    """What one JSON file says."""

    model: str
    """Name of the checkpoint, as the user wrote it."""
    path: Path
    values: dict[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        """The value as it stands, unchecked."""
        return self.values.get(key, default)

    def integer(self, key: str, default: int) -> int:
        """A positive integer. Raises ModelError."""
        value = self.get(key, default)
        if not is_integer(value) or not 1 <= value <= MAX_CONFIG_NUMBER:
            raise self.unfit(key, f"a positive integer up to {MAX_CONFIG_NUMBER}")
        return int(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """true or false. Raises ModelError."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.unfit(key, "true or false")
        return value

    def share(self, key: str) -> float | None:
        """A number between 0 and 1, both excluded; None if the key is absent or null. Raises ModelError."""
        value = self.get(key)
        if value is None:
            return None
        if not is_number(value) or not 0 < value < 1:
            raise self.unfit(key, "a number between 0 and 1")
        return float(value)

    def positive(self, key: str, default: float) -> float:
        """A finite number above 0. Raises ModelError."""
        value = self.get(key, default)
        if not is_number(value) or value <= 0:
            raise self.unfit(key, "a finite number above 0")
        return float(value)

    def unfit(self, key: str, allowed: str) -> ModelError:
        """The error of a key whose value is not what is allowed."""
        return ModelError(f"{self.model!r}: {self.place}: {key} must be {allowed}, not {shorten(self.get(key))}")

    @property
    def place(self) -> str:
        """The file as a user knows it: with its component, if it belongs to one."""
        return self.path.name if self.path.name in ("model_index.json", "longtake.json") else _in_component(self.path)


def read_config(path: Path, name: str, *, mark_allowed: bool = False) -> ConfigFile:
    """A JSON object from a checkpoint's file. Raises ModelError.

    A byte order mark is skipped with `mark_allowed`; it is for files that no library reads after us, since diffusers
    and transformers take none.
    """
    content = _read_bytes(path, name)
    if content.startswith(BYTE_ORDER_MARK) and not mark_allowed:
        raise ModelError(
            f"{name!r}: {path} begins with a byte order mark, which diffusers and transformers cannot read; save it as"
            " UTF-8 without one"
        )
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name!r}: {path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{name!r}: {path} must hold a JSON object")
    return ConfigFile(name, path, values)


def is_integer(value: object) -> bool:
    """Whether it is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a finite number; true, false, NaN and Infinity are none."""
    return is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def shorten(value: object) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _in_component(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{name!r}: {path} is no file")
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError as error:
        raise ModelError(
            f"{name!r} is not a checkpoint in diffusers format: {path.name} is missing in {path.parent}"
        ) from error
    except OSError as error:
        raise ModelError(f"{name!r}: cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_CONFIG_BYTES:
        raise ModelError(f"{name!r}: {path} is larger than {MAX_CONFIG_BYTES >> 20} MiB, which no config is")
    return content
