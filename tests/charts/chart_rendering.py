"""Runs real Helm on the chart for the tests. Each rendering is made once in a run and kept."""

import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "longtake"
EXAMPLES = ROOT / "examples" / "kubernetes"
HELMS = ("helm3", "helm4")
NAMESPACE = "films"
TIMEOUT_S = 60

CI = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
"""Values files by name."""

Manifest = dict[str, Any]
Values = Mapping[str, Any]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

DEFAULTS: dict[str, Any] = yaml.load((CHART / "values.yaml").read_text(), _LOADER)
"""The chart's own values."""


@dataclass(frozen=True)
class Ran:
    """What Helm did."""

    code: int
    out: str
    err: str


def helm(name: str, *arguments: str) -> Ran:
    """Run a Helm of HELMS."""
    binary = Path(sys.prefix) / "helm" / name
    assert binary.exists(), f"{binary} is not there; `make .venv/ready` gets it (tests/charts/get_helm.py)"
    done = subprocess.run([str(binary), *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
    return Ran(done.returncode, done.stdout, done.stderr)


def values_of(name: str) -> dict[str, Any]:
    """The values of a ci file."""
    found: dict[str, Any] = yaml.load(CI[name].read_text(), _LOADER)
    return found


def read_documents(text: str) -> list[Manifest]:
    """All that are not empty."""
    return [document for document in yaml.load_all(text, _LOADER) if document]


def render(
    values: Values, *, helm_name: str = "helm4", chart: Path = CHART, release: str = "longtake"
) -> list[Manifest]:
    """What the chart makes of the values, not to be changed; fails with Helm's words."""
    ran = try_render(values, helm_name=helm_name, chart=chart, release=release)
    assert ran.code == 0, ran.err
    return _read(ran.out)


def try_render(values: Values, *, helm_name: str = "helm4", chart: Path = CHART, release: str = "longtake") -> Ran:
    """The same, which may be refused."""
    return _run(json.dumps(values, sort_keys=True), helm_name, str(chart), release)


@functools.cache
def _read(text: str) -> list[Manifest]:
    return read_documents(text)


@functools.cache
def _run(values: str, helm_name: str, chart: str, release: str) -> Ran:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(values)
        file.flush()
        return helm(helm_name, "template", release, chart, "--namespace", NAMESPACE, "--values", file.name)


def try_upgrade(values: Values, kubeconfig: Path, *, helm_name: str = "helm4", chart: Path = CHART) -> Ran:
    """What an upgrade in this cluster would apply: the chart may look up what is there, and nothing is changed."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(json.dumps(values))
        file.flush()
        # Helm 3 asks a cluster for its kinds in upgrades alone.
        kinds = ["longtake.dev/v1alpha1/RenderPool", "ray.io/v1/RayService"]
        told = [f"--api-versions={kind}" for kind in kinds]
        where = ["--namespace", NAMESPACE, "--values", file.name, "--kubeconfig", str(kubeconfig)]
        looking = ["--dry-run=server", "--disable-openapi-validation", "--is-upgrade"]
        return helm(helm_name, "template", "longtake", str(chart), *where, *looking, *told)


def with_notes(folder: Path) -> Path:
    """A copy of the chart that also renders its notes, as a ConfigMap `told`; Helm renders NOTES.txt only when it
    installs or upgrades."""
    chart = folder / "longtake"
    shutil.copytree(CHART, chart)
    text = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "_told.tpl").write_text('{{- define "told" -}}' + text + "{{- end -}}")
    told = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "told"}, "data": {"notes": "NOTES"}}
    shown = json.dumps(told).replace('"NOTES"', '{{ include "told" . | toJson }}')
    (chart / "templates" / "told.yaml").write_text(shown)
    return chart


def notes(manifests: list[Manifest]) -> str:
    """The notes that a chart from `with_notes` rendered."""
    text: str = only(manifests, "ConfigMap", "told")["data"]["notes"]
    return text


def changed(values: Values, path: str, value: Any) -> dict[str, Any]:
    """The values with another one at a dotted path; numbers are places in lists."""
    copy: dict[str, Any] = json.loads(json.dumps(values))
    *way, last = path.split(".")
    place: Any = copy
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return copy


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Those of one kind."""
    return [one for one in manifests if one["kind"] == kind]


def only(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The one of that kind, or of that kind and name."""
    (found,) = (one for one in of_kind(manifests, kind) if name in (None, one["metadata"]["name"]))
    return found


def ray_service(manifests: list[Manifest]) -> Manifest:
    """The RayService's spec."""
    spec: Manifest = only(manifests, "RayService")["spec"]
    return spec


def serve_config(manifests: list[Manifest]) -> Manifest:
    """What Ray Serve is told."""
    config: Manifest = yaml.load(ray_service(manifests)["serveConfigV2"], _LOADER)
    return config


def groups(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The worker groups by name."""
    return {group["groupName"]: group for group in ray_service(manifests)["rayClusterConfig"]["workerGroupSpecs"]}


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod that the manifests ask for, with a name for messages."""
    for one in manifests:
        name = f"{one['kind']}/{one['metadata']['name']}"
        match one["kind"]:
            case "Pod":
                yield name, one
            case "Job" | "Deployment" | "StatefulSet":
                yield name, one["spec"]["template"]
            case "RayService":
                cluster = one["spec"]["rayClusterConfig"]
                yield f"{name}/head", cluster["headGroupSpec"]["template"]
                for group in cluster["workerGroupSpecs"]:
                    yield f"{name}/{group['groupName']}", group["template"]


def containers(pod: Manifest) -> list[Manifest]:
    """Of a pod, those that run first too."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
