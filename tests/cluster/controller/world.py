"""A small cluster for the controller's tests: an API server, a farm, and the objects that others would make."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cluster.crd import RENDER_POOLS, render_pool_crd
from cluster.kube.client import Kube, connect
from cluster.kube.errors import AlreadyExists, Forbidden, NotFound
from cluster.kube.events import CLUSTER_WIDE
from cluster.kube.resources import CRDS, EVENTS, LEASES, NODES, PODS, Resource
from cluster.render_pool import RenderPool, read_render_pool
from testkit.json_object import Json
from tests.cluster.api_server.server import KubeServer
from tests.cluster.clusters import NAMESPACES
from tests.cluster.controller.farm_double import FarmDouble, node_state, pool_state

SPOT_TAINT = {"key": "aws-node-termination-handler/spot-itn", "value": "e1", "effect": "NoSchedule"}

MADE_HERE = {"test.longtake.dev/made-by": "tests"}
"""Label of what has no namespace, so that what a killed test leaves in a real cluster can be found."""

WAIT_S = 120.0
"""Seconds that anything may take on a busy machine."""


def wait_until(what: str, true: Callable[[], object], timeout_s: float = WAIT_S) -> None:
    """Poll until something holds; fails with `what` if it does not."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.01)


_World = TypeVar("_World", bound="World")


@dataclass
class World:
    """One namespace of a cluster and the farm in it. Names of nodes begin with the namespace's; other nodes are not
    ours, and nothing is said of them."""

    kube: Kube
    farm: FarmDouble
    namespace: str
    kubeconfig: Path
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 250)))
    _nodes: list[str] = field(default_factory=list)

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
        """An object of this namespace."""
        return self.kube.get(resource, name, namespace=self.namespace)

    def patch(self, resource: Resource, name: str, spec: Json, *, namespace: str | None = None) -> None:
        """Somebody else changes an object's spec."""
        self.kube.patch(resource, name, {"spec": spec}, namespace=namespace)

    def node_name(self, name: str) -> str:
        """In the cluster, of the node that add_node was given as `name`."""
        return f"{self.namespace}-{name}"

    def add_render_pool(self, name: str = "wan", **spec: Any) -> None:
        whole = {"pool": "wan", "model": "Wan-AI/Wan2.2", "gangShape": "ulysses=2", "minGangs": 1, "maxGangs": 8} | spec
        self.put(RENDER_POOLS, {"metadata": {"name": name, "namespace": self.namespace}, "spec": whole})

    def change(self, name: str = "wan", **spec: Any) -> None:
        """Somebody edits a RenderPool."""
        self.patch(RENDER_POOLS, name, spec, namespace=self.namespace)

    def render_pool(self, name: str = "wan") -> RenderPool:
        return read_render_pool(self.get(RENDER_POOLS, name))

    def ready(self, name: str = "wan") -> tuple[str, str]:
        """Status and reason of its condition Ready."""
        found = self.render_pool(name).status.condition("Ready")
        return (found.status, found.reason) if found is not None else ("", "")

    def add_node(self, name: str, *, gangs: tuple[str, ...] = (), head: bool = False, **labels: str) -> str:
        """A Kubernetes node with a pod and a Ray node in it; returns the Ray node's id. No machine is behind it: it has
        room for nothing that a cluster would schedule, and its pod needs no kubelet's consent to go."""
        address = f"10.0.0.{next(self._numbers)}"
        full = self.node_name(name)
        self._nodes.append(full)
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}  # or a cloud may take it away at once
        self.put(NODES, {"metadata": {"name": full, "labels": labels | MADE_HERE}, "status": ready})
        kind = "head" if head else "worker"
        pod = {
            "metadata": {
                "name": f"ray-{name}",
                "namespace": self.namespace,
                "labels": {"ray.io/cluster": "farm", "ray.io/node-type": kind},
            },
            "spec": {
                "nodeName": full,
                "containers": [{"name": "ray", "image": "longtake"}],
                "terminationGracePeriodSeconds": 0,
            },
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        }
        self.put(PODS, pod)
        node = node_state(full, address=address, gangs=gangs)
        self.farm.add_node(node)
        return node.id

    def signal(self, name: str, **spec: Any) -> None:
        """The cloud, or somebody, marks a node: `taints=[...]` or `unschedulable=True`."""
        self.patch(NODES, self.node_name(name), spec)

    def annotations(self, name: str) -> dict[str, str]:
        """Of the pod on a node."""
        return dict(self.get(PODS, f"ray-{name}")["metadata"].get("annotations") or {})

    def lease(self) -> Json:
        """Spec of the controllers' Lease."""
        return dict(self.get(LEASES, "longtake-controller")["spec"])

    def events(self, reason: str, about: str = "") -> list[Json]:
        """Events of a reason, about an object of that name, be they of this namespace or about its nodes."""
        found = [*self.kube.list_all(EVENTS, namespace=self.namespace).items, *self._events_of_nodes()]
        return [one for one in found if one["reason"] == reason and about in ("", one["involvedObject"]["name"])]

    def _events_of_nodes(self) -> list[Json]:
        found = self.kube.list_all(EVENTS, namespace=CLUSTER_WIDE).items
        return [one for one in found if one["involvedObject"]["name"].startswith(f"{self.namespace}-")]

    # As a View of the rounds: always what the server has now.

    def nodes(self) -> Sequence[Json]:
        found = self.kube.list_all(NODES).items
        return [one for one in found if one["metadata"]["name"].startswith(f"{self.namespace}-")]

    def pods(self) -> Sequence[Json]:
        return list(self.kube.list_all(PODS, namespace=self.namespace).items)

    def render_pools(self) -> Sequence[Json]:
        return list(self.kube.list_all(RENDER_POOLS, namespace=self.namespace).items)

    def close(self) -> None:
        """Take everything away that was made here."""
        for event in self._events_of_nodes():
            with suppress(NotFound):
                self.kube.delete(EVENTS, event["metadata"]["name"], namespace=CLUSTER_WIDE)
        for name in self._nodes:
            with suppress(NotFound):  # a cloud takes nodes away that it does not know
                self.kube.delete(NODES, name)
        self.kube.delete(NAMESPACES, self.namespace)


NewWorld = Callable[[], AbstractContextManager[World]]
"""Opens one more world."""


@dataclass
class BreakableWorld(World):
    """One whose API server is the test's own. What the test itself does and asks takes no request, for the faults are
    meant for others."""

    server: KubeServer = field(kw_only=True)

    def close(self) -> None:
        self.server.faults.clear()
        super().close()

    def get(self, resource: Resource, name: str) -> Json:
        found = self.server.get(resource.plural, name, namespace=self.namespace, group=resource.group)
        if found is None:
            raise NotFound(f"no {resource.kind} {name}")
        return found

    def patch(self, resource: Resource, name: str, spec: Json, *, namespace: str | None = None) -> None:
        meta = {"name": name} | ({"namespace": namespace} if namespace else {})
        self.server.put({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, "spec": spec})


@contextmanager
def open_world(kube: Kube, kubeconfig: Path) -> Iterator[World]:
    """A namespace of its own, and a farm that has the pool `wan`. Nothing is left of it at the end but the CRD."""
    with FarmDouble() as farm:
        yield from _furnished(World(kube, farm, _new_namespace(), kubeconfig))


@contextmanager
def open_breakable_world(server: KubeServer, folder: Path) -> Iterator[BreakableWorld]:
    """The same on an API server that may be broken; its kubeconfig is in `folder`."""
    path = server.kubeconfig(folder / "config")
    with FarmDouble() as farm:
        yield from _furnished(BreakableWorld(connect(kubeconfig=path), farm, _new_namespace(), path, server=server))


def _furnished(world: _World) -> Iterator[_World]:
    kube = world.kube
    kube.apply(CRDS, render_pool_crd(), force=True)
    wait_until("RenderPools are served", lambda: kube.serves(RENDER_POOLS))
    kube.create(NAMESPACES, {"metadata": {"name": world.namespace, "labels": MADE_HERE}})
    wait_until("pods may be made", lambda: _takes_pods(kube, world.namespace))
    world.farm.add_pool(pool_state())
    try:
        yield world
    finally:
        world.close()


def _new_namespace() -> str:
    return f"longtake-{uuid.uuid4().hex[:8]}"


def _takes_pods(kube: Kube, namespace: str) -> bool:
    """A new namespace takes none until a controller of the cluster has given it a service account."""
    pod = {"metadata": {"name": "ray", "namespace": namespace}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    try:
        kube.create(PODS, pod, dry_run=True)
    except Forbidden:
        return False
    return True
