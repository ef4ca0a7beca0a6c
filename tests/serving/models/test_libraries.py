"""A library that replaces its own module while it loads is the same for every thread that needs it first."""

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from serving.models.libraries import load_library

LIMIT_S = 60.0
LIBRARY = """
import sys, types
import lazy_library_gate as gate
gate.begun.set()
gate.go_on.wait(60)
whole = types.ModuleType(__name__)
whole.Model = "whole"
whole.__spec__ = __spec__
sys.modules[__name__] = whole
"""


def test_a_thread_that_waits_for_another_to_load_a_library_gets_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lazy_library.py").write_text(LIBRARY)
    (tmp_path / "lazy_library_gate.py").write_text(
        "import threading\nbegun = threading.Event()\ngo_on = threading.Event()"
    )
    monkeypatch.syspath_prepend(tmp_path)
    gate: Any = load_library("lazy_library_gate")
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(load_library("lazy_library"))) for _ in range(2)]
    threads[0].start()
    assert gate.begun.wait(LIMIT_S)
    threads[1].start()
    end = time.monotonic() + LIMIT_S
    while sys._current_frames()[threads[1].ident or 0].f_code.co_name != "acquire":  # of the import's lock
        assert time.monotonic() < end, "it does not wait for the first"
    gate.go_on.set()
    for thread in threads:
        thread.join(LIMIT_S)
    assert [module.Model for module in found] == ["whole", "whole"]
