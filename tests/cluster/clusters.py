"""What tests of the cluster share: a kind of object that has all that ours have, and a namespace to work in."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.kube.client import Kube
from cluster.kube.errors import NotFound
from cluster.kube.resources import Resource
from testkit.json_object import Json
from tests.cluster.api_server.server import KubeServer

TIME_LIMIT_S = 60.0
"""Seconds that anything which is waited for may take on a busy machine."""

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
WIDGETS = Resource("test.longtake.dev", "v1", "widgets", "Widget")
_SIZE = {"type": "integer", "minimum": 0, "maximum": 100}
WIDGET_CRD: Json = {
    "metadata": {"name": "widgets.test.longtake.dev"},
    "spec": {
        "group": "test.longtake.dev",
        "scope": "Namespaced",
        "names": {"kind": "Widget", "listKind": "WidgetList", "plural": "widgets", "singular": "widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.size",
                        "statusReplicasPath": ".status.size",
                        "labelSelectorPath": ".status.selector",
                    },
                },
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["model"],
                                "properties": {
                                    "model": {"type": "string", "minLength": 1, "maxLength": 20},
                                    "size": _SIZE,
                                    "most": {**_SIZE, "default": 10},
                                    "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                                    "note": {"type": "string", "nullable": True},
                                    "tags": {"type": "array", "maxItems": 10, "items": {"type": "string"}},
                                    "parts": {
                                        "type": "array",
                                        "maxItems": 10,
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["name"],
                                        "items": {
                                            "type": "object",
                                            "required": ["name"],
                                            "properties": {
                                                "name": {"type": "string", "maxLength": 20},
                                                "count": {"type": "integer"},
                                                "kind": {"type": "string", "maxLength": 20},
                                            },
                                        },
                                    },
                                },
                                "x-kubernetes-validations": [
                                    {
                                        "rule": "!has(self.size) || self.size <= self.most",
                                        "message": "size must be at most most",
                                        "fieldPath": ".size",
                                    },
                                    {"rule": "self.model == oldSelf.model", "message": "model never changes"},
                                ],
                            },
                            "status": {
                                "type": "object",
                                "properties": {
                                    "size": {"type": "integer"},
                                    "selector": {"type": "string"},
                                    "conditions": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["type"],
                                        "items": {
                                            "type": "object",
                                            "required": ["type", "status"],
                                            "properties": {
                                                "type": {"type": "string"},
                                                "status": {"type": "string"},
                                                "reason": {"type": "string"},
                                            },
                                        },
                                    },
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}
"""A kind that has all that ours have."""


@dataclass(frozen=True)
class Ground:
    """A cluster, a namespace in it that belongs to one test, and the kind Widget."""

    kube: Kube
    namespace: str
    kubeconfig: Path
    server: KubeServer | None
    """None if the cluster is a real one."""

    def widget(self, name: str, **spec: Any) -> Json:
        return {"metadata": {"name": name, "namespace": self.namespace}, "spec": {"model": "wan", **spec}}

    def make_widget(self, name: str, **spec: Any) -> Json:
        return self.kube.create(WIDGETS, self.widget(name, **spec))

    def get_widget(self, name: str) -> Json:
        return self.kube.get(WIDGETS, name, namespace=self.namespace)

    def patch_widget(self, name: str, patch: Any, **how: Any) -> Json:
        return self.kube.patch(WIDGETS, name, patch, namespace=self.namespace, **how)


def wait_for(what: Callable[[], Any], *, within_s: float = TIME_LIMIT_S) -> Any:
    """What it returns once that is true. Raises AssertionError."""
    end = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        time.sleep(0.01)
    return found


def write_scale(kube: Kube, resource: Resource, name: str, replicas: int, *, namespace: str) -> Json:
    """Say how many are wanted through the scale subresource, as an autoscaler does; returns the Scale."""
    return kube.patch(resource, name, {"spec": {"replicas": replicas}}, namespace=namespace, subresource="scale")


def is_gone(kube: Kube, resource: Resource, name: str, **where: Any) -> bool:
    try:
        kube.get(resource, name, **where)
    except NotFound:
        return True
    return False
