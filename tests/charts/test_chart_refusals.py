"""What makes no sense is refused by both Helms before it reaches a cluster, with the place and what is allowed."""

from typing import Any

import pytest

from tests.charts.chart_rendering import HELMS, changed, try_render, values_of

BY_SCHEMA: list[tuple[str, Any, str]] = [
    ("stor", {}, "stor"),
    ("store.urll", "x", "urll"),
    ("store.url", "sqlite:////data/farm.db", "/store/url"),
    ("store.url", "postgresql://longtake:secret@db.example/longtake", "/store/url"),
    ("store.url", "", "/store/url"),
    ("artifacts.url", "/data/artifacts", "/artifacts/url"),
    ("artifacts.url", "file:///data/artifacts", "/artifacts/url"),
    ("artifacts.url", "s3://key:secret@films", "/artifacts/url"),
    ("farm.store_url", "sqlite:////data/farm.db", "store_url"),
    ("farm.artifacts_url", "/data", "artifacts_url"),
    ("farm.pools", [], "pools"),
    ("farm.decoder", 2, "decoder"),
    ("farm.decoders", 0, "/farm/decoders"),
    ("farm.limits.active_job", 2, "active_job"),
    ("pools", [], "/pools"),
    ("pools.0.model", "pockets", "/pools/0/model"),
    ("pools.0.model", "./folder", "/pools/0/model"),
    ("pools.0.gangShape", "2", "/pools/0/gangShape"),
    ("pools.0.gangShape", "ulyses=2", "/pools/0/gangShape"),
    ("pools.0.gangShape", "ulysses=0", "/pools/0/gangShape"),
    ("pools.0.gangShape", "auto", "/pools/0/gangShape"),
    ("pools.0.maxGangs", 0, "/pools/0/maxGangs"),
    ("pools.0.maxGangs", 1.5, "/pools/0/maxGangs"),
    ("pools.0.minGang", 1, "minGang"),
    ("pools.0.name", "Default", "/pools/0/name"),
    ("pools.0.spotPolicy", "never", "/pools/0/spotPolicy"),
    ("pools.0.scaling", "keda", "/pools/0/scaling"),
    ("pools.0.planner", {"drain_within": 60}, "drain_within"),
    ("pools.0.workers", [], "/pools/0/workers"),
    ("pools.0.workers.0.cpu", "4", "/pools/0/workers/0/cpu"),
    ("pools.0.workers.0.memory", "8 GB", "/pools/0/workers/0/memory"),
    ("pools.0.workers.0.maxReplica", 3, "maxReplica"),
    ("weights.models", [{"name": "Wan-AI/Wan2.1", "revision": "main"}], "/weights/models/0/revision"),
    ("weights.volume.type", "nfs", "/weights/volume/type"),
    ("ray.extraEnv", [{"name": "LONGTAKE_STORE_URL", "value": "sqlite:///x"}], "/ray/extraEnv/0/name"),
    ("ray.terminationGracePeriodSeconds", 60, "/ray/terminationGracePeriodSeconds"),
    ("ray.clusterDeletionDelaySeconds", 0, "/ray/clusterDeletionDelaySeconds"),
    ("gcs.backend", "etcd", "/gcs/backend"),
    ("gcs.redis.address", "redis://:secret@redis.example", "/gcs/redis/address"),
    ("controller.maxDrainedShare", 0, "/controller/maxDrainedShare"),
    ("image.digest", "latest", "/image/digest"),
    ("externalScaling.kind", "vpa", "/externalScaling/kind"),
    ("service.type", "clusterIP", "/service/type"),
]


@pytest.mark.parametrize("helm_name", HELMS)
@pytest.mark.parametrize(
    ("path", "value", "told"), BY_SCHEMA, ids=[f"{path}={value}"[:60] for path, value, _ in BY_SCHEMA]
)
def test_the_schema_refuses(path: str, value: object, told: str, helm_name: str) -> None:
    ran = try_render(changed(values_of("minimal"), path, value), helm_name=helm_name)
    assert ran.code != 0
    place = told if told.startswith("/") is False or helm_name == "helm4" else told[1:].replace("/", ".")
    assert place in ran.err.replace("'", "").replace('"', ""), ran.err


BY_CHECK: list[tuple[str, str, Any, str]] = [
    ("minimal", "pools.0.minGangs", 5, "pools[0].minGangs: is 5 and must be at most maxGangs, 4"),
    ("minimal", "pools.0.model", "org/name", "pools[0].model: org/name is not among weights.models"),
    ("minimal", "pools.0.workers.0.minReplicas", 3, "pools[0].workers[0].minReplicas: must be at most maxReplicas, 2"),
    ("minimal", "pools.0.spotPolicy", "only", "pools[0].spotPolicy: is only, and none of its workers is spot"),
    ("minimal", "pools.0.workers.0.cpu", 1, "pools[0].workers[0].cpu: is 1, and must be above 1"),
    ("minimal", "gcs.redis.address", "", "gcs.redis.address: is needed"),
    ("minimal", "adminKey.secret.name", "", "adminKey.secret.name: is needed for the controller"),
    ("minimal", "ingress.enabled", True, "ingress.host: is needed"),
    ("minimal", "weights.volume.type", "hostPath", "weights.volume.hostPath: is needed"),
    ("minimal", "fullnameOverride", "1film", "fullnameOverride: 1film must begin with a small letter"),
    ("gpu", "pools.1.spotPolicy", "avoid", "pools[1].spotPolicy: is avoid, and all of its workers are spot"),
    ("gpu", "pools.1.name", "wan-14b", "pools[1].name: wan-14b is the name of another pool too"),
    ("gpu", "pools.0.workers.1.name", "spot", "pools[0].workers: there are two groups of the name wan-14b-spot"),
    ("gpu", "pools.0.workers.0.gpus", 0, "pools[0].workers[1].gpus: all groups of a pool have GPUs, or none has"),
    (
        "gpu",
        "pools.0.workers.0.gpus",
        4,
        "pools[0].workers[0].gpus: is 4, and a gang of shape cfg=2 x ulysses=4 needs 8",
    ),
    (
        "bare",
        "externalScaling",
        {"kind": "hpa"},
        "externalScaling.kind: scales RenderPools, which need controller.enabled",
    ),
]


@pytest.mark.parametrize("helm_name", HELMS)
@pytest.mark.parametrize(("name", "path", "value", "told"), BY_CHECK, ids=[f"{path}" for _, path, _, _ in BY_CHECK])
def test_the_chart_refuses(name: str, path: str, value: object, told: str, helm_name: str) -> None:
    ran = try_render(changed(values_of(name), path, value), helm_name=helm_name)
    assert ran.code != 0
    assert told in ran.err, ran.err


def test_more_gangs_than_there_is_room_for_are_refused() -> None:
    values = changed(changed(values_of("minimal"), "pools.0.maxGangs", 9), "pools.0.minGangs", 7)
    assert "pools[0].minGangs: is 7, and its workers have room for 6" in try_render(values).err
    assert try_render(changed(values, "pools.0.minGangs", 6)).code == 0


@pytest.mark.parametrize("part", ["store", "artifacts", "pools"])
def test_what_an_operator_must_say_is_asked_for(part: str) -> None:
    values = values_of("minimal")
    del values[part]
    ran = try_render(values)
    assert ran.code != 0
    assert part in ran.err
