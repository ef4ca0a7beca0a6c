"""Shapes that Longtake chooses itself, and how the ranks of a gang are laid on nodes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config.farm import FarmConfig, PoolConfig
from serving.config.gang_shapes import choose_gang, parts_to_fit, settle_shapes
from serving.errors import UserError
from serving.models.registry import open_model
from serving.models.testing import write_tiny_checkpoint


def farm(**pool: object) -> FarmConfig:
    return FarmConfig(pools=(PoolConfig.model_validate({"gang_shape": "auto", **pool}),))


def test_auto_is_one_rank_where_cores_compute() -> None:
    assert settle_shapes(farm()).pools[0].gang_shape == "1"


def test_a_shape_that_is_named_stays_and_no_model_is_opened_for_it() -> None:
    config = farm(gang_shape="ulysses=2", model="./no-such-model")
    assert settle_shapes(config) == config


def test_auto_takes_as_many_gpus_as_a_full_call_needs(tmp_path: Path) -> None:
    name = str(write_tiny_checkpoint(tmp_path / "model", "2.1"))
    model = open_model(name)
    made_for = model.capabilities
    tokens = model.workload(width=made_for.width, height=made_for.height, latents=made_for.window).tokens
    weights, call = model.denoiser_bytes("cuda"), tokens * model.call_bytes_per_token("cuda")

    def shape(memory_bytes: float) -> str:
        gib = memory_bytes / (1 << 30)
        return str(
            choose_gang(
                model, width=made_for.width, height=made_for.height, latents=made_for.window,
                gpus_per_node=8, gpu_gib=gib,
            )
        )  # fmt: skip

    assert shape(weights + 1.01 * call) == "1"
    assert shape(weights + 0.51 * call) == "ulysses=2"
    assert parts_to_fit(model, tokens=tokens, gpu_gib=(weights + 0.34 * call) / (1 << 30)) == 3
    assert settle_shapes(farm(model=name, gpus_per_rank=1)).pools[0].gang_shape == "1"


def test_a_model_that_fits_no_gpu_or_cannot_be_opened_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pools\[0\]\.model: .*no-such-model"):
        settle_shapes(farm(model="./no-such-model", gpus_per_rank=1))


def test_a_gang_that_fits_a_node_has_a_bundle_for_each_rank() -> None:
    pool = PoolConfig(gang_shape="ulysses=4", gpus_per_rank=1)
    assert pool.rank_bundles == [{"CPU": 1.0, "GPU": 1.0}] * 4
    assert pool.ranks_per_bundle == 1


def test_a_gang_over_several_nodes_keeps_the_ranks_that_exchange_most_on_one() -> None:
    pool = PoolConfig(gang_shape="ulysses=4 x ring=2", gpus_per_rank=1, ranks_per_node=4)
    assert pool.rank_bundles == [{"CPU": 4.0, "GPU": 4.0}] * 2
    nodes = [rank // pool.ranks_per_bundle for rank in range(8)]
    rings = [pool.shape.coordinates(rank).ring for rank in range(8)]
    assert nodes == rings, "each Ulysses group has a node, and only the ring crosses"


@given(ulysses=st.integers(1, 8), ring=st.integers(1, 8), room=st.integers(1, 16), threads=st.integers(1, 3))
def test_bundles_hold_every_rank_and_none_is_larger_than_a_node(
    ulysses: int, ring: int, room: int, threads: int
) -> None:
    pool = PoolConfig(gang_shape=f"ulysses={ulysses} x ring={ring} x threads={threads}", ranks_per_node=room)
    cores = [bundle["CPU"] for bundle in pool.rank_bundles]
    assert sum(cores) == pool.shape.ranks * threads
    assert max(cores) <= room * threads
    assert len(cores) == 1 + (pool.shape.ranks - 1) // pool.ranks_per_bundle
