"""Chooses the shape of gangs if that is left to Longtake (`auto`): the smallest that a call fits into.

It decides by the model's configs and what a GPU holds, not by the machine that it runs on: the shape is part of what
decides a film's bytes. Arithmetic is in sharding/gang_shape.py.
"""

from typing import TYPE_CHECKING

from serving.config.farm import AUTO, FarmConfig, PoolConfig
from serving.errors import ModelError, UserError
from sharding.gang_shape import GangShape, choose_shape, fewest_ranks

if TYPE_CHECKING:
    from serving.models.wan import WanModel

GIB = 1 << 30


def parts_to_fit(model: "WanModel", *, tokens: int, gpu_gib: float) -> int:
    """GPUs that the tokens of one call must be split over. Raises ValueError if the weights alone do not fit."""
    return fewest_ranks(
        tokens=tokens,
        bytes_per_token=model.call_bytes_per_token("cuda"),
        weights_bytes=model.denoiser_bytes("cuda"),
        gpu_bytes=int(gpu_gib * GIB),
    )


def choose_gang(
    model: "WanModel", *, width: int, height: int, latents: int, gpus_per_node: int, gpu_gib: float
) -> GangShape:
    """The smallest gang of GPUs that calls of this many latents at a size in pixels fit into. Raises ValueError."""
    work = model.workload(width=width, height=height, latents=latents)
    return choose_shape(
        work,
        gpus_per_node=gpus_per_node,
        bytes_per_token=model.call_bytes_per_token("cuda"),
        weights_bytes=model.denoiser_bytes("cuda"),
        gpu_bytes=int(gpu_gib * GIB),
    )


def settle_shapes(config: FarmConfig) -> FarmConfig:
    """The same farm with a shape in place of each `auto`, for full calls at the size that the model was made for. Opens
    the models of those pools. Raises UserError."""
    return config.model_copy(
        update={"pools": tuple(_settle(pool, f"pools[{index}]") for index, pool in enumerate(config.pools))}
    )


def _settle(pool: PoolConfig, place: str) -> PoolConfig:
    if pool.gang_shape != AUTO:
        return pool
    if not pool.gpus_per_rank:  # cores share one memory: a second rank would hold the weights twice
        return pool.model_copy(update={"gang_shape": str(GangShape())})
    from serving.models.registry import open_model

    try:
        model = open_model(pool.model)
        made_for = model.capabilities
        shape = choose_gang(
            model,
            width=made_for.width,
            height=made_for.height,
            latents=made_for.window,
            gpus_per_node=pool.ranks_per_node or 8,
            gpu_gib=pool.gpu_gib,
        )
    except ModelError as error:
        raise UserError(f"{place}.model: {error}") from error
    except ValueError as error:
        raise UserError(f"{place}.gang_shape: {error}") from error
    return pool.model_copy(update={"gang_shape": str(shape)})
