"""A Ray cluster whose autoscaler (v2, Ray's own) adds and removes nodes: raylets of this machine, made-up resources.

To be used in a process namespace of its own (`in_own_namespace`): what is left of it then dies with it. Ray's own
AutoscalingCluster is not used, because it ends every Ray process of the machine, and needs a file that Ray's wheel
lacks.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from testkit.farm_process import free_port

NodeTypes = Mapping[str, Mapping[str, Any]]
"""As Ray's autoscaler takes them: resources, labels, min_workers and max_workers of each type of node by its name."""

HEAD = "ray.head.default"
OBJECT_STORE_BYTES = 100 << 20
START_LIMIT_S = 120.0

_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
_LISTS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
)


def in_own_namespace(*command: str) -> list[str]:
    """The command in a process namespace of its own, that ends with it and with who waits for it."""
    return ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *command]


def autoscaling_config(
    node_types: NodeTypes, *, head: Mapping[str, float], gcs_address: str, idle_timeout_s: float
) -> dict[str, Any]:
    """What `ray start --autoscaling-config` reads."""
    workers = {name: {"node_config": {}, "min_workers": 0, **given} for name, given in node_types.items()}
    for worker in workers.values():
        resources = {name: amount for name, amount in worker["resources"].items() if name != "memory"}
        worker["resources"] = {"object_store_memory": OBJECT_STORE_BYTES, **resources}
    return {
        "cluster_name": "fake",
        "max_workers": sum(int(worker.get("max_workers", 0)) for worker in workers.values()),
        "provider": {
            "type": "external",  # of another type, its monitor would want a file of defaults
            "module": _PROVIDER,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": gcs_address,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: {"resources": dict(head), "node_config": {}, "max_workers": 0},
            **workers,
        },
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": idle_timeout_s / 60,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in _LISTS},
    }


@contextlib.contextmanager
def fake_cluster(node_types: NodeTypes, *, head: Mapping[str, float], idle_timeout_s: float) -> Iterator[str]:
    """A cluster of a head with these resources, connected to; its address. It is not ended here but with the
    namespace."""
    # Below /tmp, because the paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="lt-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        port = free_port()
        address = f"{ray.util.get_node_ip_address()}:{port}"
        config = autoscaling_config(node_types, head=head, gcs_address=address, idle_timeout_s=idle_timeout_s)
        file = Path(folder) / "autoscaling.json"
        file.write_text(json.dumps(config))
        others = {name: amount for name, amount in head.items() if name not in ("CPU", "GPU")}
        start = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}",
            f"--autoscaling-config={file}", f"--temp-dir={folder}/ray", "--include-dashboard=false",
            f"--num-cpus={head.get('CPU', 0):g}", f"--num-gpus={head.get('GPU', 0):g}",
            f"--resources={json.dumps(others)}", f"--object-store-memory={2 * OBJECT_STORE_BYTES}",
            "--disable-usage-stats",
        ]  # fmt: skip
        done = subprocess.run(
            start,
            env=os.environ | _environment(),
            check=False,
            capture_output=True,
            text=True,
            timeout=START_LIMIT_S,
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        ray.init(address=address, log_to_driver=False)
        yield address


def kill_node(node: str) -> None:
    """SIGKILL everything that runs on a node, as if its machine had vanished."""
    victims = [process for process in psutil.process_iter() if _node_of(process) == node]
    assert victims, f"nothing runs on node {node}"
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _node_of(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error):
        if process.pid != os.getpid():
            return process.environ().get("RAY_OVERRIDE_NODE_ID_FOR_TESTING")
    return None


def _environment() -> dict[str, str]:
    return {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_failure_threshold": "10",
    }
