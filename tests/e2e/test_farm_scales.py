"""A farm that scales on Ray's real autoscaler with made-up GPU nodes: it grows, shrinks, loses nodes in mid-render."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.test_tools import NO_NAMESPACE
from tests.e2e.fake_autoscaler import in_own_namespace

pytestmark = pytest.mark.farm

LIMIT_S = 900.0
"""Seconds, for the busiest machine; on a free one it takes about four minutes."""


def _namespaces_work() -> bool:
    command = in_own_namespace("true")
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_namespace = pytest.mark.skipif(not _namespaces_work(), reason=NO_NAMESPACE)


@needs_namespace
def test_a_farm_follows_its_work_over_nodes_that_come_are_drained_and_are_lost(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    }
    command = in_own_namespace(sys.executable, "-m", "tests.e2e.scaled_farm", str(tmp_path))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    parts = ("s after the film", "nothing was wasted", "a node was lost", "a gang left the node of one of its ranks")
    assert [part for part in parts if part not in done.stdout] == []  # Ray may speak between them
