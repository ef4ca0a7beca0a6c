"""A farm that scales on Ray's real autoscaler with made-up GPU nodes: it grows, shrinks, loses nodes in mid-render."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.fake_autoscaler import autoscaling_config, in_own_namespace

pytestmark = pytest.mark.slow

LIMIT_S = 900.0
"""Seconds, for the busiest machine; on a free one each takes about a minute and a half."""


def _namespaces_work() -> bool:
    command = in_own_namespace("true")
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_namespace = pytest.mark.skipif(not _namespaces_work(), reason="process namespaces need unshare and root")


@needs_namespace
@pytest.mark.parametrize(
    ("scenario", "ending"),
    [("grow", "s after the film"), ("drain", "nothing was wasted"), ("lose", "a node was lost")],
)
def test_a_farm_follows_its_work_over_nodes_that_come_and_go(scenario: str, ending: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    }
    command = in_own_namespace(sys.executable, "-m", "tests.e2e.scaled_farm", scenario, str(tmp_path))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert ending in done.stdout.splitlines()[-1]


def test_node_types_as_ray_derives_them_from_worker_groups_fit_the_autoscaler() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    group = {
        "groupName": "gpu-spot",
        "minReplicas": 0,
        "maxReplicas": 8,
        "labels": {"ray.io/market-type": "spot"},
        "rayStartParams": {},
        "template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "8", "nvidia.com/gpu": "4"}}}]}},
    }
    head = {
        "rayStartParams": {"num-cpus": "0", "resources": '"{\\"longtake_control\\": 1}"'},
        "template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "2", "memory": "8Gi"}}}]}},
    }
    spec = {"rayVersion": "2.60.0", "autoscalerOptions": {"idleTimeoutSeconds": 60}}
    cluster = {
        "metadata": {"name": "farm", "namespace": "default"},
        "spec": {**spec, "headGroupSpec": head, "workerGroupSpecs": [group]},
    }
    derived = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    types = {name: kind for name, kind in derived.items() if name != "headgroup"}
    config = autoscaling_config(types, head={"CPU": 1}, gcs_address="127.0.0.1:1", idle_timeout_s=60.0)
    kind = config["available_node_types"]["gpu-spot"]
    assert (kind["resources"]["GPU"], kind["max_workers"]) == (4, 8)
    assert kind["labels"] == {"ray.io/market-type": "spot"}
