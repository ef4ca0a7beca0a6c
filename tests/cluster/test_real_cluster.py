"""The way that the controller's tests go with a real cluster, gone with one that we can look at afterwards.

No cluster is at hand in continuous integration. This shows that the tests need nothing of our fake server but what it
has in common with a real one, and that they leave a cluster as they found it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.kube.client import Kube, connect
from cluster.kube.resources import EVENTS, NODES, PODS
from tests.cluster.clusters import NAMESPACES
from tests.cluster.controller.world import SPOT_TAINT, wait_until

ROOT = Path(__file__).parents[2]
TESTS = {
    "controller/test_controller": ["test_one_of_two_acts_and_the_other_takes_over"],
    "controller/test_rounds": [
        "test_a_round_tells_the_farm_and_writes_the_status_and_the_next_does_nothing",
        "test_a_spot_node_is_drained_noted_and_told_of",
    ],
    "commands/test_cluster_cli": ["test_status_shows_pools_nodes_and_drains"],
}
"""One or two of each kind; on the fake server all of them run anyway."""


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    """Of a process that serves over TLS."""
    path = tmp_path / "kubeconfig"
    command = [sys.executable, "-m", "tests.cluster.api_server", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
    try:
        wait_until("the server listens", lambda: path.exists() or process.poll() is not None)
        yield path
    finally:
        process.communicate(timeout=30)
    assert process.returncode == 0


def furnish(kube: Kube) -> None:
    """What is somebody else's: a node that will go, and a pod of another Ray cluster on it."""
    kube.create(NAMESPACES, {"metadata": {"name": "others"}})
    kube.create(NODES, {"metadata": {"name": "others"}, "spec": {"taints": [SPOT_TAINT]}})
    meta = {"name": "ray", "namespace": "others", "labels": {"ray.io/cluster": "others", "ray.io/node-type": "worker"}}
    kube.create(PODS, {"metadata": meta, "spec": {"nodeName": "others", "containers": [{"name": "a", "image": "a"}]}})


def seen(kube: Kube) -> dict[str, str]:
    """Versions of all nodes, namespaces, pods and events, by kind and name."""
    found = [one for resource in (NODES, NAMESPACES, PODS, EVENTS) for one in kube.list_all(resource).items]
    return {f"{one['kind']} {one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in found}


@pytest.mark.slow
def test_the_controllers_tests_pass_on_a_cluster_that_is_not_theirs_and_leave_it_as_it_was(
    kubeconfig: Path,
) -> None:
    kube = connect(kubeconfig=kubeconfig)
    furnish(kube)
    before = seen(kube)
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    tests = [f"tests/cluster/{file}.py::{name}[real]" for file, names in TESTS.items() for name in names]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests],
        cwd=ROOT,
        env={**others, "LONGTAKE_KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(tests)} passed" in done.stdout
    assert seen(kube) == before
