"""What the controller must be allowed to do, and whether somebody is. The chart's Roles say the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cluster.commands.findings import Finding
from cluster.crd import RENDER_POOLS
from cluster.kube.client import Kube
from cluster.kube.resources import EVENTS, LEASES, NODES, PODS, Resource


@dataclass(frozen=True)
class Permission:
    """Something that the controller must be allowed to do."""

    verbs: tuple[str, ...]
    resource: Resource
    subresource: str | None = None
    where: Literal["namespace", "cluster", "default"] = "namespace"
    """default: in the namespace `default`, which is that of events about nodes."""
    lease: bool = False
    """Only for the Lease of that name. Nobody can be allowed to create by name."""

    @property
    def name(self) -> str:
        """As RBAC rules name it."""
        return f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural


PERMISSIONS = (
    Permission(("get", "list", "watch", "patch"), RENDER_POOLS),
    Permission(("patch",), RENDER_POOLS, "status"),
    Permission(("list", "watch", "patch"), PODS),
    Permission(("get", "create", "update"), LEASES, lease=True),
    Permission(("get", "create", "patch"), EVENTS),
    Permission(("list", "watch"), NODES, where="cluster"),
    Permission(("get", "create", "patch"), EVENTS, where="default"),
)
"""Of the controller; docs/controller.md lists them too."""


def check_permissions(kube: Kube, *, namespace: str, lease_name: str) -> Iterator[Finding]:
    """Whether the current user may do what the controller does. In the controller's pod that is its account."""
    for permission in PERMISSIONS:
        within = {"namespace": namespace, "default": "default", "cluster": None}[permission.where]
        lacking = [verb for verb in permission.verbs if not _may(kube, verb, permission, within, lease_name)]
        where = f"in {within}" if within is not None else "in the cluster"
        if not lacking:
            yield Finding("permissions", "ok", f"{', '.join(permission.verbs)} {permission.name} {where}")
        elif permission.where == "namespace":
            fix = "set rbac.create=true in the chart, or bind docs/controller.md's rules"
            yield Finding("permissions", "fail", f"not allowed {where}: {', '.join(lacking)} {permission.name}", fix)
        else:
            fix = "bind a ClusterRole (controller.watchNodes); without it nodes are not drained before they go"
            yield Finding("permissions", "warn", f"not allowed {where}: {', '.join(lacking)} {permission.name}", fix)


def _may(kube: Kube, verb: str, permission: Permission, namespace: str | None, lease_name: str) -> bool:
    name = lease_name if permission.lease and verb != "create" else None
    answer = kube.may(verb, permission.resource, namespace=namespace, name=name, subresource=permission.subresource)
    return answer.allowed
