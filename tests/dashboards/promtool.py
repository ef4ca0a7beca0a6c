"""Runs promtool, which comes with Prometheus."""

import shutil
import subprocess
from pathlib import Path

import pytest

from testkit.test_tools import NO_PROMETHEUS


def promtool(*arguments: str | Path, text: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """What promtool says; skips if it is not installed."""
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip(NO_PROMETHEUS)
    given = text.decode() if text is not None else None
    command = [binary, *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)
