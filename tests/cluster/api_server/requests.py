"""Requests to the fake API server, what their paths name, and answers."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from testkit.json_object import Json
from tests.cluster.api_server.kinds import Kind
from tests.cluster.api_server.refusals import Refusal, bad_request
from tests.cluster.api_server.selectors import field_test, label_test
from tests.cluster.api_server.store import Key


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_type: str = ""
    agent: str = "unknown"

    def read(self) -> Any:
        if "protobuf" in self.content_type:
            raise Refusal(415, "UnsupportedMediaType", "this server understands no protobuf")
        try:
            return yaml.safe_load(self.body) if "yaml" in self.content_type else json.loads(self.body or b"null")
        except (ValueError, yaml.YAMLError) as error:
            raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error

    @property
    def dry(self) -> bool:
        return self.query.get("dryRun") == "All"

    @property
    def manager(self) -> str:
        return self.query.get("fieldManager") or self.agent.split("/")[0]


@dataclass(frozen=True)
class Target:
    """What a path names."""

    kind: Kind
    namespace: str | None
    name: str | None
    sub: str | None

    @property
    def key(self) -> Key:
        assert self.name is not None
        return self.kind.group, self.kind.plural, self.namespace or "", self.name


@dataclass(frozen=True)
class Answer:
    code: int
    body: Json
    warnings: tuple[str, ...] = ()


def is_watch(request: Request) -> bool:
    return request.method == "GET" and request.query.get("watch") in ("1", "true")


def selector(target: Target, query: Mapping[str, str]) -> Callable[[Key, Json], bool]:
    """Whether an object belongs to a list or watch."""
    kind, namespace = target.kind, target.namespace
    labels = label_test(query.get("labelSelector"))
    fields = field_test(query.get("fieldSelector"), kind.selectable)

    def test(key: Key, one: Json) -> bool:
        mine = key[:2] == (kind.group, kind.plural) and (namespace is None or key[2] == namespace)
        return mine and labels(one["metadata"].get("labels") or {}) and fields(one)

    return test


def shown(kind: Kind, one: Json) -> Json:
    """An object as it leaves the server, in the version that was asked for."""
    return {**one, "apiVersion": kind.api_version, "kind": kind.kind}
