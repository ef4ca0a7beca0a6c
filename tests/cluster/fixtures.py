"""Clusters that tests run against: the fake one, and a real one if LONGTAKE_KUBECONFIG names its kubeconfig.

A module that wants these fixtures says `pytest_plugins = ["tests.cluster.fixtures"]`. `ground` and `world` are of
each cluster there is; `kube_server` and `breakable_world` have a fake server of the test's own, for tests that harm it.
The real cluster must allow its user to create namespaces, nodes and CustomResourceDefinitions; what a test makes there
is in a namespace of its own or has its name, and goes with it.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.kube.client import Kube, connect
from cluster.kube.errors import AlreadyExists
from cluster.kube.resources import CRDS
from tests.cluster.api_server.server import KubeServer
from tests.cluster.clusters import CONFIG_MAPS, NAMESPACES, WIDGET_CRD, WIDGETS, Ground, wait_for
from tests.cluster.controller.world import BreakableWorld, NewWorld, World, open_breakable_world, open_world

REAL = os.environ.get("LONGTAKE_KUBECONFIG")


@pytest.fixture(scope="session", params=["fake", "real"] if REAL else ["fake"])
def _cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    if request.param == "real":
        assert REAL
        yield from _with_widgets(Ground(connect(kubeconfig=Path(REAL)), "default", Path(REAL), None))
        return
    with KubeServer(bookmark_s=1.0) as server:
        path = server.kubeconfig(tmp_path_factory.mktemp("kube") / "config")
        yield from _with_widgets(Ground(connect(kubeconfig=path), "default", path, server))


def _with_widgets(ground: Ground) -> Iterator[Ground]:
    try:
        ground.kube.create(CRDS, WIDGET_CRD)
    except AlreadyExists:
        ground.kube.apply(CRDS, WIDGET_CRD, force=True)
    wait_for(lambda: ground.kube.serves(WIDGETS))
    yield ground
    ground.kube.delete(CRDS, WIDGET_CRD["metadata"]["name"])


@pytest.fixture
def ground(_cluster: Ground) -> Iterator[Ground]:
    """A namespace of the test's own, in each cluster there is. It holds a ConfigMap that the test did not make, because
    controllers of a real cluster put theirs into every namespace at some time."""
    name = f"longtake-{uuid.uuid4().hex[:8]}"
    _cluster.kube.create(NAMESPACES, {"metadata": {"name": name}})
    _cluster.kube.create(CONFIG_MAPS, {"metadata": {"name": "somebody-elses.crt", "namespace": name}})
    yield Ground(_cluster.kube, name, _cluster.kubeconfig, _cluster.server)
    _cluster.kube.delete(NAMESPACES, name)


@pytest.fixture(params=[False], ids=[""])
def kube_server(request: pytest.FixtureRequest) -> Iterator[KubeServer]:
    """A fake API server of the test's own, to break as it likes; with TLS if it is parametrized so."""
    with KubeServer(bookmark_s=0.2, tls=request.param) as server:
        server.put({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", **WIDGET_CRD})
        yield server


@pytest.fixture
def kube(kube_server: KubeServer, tmp_path: Path) -> Kube:
    """A connection to it."""
    return connect(kubeconfig=kube_server.kubeconfig(tmp_path / "kubeconfig")).within(5.0)


@pytest.fixture
def new_world(_cluster: Ground) -> NewWorld:
    """Opens one more world for the controller, in each cluster there is."""
    return lambda: open_world(_cluster.kube, _cluster.kubeconfig)


@pytest.fixture
def world(new_world: NewWorld) -> Iterator[World]:
    """Where a controller works, in each cluster there is."""
    with new_world() as opened:
        yield opened


@pytest.fixture
def breakable_world(tmp_path: Path) -> Iterator[BreakableWorld]:
    """Where a controller works on a fake API server of the test's own, to break as it likes."""
    with KubeServer() as server, open_breakable_world(server, tmp_path) as opened:
        yield opened
