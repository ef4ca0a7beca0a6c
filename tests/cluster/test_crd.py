"""The CRD: the file in the chart, its schema against the model, its rules under a CEL interpreter and an API server."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celpy
import pytest
import yaml
from celpy.adapter import json_to_cel
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError as SchemaError
from jsonschema.validators import extend
from pydantic import ValidationError

from cluster.contract.pools_and_nodes import PoolTerms
from cluster.crd import RENDER_POOLS, crd_yaml, render_pool_crd, render_pool_schema
from cluster.kube.client import Kube, connect
from cluster.kube.errors import Invalid
from cluster.kube.resources import CRDS
from cluster.render_pool import RenderPoolSpec, RenderPoolStatus, read_render_pool, same_shape
from testkit.json_object import Json
from tests.cluster.api_server.server import KubeServer
from tests.cluster.clusters import write_scale

CHART_FILE = Path(__file__).parents[2] / "helm/longtake/crds/renderpools.yaml"

GOOD: Json = {"pool": "wan", "model": "Wan-AI/Wan2.2", "gangShape": "ulysses=2", "minGangs": 0, "maxGangs": 8}


def _pattern(validator: Any, pattern: str, value: object, schema: Json) -> Iterator[SchemaError]:
    # Go's and Rust's `$` is the end; Python's is also before a last line break.
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield SchemaError(f"{value!r} does not match {pattern!r}")


_Validator: Any = extend(Draft202012Validator, {"pattern": _pattern})
SCHEMA = render_pool_schema()["properties"]
SPEC, STATUS = _Validator(SCHEMA["spec"]), _Validator(SCHEMA["status"])
DEFAULTS = {name: one["default"] for name, one in SCHEMA["spec"]["properties"].items() if "default" in one}


def _compiled() -> list[tuple[Json, Any]]:
    # Once, and before any test: the interpreter's parser changes Python's recursion limit, which hypothesis minds.
    environment = celpy.Environment()
    rules = SCHEMA["spec"]["x-kubernetes-validations"]
    return [(rule, environment.program(environment.compile(rule["rule"]))) for rule in rules]


RULES = _compiled()


def cel_refusals(new: Json, old: Json | None = None) -> list[str]:
    """Messages of the rules that fail, as an API server would evaluate them: defaults filled in."""
    names = {"self": json_to_cel(with_defaults(new))}
    if old is not None:
        names["oldSelf"] = json_to_cel(with_defaults(old))
    asked = [(rule, program) for rule, program in RULES if old is not None or "oldSelf" not in rule["rule"]]
    return [rule["message"] for rule, program in asked if not program.evaluate(names)]


def with_defaults(spec: Json) -> Json:
    return {**copy.deepcopy(DEFAULTS), **spec}


def accepted_by_model(spec: Json) -> bool:
    try:
        RenderPoolSpec.model_validate(spec)
    except ValidationError:
        return False
    return True


def accepted_by_server(spec: Json) -> bool:
    return SPEC.is_valid(spec) and not cel_refusals(spec)


# What people write, and what they write wrongly.
_gangs = st.one_of(st.integers(-2, 12), st.sampled_from([2048, 2049, True, "3", 1.5, [], {}]))
_shapes = st.sampled_from(
    ["1", "auto", "ulysses=2", "cfg=2 x ulysses=4 x ring=2", "ulysses=2 x", "2", "", "ulysses=2\n", 1, "ring=12345"]
)
_labels = st.dictionaries(
    st.sampled_from(["nvidia.com/gpu.product", "zone"]), st.sampled_from(["NVIDIA-L4", "", "x" * 64, 3]), max_size=2
)
_specs = st.fixed_dictionaries(
    {},
    optional={
        "pool": st.sampled_from(["wan", "a", "", "Wan", "-a", "a" * 41, "wan\n", 3]),
        "model": st.sampled_from(["pocket", "", "m" * 500, "m" * 501, 7]),
        "gangShape": _shapes,
        "minGangs": _gangs,
        "maxGangs": _gangs,
        "replicas": _gangs,
        "scaling": st.sampled_from(["native", "external", "Native", "", 1]),
        "nodeKind": st.one_of(
            _labels, st.just({f"l{n}": "" for n in range(16)}), st.just({f"l{n}": "" for n in range(17)}), st.just([])
        ),
        "spotPolicy": st.sampled_from(["allow", "avoid", "only", "never"]),
        "unknownToThisRelease": st.just(1),
    },
)


def test_the_chart_holds_the_crd_that_the_program_prints() -> None:
    assert CHART_FILE.read_text() == crd_yaml(), "run: longtake cluster crd > helm/longtake/crds/renderpools.yaml"
    assert yaml.safe_load(crd_yaml()) == render_pool_crd()


def test_the_schema_is_structural_and_describes_every_field() -> None:
    def walk(node: Json, path: str) -> None:
        assert "type" in node, f"{path} has no type"
        assert not {"$ref", "anyOf", "allOf", "oneOf", "title", "const", "exclusiveMinimum"} & set(node), path
        for name, child in node.get("properties", {}).items():
            inside = path.startswith((".spec", ".status")) or name in ("spec", "status")
            assert child.get("description") or not inside, f"{path}.{name} has no description"
            walk(child, f"{path}.{name}")
        for word in ("items", "additionalProperties"):
            if word in node:
                walk(node[word], f"{path}.{word}")

    walk(render_pool_schema(), "")


@given(_specs | st.builds(lambda changes: {**GOOD, **changes}, _specs))
def test_model_and_schema_accept_the_same_specs(spec: Json) -> None:
    assert accepted_by_model(spec) == accepted_by_server(spec)


@given(st.builds(lambda changes: {**GOOD, **changes}, _specs))
def test_a_spec_that_is_accepted_makes_terms_that_the_farm_takes(spec: Json) -> None:
    if accepted_by_server(spec):
        terms = RenderPoolSpec.model_validate(spec).terms
        assert PoolTerms.model_validate(terms.model_dump(mode="json")) == terms


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "observedGeneration": st.sampled_from([0, 3, -1, "3"]),
            "gangs": st.fixed_dictionaries({}, optional={"wanted": _gangs, "ready": _gangs, "starting": _gangs}),
            "replicas": st.sampled_from([0, 5, -1, 1.5]),
            "selector": st.sampled_from(["", "a=b", 1]),
            "backlogGpuSeconds": st.sampled_from([0, 10, -1, "x"]),
            "reason": st.sampled_from(["", "because", 3]),
            "conditions": st.lists(
                st.fixed_dictionaries(
                    {
                        "type": st.sampled_from(["Ready", ""]),
                        "status": st.sampled_from(["True", "False", "Unknown", True, "Maybe"]),
                        "reason": st.sampled_from(["AsSpecified", "as specified", ""]),
                        "message": st.sampled_from(["", "all is well"]),
                    },
                    optional={"lastTransitionTime": st.just("2026-11-26T01:02:03Z")},
                ),
                max_size=2,
            ),
        },
    )
)
def test_model_and_schema_accept_the_same_statuses(status: Json) -> None:
    try:
        RenderPoolStatus.model_validate(status)
        accepted = True
    except ValidationError:
        accepted = False
    assert accepted == STATUS.is_valid(status)


@pytest.mark.parametrize(
    ("field", "value"),
    [("pool", "other"), ("model", "pocket"), ("gangShape", "ring=2"), ("nodeKind", {"zone": "a"})],
)
def test_what_a_pool_is_cannot_change(field: str, value: object) -> None:
    (refusal,) = cel_refusals({**GOOD, field: value}, GOOD)
    assert refusal.startswith(f"{field} cannot change; only minGangs, maxGangs, replicas, scaling and spotPolicy can")


def test_leaving_a_field_out_is_no_way_round_that() -> None:
    assert cel_refusals({name: value for name, value in GOOD.items() if name != "gangShape"}, GOOD)
    assert cel_refusals(GOOD, {**GOOD, "nodeKind": {"zone": "a"}})


def test_how_many_and_who_decides_may_change() -> None:
    changed = {**GOOD, "minGangs": 2, "maxGangs": 9, "replicas": 4, "scaling": "external", "spotPolicy": "only"}
    assert cel_refusals(changed, GOOD) == []


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    with KubeServer() as server:
        kube = connect(kubeconfig=server.kubeconfig(tmp_path / "config"))
        kube.apply(CRDS, render_pool_crd())
        yield kube


def render_pool(**spec: object) -> Json:
    return {"metadata": {"name": "wan", "namespace": "default"}, "spec": {**GOOD, **spec}}


def test_an_api_server_fills_in_defaults_and_refuses_what_the_rules_forbid(kube: Kube) -> None:
    stored = kube.create(RENDER_POOLS, render_pool())
    assert stored["spec"] == {**GOOD, "scaling": "native", "nodeKind": {}, "spotPolicy": "allow"}
    with pytest.raises(Invalid, match="gangShape cannot change"):
        kube.patch(RENDER_POOLS, "wan", {"spec": {"gangShape": "1"}}, namespace="default")
    with pytest.raises(Invalid, match="minGangs must be at most maxGangs"):
        kube.patch(RENDER_POOLS, "wan", {"spec": {"minGangs": 9}}, namespace="default")


def test_the_scale_subresource_writes_replicas(kube: Kube) -> None:
    kube.create(RENDER_POOLS, render_pool(scaling="external"))
    status = {"replicas": 2, "selector": "longtake.dev/pool=wan", "gangs": {}}
    kube.patch_status(RENDER_POOLS, "wan", status, namespace="default")
    scale = write_scale(kube, RENDER_POOLS, "wan", 3, namespace="default")
    assert scale["status"] == {"replicas": 2, "selector": "longtake.dev/pool=wan"}
    pool = read_render_pool(kube.get(RENDER_POOLS, "wan", namespace="default"))
    assert pool.spec is not None
    assert pool.spec.terms.replicas == 3
    assert pool.generation == 2, "a scale is a change of the spec"


def test_limits_can_be_lowered_below_what_an_autoscaler_asks_for(kube: Kube) -> None:
    """Or a release with fewer gangs would fail half-way, and so would going back to one."""
    kube.create(RENDER_POOLS, render_pool(scaling="external", replicas=8))
    kube.patch(RENDER_POOLS, "wan", {"spec": {"maxGangs": 3}}, namespace="default")
    write_scale(kube, RENDER_POOLS, "wan", 9, namespace="default")
    pool = read_render_pool(kube.get(RENDER_POOLS, "wan", namespace="default"))
    assert pool.spec is not None, pool.problem
    assert (pool.spec.terms.replicas, pool.spec.terms.max_gangs) == (9, 3)
    assert PoolTerms.model_validate(pool.spec.terms.model_dump(mode="json")) == pool.spec.terms, "the farm takes it"


def test_a_spec_that_an_older_crd_let_pass_is_a_problem_and_no_crash() -> None:
    pool = read_render_pool({"metadata": {"name": "wan"}, "spec": {**GOOD, "scaling": "manual", "maxGangs": 0}})
    assert pool.spec is None
    assert "spec.scaling" in pool.problem
    assert "spec.maxGangs" in pool.problem


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        ("1", "1", True),
        ("auto", "cfg=2 x ulysses=2", True),
        ("ulysses=2 x cfg=2", "cfg=2 x ulysses=2", True),
        ("cfg=1 x ulysses=2", "ulysses=2", True),
        ("ulysses=2", "ring=2", False),
        ("1", "ulysses=2", False),
    ],
)
def test_a_gang_shape_is_the_same_however_it_is_written(wanted: str, found: str, same: bool) -> None:
    assert same_shape(wanted, found) is same
