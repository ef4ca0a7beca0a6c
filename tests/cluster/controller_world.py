"""A small cluster for the controller's tests: an API server, a farm, and the objects that others would make."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.crd import RENDER_POOLS, render_pool_crd
from cluster.kube import Kube, connect
from cluster.kube_errors import AlreadyExists, NotFound
from cluster.kube_events import CLUSTER_WIDE
from cluster.kube_resources import CRDS, EVENTS, NAMESPACES, NODES, PODS, Resource
from cluster.render_pool import RenderPool, read_render_pool
from tests.cluster.farm_double import FarmDouble, node_state, pool_state
from tests.cluster.kube_server import KubeServer

Json = dict[str, Any]

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")

SPOT_TAINT = {"key": "aws-node-termination-handler/spot-itn", "value": "e1", "effect": "NoSchedule"}

WAIT_S = 120.0
"""Seconds that anything may take on a busy machine."""


def wait_until(what: str, true: Callable[[], object], timeout_s: float = WAIT_S) -> None:
    """Poll until something holds; fails with `what` where it does not."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.01)


@dataclass
class World:
    """One namespace of a cluster and the farm in it. Names of nodes begin with the namespace's."""

    maybe_server: KubeServer | None
    """None where the cluster is a real one."""
    kube: Kube
    farm: FarmDouble
    namespace: str
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 250)))
    _nodes: list[str] = field(default_factory=list)

    @property
    def server(self) -> KubeServer:
        """To break it."""
        assert self.maybe_server is not None, "a real cluster cannot be broken"
        return self.maybe_server

    def put(self, resource: Resource, one: Json) -> None:
        """Make an object be, status and all."""
        name, namespace = one["metadata"]["name"], one["metadata"].get("namespace")
        try:
            self.kube.create(resource, one)
        except AlreadyExists:
            self.kube.patch(resource, name, one, namespace=namespace)
        if "status" in one:
            self.kube.patch_status(resource, name, one["status"], namespace=namespace)

    def get(self, resource: Resource, name: str) -> Json:
        """One of this namespace; of the fake server without a request, for its faults are meant for others."""
        if self.maybe_server is None:
            return self.kube.get(resource, name, namespace=self.namespace)
        found = self.maybe_server.get(resource.plural, name, namespace=self.namespace, group=resource.group)
        assert found is not None, f"no {resource.kind} {name}"
        return found

    def add_render_pool(self, name: str = "wan", **spec: Any) -> None:
        whole = {"pool": "wan", "model": "Wan-AI/Wan2.2", "gangShape": "ulysses=2", "minGangs": 1, "maxGangs": 8} | spec
        self.put(RENDER_POOLS, {"metadata": {"name": name, "namespace": self.namespace}, "spec": whole})

    def change(self, name: str = "wan", **spec: Any) -> None:
        """Somebody edits a RenderPool."""
        self.kube.patch(RENDER_POOLS, name, {"spec": spec}, namespace=self.namespace)

    def render_pool(self, name: str = "wan") -> RenderPool:
        return read_render_pool(self.get(RENDER_POOLS, name))

    def ready(self, name: str = "wan") -> tuple[str, str]:
        """Status and reason of its condition Ready."""
        found = self.render_pool(name).status.condition("Ready")
        return (found.status, found.reason) if found is not None else ("", "")

    def add_node(self, name: str, *, gangs: tuple[str, ...] = (), head: bool = False, **labels: str) -> str:
        """A Kubernetes node with a pod and a Ray node in it; returns the Ray node's id."""
        address = f"10.0.0.{next(self._numbers)}"
        full = f"{self.namespace}-{name}"
        self.put(NODES, {"metadata": {"name": full, "labels": labels}})
        self._nodes.append(full)
        kind = "head" if head else "worker"
        pod = {
            "metadata": {
                "name": f"ray-{name}",
                "namespace": self.namespace,
                "labels": {"ray.io/cluster": "farm", "ray.io/node-type": kind},
            },
            "spec": {"nodeName": full, "containers": [{"name": "ray", "image": "longtake"}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        }
        self.put(PODS, pod)
        node = node_state(f"{self.namespace}-{name}", address=address, gangs=gangs)
        self.farm.add_node(node)
        return node.id

    def signal(self, name: str, **spec: Any) -> None:
        """The cloud, or somebody, marks a node: `taints=[...]` or `unschedulable=True`."""
        self.kube.patch(NODES, f"{self.namespace}-{name}", {"spec": spec})

    def annotations(self, name: str) -> dict[str, str]:
        """Of the pod on a node."""
        return dict(self.get(PODS, f"ray-{name}")["metadata"].get("annotations") or {})

    def events(self, reason: str, about: str = "") -> list[Json]:
        """Events of a reason, about an object of that name, be they of this namespace or about its nodes."""
        found = self.kube.list_all(EVENTS, namespace=self.namespace).items
        if self.namespace != CLUSTER_WIDE:
            others = self.kube.list_all(EVENTS, namespace=CLUSTER_WIDE).items
            found += tuple(one for one in others if one["involvedObject"]["name"].startswith(f"{self.namespace}-"))
        return [one for one in found if one["reason"] == reason and about in ("", one["involvedObject"]["name"])]

    # As a View of the rounds: always what the server has now.

    def nodes(self) -> Sequence[Json]:
        found = self.kube.list_all(NODES).items
        return [one for one in found if one["metadata"]["name"].startswith(f"{self.namespace}-")]

    def close(self) -> None:
        """Take away what has no namespace."""
        for name in self._nodes:
            self.kube.delete(NODES, name)

    def pods(self) -> Sequence[Json]:
        return list(self.kube.list_all(PODS, namespace=self.namespace).items)

    def render_pools(self) -> Sequence[Json]:
        return list(self.kube.list_all(RENDER_POOLS, namespace=self.namespace).items)


@contextmanager
def open_server(folder: Path) -> Iterator[tuple[KubeServer, Kube]]:
    """An API server that knows RenderPools."""
    with KubeServer() as server:
        kube = connect(kubeconfig=server.kubeconfig(folder / "config"))
        kube.apply(CRDS, render_pool_crd())
        yield server, kube


@contextmanager
def open_real_cluster(kubeconfig: Path) -> Iterator[tuple[None, Kube]]:
    """A real cluster; its user must be allowed to make namespaces, nodes and CRDs. The CRD stays there."""
    kube = connect(kubeconfig=kubeconfig)
    kube.apply(CRDS, render_pool_crd(), force=True)
    wait_until("RenderPools are served", lambda: kube.serves(RENDER_POOLS))
    yield None, kube


@contextmanager
def open_world(server: KubeServer | None, kube: Kube, namespace: str = "default") -> Iterator[World]:
    """A namespace with a farm that has the pool `wan`."""
    if namespace != "default":
        kube.create(NAMESPACES, {"metadata": {"name": namespace}})
        if server is None:
            wait_until("pods may be made", lambda: _has_account(kube, namespace))
    with FarmDouble() as farm:
        farm.add_pool(pool_state())
        world = World(server, kube, farm, namespace)
        try:
            yield world
        finally:
            if server is None:
                world.close()
                kube.delete(NAMESPACES, namespace)


def _has_account(kube: Kube, namespace: str) -> bool:
    try:
        return bool(kube.get(SERVICE_ACCOUNTS, "default", namespace=namespace))
    except NotFound:
        return False
