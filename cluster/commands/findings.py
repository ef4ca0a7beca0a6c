"""What a check of the cluster found, as people and programs read it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warn", "fail"]
    """fail: Longtake cannot work like this."""
    found: str
    fix: str = ""
    """What to do about it; empty if all is well."""
