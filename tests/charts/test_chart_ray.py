"""What the chart tells Ray, read by Ray's own code, and the farm's by the farm's."""

import json
import math
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.contract.pools_and_nodes import MAX_GANGS
from cluster.render_pool import POOL_LABEL, read_render_pool, same_shape
from serving import settings
from serving.config.farm import FarmConfig, PoolConfig, ScalingConfig, load_config
from sharding.gang_shape import GangShape
from tests.charts.chart_rendering import (
    CHART,
    CI,
    DEFAULTS,
    Manifest,
    changed,
    groups,
    of_kind,
    only,
    pods,
    ray_service,
    render,
    serve_config,
    try_render,
    values_of,
)

with warnings.catch_warnings():  # Ray's own use of pydantic
    warnings.simplefilter("ignore")
    import ray
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.core.generated.autoscaler_pb2 import ResourceRequest, ResourceRequestByCount
    from ray.core.generated.common_pb2 import LabelSelectorOperator
    from ray.serve.schema import ServeDeploySchema

    from serving.actors.named import APP
    from serving.app import LEADER_CPU, build_front, build_pool


def autoscaler_config(manifests: list[Manifest]) -> dict[str, Any]:
    """As the Ray autoscaler in the head's pod derives it from the RayCluster that KubeRay makes."""
    cluster = {
        "metadata": {"name": "longtake-abcde", "namespace": "films"},
        "spec": ray_service(manifests)["rayClusterConfig"],
    }
    config: dict[str, Any] = _derive_autoscaling_config_from_ray_cr(cluster)
    return config


def node_types(manifests: list[Manifest]) -> dict[str, Any]:
    """The kinds of nodes in it."""
    types: dict[str, Any] = autoscaler_config(manifests)["available_node_types"]
    return types


def farm_of(manifests: list[Manifest]) -> FarmConfig:
    """The farm as Serve starts it."""
    return FarmConfig.model_validate(serve_config(manifests)["applications"][0]["args"])


def needed_of_a_node(pool: PoolConfig) -> dict[str, float]:
    """What a gang takes of the node with its leader: all its bundles if it fits one node, else the largest."""
    bundles = pool.rank_bundles if pool.fits_a_node else pool.rank_bundles[:1]
    needed = {name: sum(bundle[name] for bundle in bundles) for name in bundles[0]}
    return {**needed, "CPU": needed["CPU"] + LEADER_CPU}


# ------------------------------------------------------------------------------------------------------ nodes


def test_ray_reads_gpu_groups_with_their_labels_and_spot_goes_first() -> None:
    types = node_types(render(values_of("gpu")))
    spot, on_demand = types["wan-14b-spot"], types["wan-14b-on-demand"]
    assert spot["resources"] == {"CPU": 32, "GPU": 8, "memory": 512 << 30}
    assert spot["labels"] == {
        "ray.io/market-type": "spot",
        "ray.io/accelerator-type": "H100",
        POOL_LABEL: "wan-14b",
    }
    assert (spot["min_workers"], spot["max_workers"]) == (0, 8)
    assert on_demand["labels"]["ray.io/market-type"] == "on-demand"
    assert (on_demand["min_workers"], on_demand["max_workers"]) == (1, 4)
    assert on_demand["idle_timeout_s"] == 900
    assert spot["priority"] > on_demand["priority"]


def test_ray_reads_groups_without_gpus() -> None:
    types = node_types(render(values_of("minimal")))
    assert types["default-cores"]["resources"] == {"CPU": 4, "memory": 8 << 30}


@pytest.mark.parametrize("name", CI)
def test_only_nodes_that_are_not_spot_hold_the_director_and_the_takes(name: str) -> None:
    types = node_types(render(values_of(name)))
    holding = {group for group, node in types.items() if settings.CONTROL_RESOURCE in node["resources"]}
    on_head = values_of(name).get("ray", {}).get("control", {}).get("replicas", 1) == 0
    assert holding == ({"headgroup"} if on_head else {"control"})
    assert "spot" not in {types[group]["labels"].get("ray.io/market-type") for group in holding}


@pytest.mark.parametrize("replicas", [0, 1])
def test_the_shell_kuberay_and_ray_read_the_same_of_the_resources(replicas: int) -> None:
    """KubeRay writes `ray start --resources=...` for bash, and reads the value itself for accelerators: its
    getResourcesMap takes quotes and spaces off both ends and expects JSON between them."""
    cluster = ray_service(render(changed(values_of("minimal"), "ray.control.replicas", replicas)))["rayClusterConfig"]
    group = cluster["workerGroupSpecs"][0] if replicas else cluster["headGroupSpec"]
    value = group["rayStartParams"]["resources"]
    expected = {settings.CONTROL_RESOURCE: 1}
    (word,) = shlex.split(f"--resources={value}")
    assert json.loads(word.removeprefix("--resources=")) == expected
    assert json.loads(value.strip("'\" ")) == expected
    types = node_types(render(changed(values_of("minimal"), "ray.control.replicas", replicas)))
    assert types["control" if replicas else "headgroup"]["resources"].items() >= expected.items()


@pytest.mark.parametrize("name", CI)
def test_the_head_runs_no_gang(name: str) -> None:
    assert node_types(render(values_of(name)))["headgroup"]["resources"]["CPU"] == 0


@pytest.mark.parametrize("name", CI)
def test_each_group_of_a_pool_has_room_for_its_gang(name: str) -> None:
    manifests = render(values_of(name))
    types = node_types(manifests)
    for pool in farm_of(manifests).pools:
        mine = [node for node in types.values() if node["labels"].get(POOL_LABEL) == pool.name]
        assert mine
        for node in mine:
            assert pool.node_labels.items() <= node["labels"].items()
            for name, amount in needed_of_a_node(pool).items():
                assert amount <= node["resources"].get(name, 0)


def test_a_gang_that_fits_only_without_its_leader_is_refused() -> None:
    ran = try_render(changed(values_of("gpu"), "pools.0.workers.0.cpu", 8))
    assert "pools[0].workers[0].cpu: is 8, and must be above 8" in ran.err


@pytest.mark.parametrize("name", CI)
def test_replicas_of_scaled_groups_belong_to_the_autoscaler(name: str) -> None:
    for group, spec in groups(render(values_of(name))).items():
        assert ("replicas" in spec) == (group == "control")


# ------------------------------------------------------------------------------------------------- application


@pytest.mark.parametrize("name", CI)
def test_serve_reads_the_application(name: str) -> None:
    config = ServeDeploySchema.model_validate(serve_config(render(values_of(name))))
    application, *pools = config.applications
    assert application.name == APP, "the farm's processes find each other by this name"
    assert application.import_path == "serving.app:build_front"
    assert [pool.name for pool in pools] == [f"pool-{pool.name}" for pool in farm_of(render(values_of(name))).pools]
    assert {(pool.import_path, pool.route_prefix) for pool in pools} == {("serving.app:build_pool", None)}
    assert (config.http_options.host, config.http_options.port) == ("0.0.0.0", 8000)
    assert config.http_options.request_timeout_s is None, "a limit would cut event streams"


def test_serve_builds_the_application_from_what_the_chart_says() -> None:
    manifests = render(values_of("gpu"))
    front, *pools = serve_config(manifests)["applications"]
    assert build_front(front["args"])._bound_deployment.name == "Api"
    for told, pool in zip(pools, farm_of(manifests).pools, strict=True):
        gangs, expected = build_pool(told["args"])._bound_deployment, pool.for_gangs()
        assert (gangs.name, gangs.init_args) == (f"Renderer-{pool.name}", (expected,))
        placed: Any = gangs._replica_config
        assert placed.placement_group_bundles[1:] == pool.rank_bundles
        assert placed.placement_group_bundle_label_selector[0] == pool.node_selector
        assert gangs._deployment_config.autoscaling_config is not None


@pytest.mark.parametrize("name", CI)
def test_farm_yaml_is_read_by_the_farm_and_is_what_serve_is_told(name: str, tmp_path: Path) -> None:
    manifests = render(values_of(name))
    file = tmp_path / "farm.yaml"
    file.write_text(only(manifests, "ConfigMap", farm_map(manifests))["data"]["farm.yaml"])
    assert load_config(file, {"LONGTAKE_HOME": str(tmp_path)}) == farm_of(manifests)


def farm_map(manifests: list[Manifest]) -> str:
    """Name of the ConfigMap with farm.yaml."""
    [name] = [one["metadata"]["name"] for one in of_kind(manifests, "ConfigMap") if "farm.yaml" in one["data"]]
    return str(name)


@pytest.mark.parametrize("name", CI)
def test_the_farm_asks_for_keys_and_listens_where_its_ports_are(name: str) -> None:
    manifests = render(values_of(name))
    farm = farm_of(manifests)
    assert farm.needs_keys
    head = ray_service(manifests)["rayClusterConfig"]["headGroupSpec"]["template"]
    ports = {port["name"]: port["containerPort"] for port in head["spec"]["containers"][0]["ports"]}
    assert ports["serve"] == farm.port
    directors = [
        port["containerPort"]
        for _, pod in pods(manifests)
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
        if port["name"] == "director"
    ]
    assert set(directors) == {farm.exporter_port}


def test_values_of_the_farm_reach_it() -> None:
    farm = farm_of(render(values_of("gpu")))
    assert farm.timeline_hosts == 4
    assert farm.limits.max_body_bytes == 8 << 20
    assert (farm.retention.films_days, farm.retention.takes_days) == (90, None)
    first, second = farm.pools
    assert (first.gang_shape, first.gpus_per_rank, first.price_per_gpu_second) == ("cfg=2 x ulysses=4", 1, 0.0009)
    assert (second.spot, second.slots) == ("only", 3)


@pytest.mark.parametrize("name", CI)
def test_render_pools_agree_with_the_farm(name: str) -> None:
    manifests = render(values_of(name))
    found = [read_render_pool(one) for one in of_kind(manifests, "RenderPool")]
    if not values_of(name).get("controller", {}).get("enabled", True):
        assert found == []
        return
    farm = farm_of(manifests)
    assert [pool.spec.pool for pool in found if pool.spec] == [pool.name for pool in farm.pools]
    for resource, pool in zip(found, farm.pools, strict=True):
        assert resource.spec is not None, resource.problem
        assert (resource.spec.model, resource.spec.spot_policy) == (pool.model, pool.spot)
        assert same_shape(resource.spec.gang_shape, pool.gang_shape)
        # The farm is told the widest limits: the resource's come before them, and changing those restarts nothing.
        assert (pool.min_gangs, pool.max_gangs) == (0, MAX_GANGS)
        assert pool.scaling is not None
        assert pool.node_labels == {POOL_LABEL: pool.name}


def test_without_a_controller_the_farm_is_told_the_limits() -> None:
    (pool,) = farm_of(render(values_of("bare"))).pools
    assert (pool.min_gangs, pool.max_gangs) == (1, 2)


@pytest.mark.parametrize("shape", ["1", "ulysses=2", "cfg=2 x ring=4", "cfg=2 x ulysses=2 x ring=2 x threads=2"])
def test_the_chart_counts_ranks_as_the_farm_does(shape: str) -> None:
    parsed = GangShape.parse(shape)
    cores = parsed.ranks * parsed.threads
    values = changed(values_of("minimal"), "pools.0.gangShape", shape)
    for cpu, fits in ((cores + 1, True), (cores, False)):
        assert (try_render(changed(values, "pools.0.workers.0.cpu", cpu)).code == 0) is fits


# ---------------------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize("name", CI)
def test_passwords_and_keys_come_from_secrets_alone(name: str) -> None:
    for _, pod in pods(render(values_of(name))):
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", ()):
                if variable["name"] in ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "LONGTAKE_API_KEY"):
                    assert set(variable["valueFrom"]) == {"secretKeyRef"}


def test_the_database_driver_takes_the_password_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what the chart relies on, so that the password stands in no URL."""
    from psycopg import pq

    monkeypatch.setenv("PGPASSWORD", "secret")
    url = serve_config(render(values_of("minimal")))["applications"][0]["args"]["store_url"]
    options = {option.keyword: option.val for option in pq.Conninfo.parse(url.encode())}
    assert options[b"password"] is None
    defaults = {option.keyword: option.val for option in pq.Conninfo.get_defaults()}
    assert defaults[b"password"] == b"secret"


def test_only_the_container_that_fetches_weights_gets_the_hubs_token() -> None:
    for where, pod in pods(render(values_of("gpu"))):
        with_token = [
            container["name"]
            for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
            if any(variable["name"] == "HF_TOKEN" for variable in container.get("env", ()))
        ]
        fetches = where.startswith("RayService") and not where.endswith("/head")
        assert with_token == (["fetch-weights"] if fetches else []), where


# ------------------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize("name", CI)
def test_a_pod_outlives_its_gangs_and_ray_drains_in_between(name: str) -> None:
    manifests = render(values_of(name))
    longest = max(pool.drain_s for pool in farm_of(manifests).pools)
    assert longest >= settings.DRAIN_S
    for where, pod in pods(manifests):
        if where.startswith("RayService"):
            grace = pod["spec"]["terminationGracePeriodSeconds"]
            (drain,) = (
                int(variable["value"])
                for variable in pod["spec"]["containers"][0]["env"]
                if variable["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
            )
            assert longest < drain < grace
    assert ray_service(manifests)["rayClusterDeletionDelaySeconds"] >= math.ceil(longest + settings.FARM_DRAIN_S)


def test_a_drain_that_a_pod_would_not_survive_is_refused() -> None:
    values = changed(values_of("minimal"), "pools.0.drainSeconds", 91)
    assert "ray.terminationGracePeriodSeconds, 150, must be at least 60 more" in try_render(values).err
    assert farm_of(render(changed(values, "ray.terminationGracePeriodSeconds", 200))).pools[0].drain_s == 91


def test_ray_auth_needs_the_version_that_the_chart_names() -> None:
    assert ray_service(render(values_of("minimal")))["rayClusterConfig"]["rayVersion"] == ray.__version__


def test_the_schema_of_the_farms_keys_is_that_of_the_farm() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    set_by_the_chart = {
        "pools",
        "host",
        "port",
        "metrics_host",
        "metrics_port",
        "store_url",
        "artifacts_url",
        "scratch",
    }
    of_one_machine = {"object_store_bytes"}
    known = schema["properties"]["farm"]["properties"]
    assert set(known) == set(FarmConfig.model_fields) - set_by_the_chart - of_one_machine
    for part in ("retention", "limits", "assets"):
        inner = FarmConfig.model_fields[part].annotation
        assert set(known[part]["properties"]) == set(inner.model_fields)  # type: ignore[union-attr]
    assert set(schema["$defs"]["pool"]["properties"]["planner"]["properties"]) == set(ScalingConfig.model_fields)


def test_yaml_that_people_read_is_the_same_farm() -> None:
    manifests = render(values_of("gpu"))
    text = only(manifests, "ConfigMap", farm_map(manifests))["data"]["farm.yaml"]
    assert yaml.safe_load(text) == serve_config(manifests)["applications"][0]["args"]


# -------------------------------------------------------------------------------------------------- scheduling


def launched(manifests: list[Manifest], pool: str, availability: dict[str, float] | None = None) -> dict[str, int]:
    """Nodes that Ray's own scheduler starts for one gang of a pool, in the cluster that the chart asks for."""
    config = autoscaler_config(manifests)
    for node in config["available_node_types"].values():
        node["min_workers"] = 0
    (wanted,) = (one for one in farm_of(manifests).pools if one.name == pool)
    request = ResourceRequest()
    for name, amount in needed_of_a_node(wanted).items():
        request.resources_bundle[name] = amount
    selector = request.label_selectors.add()
    for key, value in wanted.node_selector.items():
        operator = (
            LabelSelectorOperator.LABEL_OPERATOR_NOT_IN
            if value.startswith("!")
            else LabelSelectorOperator.LABEL_OPERATOR_IN
        )
        selector.label_constraints.add(label_key=key, operator=operator, label_values=[value.removeprefix("!")])
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=AutoscalingConfig(config, skip_content_hash=True).get_node_type_configs(),
            max_num_nodes=100,
            resource_requests=[ResourceRequestByCount(request=request, count=1)],
            recoverable_resource_availabilities=availability or {},
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch if launch.instance_type != "headgroup"}


def test_a_gang_is_given_a_spot_node_and_an_on_demand_node_where_there_is_no_spot() -> None:
    manifests = render(values_of("gpu"))
    assert launched(manifests, "wan-14b") == {"wan-14b-spot": 1}
    assert launched(manifests, "wan-14b", {"wan-14b-spot": 0.0}) == {"wan-14b-on-demand": 1}


def test_how_long_a_pod_may_be_pending_reaches_the_autoscaler() -> None:
    options = ray_service(render(values_of("gpu")))["rayClusterConfig"]["autoscalerOptions"]
    environment = {variable["name"]: variable["value"] for variable in options["env"]}
    program = (
        "from ray.autoscaler.v2.instance_manager.config import InstanceReconcileConfig;"
        "print(InstanceReconcileConfig().allocate_status_timeout_s)"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == str(DEFAULTS["ray"]["autoscaler"]["pendingTimeoutSeconds"])


def test_nodes_that_a_gang_fills_better_come_before_priority() -> None:
    """So the chart warns of pools whose nodes differ (NOTES.txt); this is why."""
    smaller = changed(changed(values_of("gpu"), "pools.0.workers.1.cpu", 9), "pools.0.workers.1.memory", "100Gi")
    assert launched(render(smaller), "wan-14b") == {"wan-14b-on-demand": 1}


def test_a_pool_that_avoids_spot_is_given_none() -> None:
    assert launched(render(changed(values_of("gpu"), "pools.0.spotPolicy", "avoid")), "wan-14b") == {
        "wan-14b-on-demand": 1
    }


def test_each_pool_is_given_its_own_nodes() -> None:
    assert launched(render(values_of("gpu")), "wan-1b") == {"wan-1b-l40s": 1}
    assert launched(render(values_of("minimal")), "default") == {"default-cores": 1}
