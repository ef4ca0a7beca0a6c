"""The examples are complete: what their values name is there, and every object is one that Kubernetes knows."""

import re
import subprocess
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import kubernetes_validate
import pytest
import yaml

from testkit.s3 import s3_server
from tests.charts.chart_rendering import (
    CHART,
    EXAMPLES,
    HELMS,
    ROOT,
    Manifest,
    containers,
    helm,
    of_kind,
    only,
    pods,
    read_documents,
    render,
    serve_config,
)
from tests.charts.crd_checking import find_schemas, problems_of
from tests.charts.test_chart_manifests import CUSTOM, NEWEST, OLDEST

NAMES = ("kind", "gpu")


def example(name: str) -> dict[str, Any]:
    """The values of an example."""
    values: dict[str, Any] = yaml.safe_load((EXAMPLES / name / "values.yaml").read_text())
    return values


def backing() -> list[Manifest]:
    """What stands beside the farm on kind."""
    return read_documents((EXAMPLES / "kind" / "backing.yaml").read_text())


@pytest.mark.parametrize("helm_name", HELMS)
@pytest.mark.parametrize("name", NAMES)
def test_an_example_lints_without_a_warning(name: str, helm_name: str) -> None:
    ran = helm(helm_name, "lint", "--strict", str(CHART), "--values", str(EXAMPLES / name / "values.yaml"))
    assert ran.code == 0, ran.out + ran.err


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_knows_every_object_of_the_examples(version: str) -> None:
    for one in [*render(example("kind")), *render(example("gpu")), *backing()]:
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_custom_resources_of_the_examples_are_as_defined(name: str) -> None:
    schemas = find_schemas()
    custom = [one for one in render(example(name)) if one["kind"] in CUSTOM]
    assert [problem for one in custom for problem in problems_of(one, schemas[one["apiVersion"], one["kind"]])] == []


def test_every_secret_that_the_kind_values_name_is_there_with_its_keys() -> None:
    there = {one["metadata"]["name"]: set(one["stringData"]) for one in of_kind(backing(), "Secret")}
    named = {
        (variable["valueFrom"]["secretKeyRef"]["name"], variable["valueFrom"]["secretKeyRef"]["key"])
        for _, pod in [*pods(render(example("kind"))), *pods(backing())]
        for container in containers(pod)
        for variable in container.get("env", ())
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    assert named
    assert all(key in there[secret] for secret, key in named)


def test_the_farm_on_kind_looks_for_its_database_and_bucket_where_they_are() -> None:
    args = serve_config(render(example("kind")))["applications"][0]["args"]
    services = {one["metadata"]["name"]: one["spec"]["ports"][0]["port"] for one in of_kind(backing(), "Service")}
    store = urlsplit(args["store_url"])
    assert services[str(store.hostname)] == (store.port or 5432)
    bucket = urlsplit(args["artifacts_url"])
    endpoint = urlsplit(parse_qs(bucket.query)["endpoint"][0])
    assert services[str(endpoint.hostname)] == endpoint.port
    job = only(backing(), "Job")["spec"]["template"]["spec"]["containers"][0]
    assert job["args"][-1] == f"{endpoint.geturl()}/{bucket.netloc}"
    postgres = only(backing(), "Deployment", "longtake-postgres")["spec"]["template"]["spec"]["containers"][0]
    variables = {variable["name"]: variable.get("value") for variable in postgres["env"]}
    assert variables["POSTGRES_USER"] == store.username
    assert variables["POSTGRES_DB"] == store.path.strip("/")


def test_services_on_kind_find_their_pods() -> None:
    labels = [pod.get("metadata", {}).get("labels", {}) for _, pod in pods(backing())]
    for service in of_kind(backing(), "Service"):
        assert any(service["spec"]["selector"].items() <= has.items() for has in labels)


def test_the_bucket_on_kind_is_made_by_the_jobs_command() -> None:
    job = only(backing(), "Job")["spec"]["template"]["spec"]["containers"][0]
    assert job["command"] == ["python", "-c"]
    program, _ = job["args"]
    with s3_server() as endpoint, httpx.Client(base_url=endpoint, timeout=60) as client:
        assert client.head("/films").status_code == 404
        command = [sys.executable, "-c", program, f"{endpoint}/films"]
        subprocess.run(command, env={"NO_PROXY": "*"}, check=True, timeout=60)
        assert client.head("/films").status_code == 200


def test_the_s3_server_on_kind_is_the_one_that_the_farm_is_tested_with() -> None:
    image = only(backing(), "Deployment", "longtake-s3")["spec"]["template"]["spec"]["containers"][0]["image"]
    pinned = re.search(r"^moto==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned
    assert image == f"motoserver/moto:{pinned[1]}"


def test_the_examples_use_the_image_of_this_release() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    bucket = only(backing(), "Job")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert bucket == f"longtake:{version}"
    assert f"--tag longtake:{version}" in (EXAMPLES / "README.md").read_text()
