"""Checks custom resources against the schemas in their CustomResourceDefinitions, stricter than an API server does.

A server drops fields that it does not know, which hides a misspelt one; here they are mistakes. Rules in CEL are not
looked at. Schemas lie in the chart and in the folder that LONGTAKE_CRDS names.
"""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.charts.chart_rendering import CHART

WHERE = "LONGTAKE_CRDS"

Kind = tuple[str, str]
"""apiVersion and kind."""

_VALUE_RULES = ("allOf", "anyOf", "oneOf", "not")
"""They only narrow what the schema around them allows, so they must not be closed."""

_NO_RULES = ("description", "default", "example", "format", "nullable", "title")


def find_schemas() -> dict[Kind, Draft202012Validator]:
    """A validator for every kind that is known. Skips the test if the real definitions are not at hand."""
    folder = os.environ.get(WHERE)
    if not folder:
        pytest.skip(f"{WHERE} must name a folder with the CRDs of KubeRay, KEDA and the Prometheus operator")
    return _read_schemas(Path(folder))


@functools.cache
def _read_schemas(folder: Path) -> dict[Kind, Draft202012Validator]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[Kind, Draft202012Validator] = {}
    for path in [*sorted(folder.glob("*.yaml")), *sorted((CHART / "crds").glob("*.yaml"))]:
        for crd in yaml.load_all(path.read_text(), loader):
            if crd and crd.get("kind") == "CustomResourceDefinition":
                found |= dict(_validators(crd["spec"]))
    return found


def _validators(spec: dict[str, Any]) -> Iterator[tuple[Kind, Draft202012Validator]]:
    for version in spec["versions"]:
        schema = close(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
        kind = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
        yield kind, Draft202012Validator(schema)


def close(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of an OpenAPI schema, with unknown fields refused."""
    closed = {
        key: value for key, value in schema.items() if key not in _NO_RULES and not key.startswith("x-kubernetes-")
    }
    if "properties" in schema:
        closed["properties"] = {name: close(inner) for name, inner in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            closed[key] = close(schema[key])
    # The server fills in defaults before it looks at what is required.
    required = [n for n in schema.get("required", ()) if "default" not in schema.get("properties", {}).get(n, {})]
    closed.pop("required", None)
    if required:
        closed["required"] = required
    if schema.get("x-kubernetes-int-or-string"):
        closed["type"] = ["integer", "string"]
        for key in _VALUE_RULES:
            closed.pop(key, None)
    if schema.get("nullable") and isinstance(closed.get("type"), str):
        closed["type"] = [closed["type"], "null"]
    is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in schema and not is_open:
        closed["additionalProperties"] = False
    return closed


def problems_of(resource: dict[str, Any], validator: Draft202012Validator) -> list[str]:
    """What is wrong with a resource, each with its path."""
    return [
        f"{resource['kind']}/{resource['metadata']['name']}: /{'/'.join(map(str, error.absolute_path))}: "
        f"{error.message[:200]}"
        for error in validator.iter_errors(resource)
    ]
