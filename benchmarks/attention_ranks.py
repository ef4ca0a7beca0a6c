"""What each rank does for benchmarks/attention.py: attend in one way or another, and measure itself."""

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sharding.attention import CpuFlash
from sharding.gang_groups import GangGroups
from sharding.gang_shape import split_sizes
from sharding.sequence import sequence_attention

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def measure(
    groups: GangGroups, methods: Sequence[str], tokens: int, heads: int, width: int, repeats: int
) -> dict[str, dict[str, Any]]:
    """Seconds of each repeat of each method, methods in turn; bytes sent to other ranks; bytes resident beyond the
    inputs while a block is computed."""
    random = torch.Generator().manual_seed(groups.rank)
    sizes = split_sizes(tokens, groups.shape.ranks)
    here = sizes[groups.sequence_index]
    query, key, value = (torch.randn(1, here, heads, width, generator=random) for _ in range(3))
    found: dict[str, dict[str, Any]] = {method: {"seconds": [], "sent": 0, "resident": 0} for method in methods}
    with torch.inference_mode():
        for repeat in range(repeats + 1):  # the first warms
            for method in methods:
                attend = _attend_by(method, groups, sizes, tokens, found[method] if repeat == 0 else None)
                if groups.shape.ranks > 1:
                    dist.barrier()
                started = time.perf_counter()
                attend(query, key, value)
                seconds = time.perf_counter() - started
                if repeat:
                    found[method]["seconds"].append(seconds)
    return found


def _attend_by(
    method: str, groups: GangGroups, sizes: Sequence[int], tokens: int, watched: dict[str, Any] | None
) -> Attend:
    backend = CpuFlash() if watched is None else WatchedFlash(watched)
    if method == "ours":

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return sequence_attention(
                query, key, value, groups=groups, query_sizes=sizes, key_sizes=sizes, backend=backend
            )

    elif method == "plain":  # the same multiplications, and nothing to exchange

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return CpuFlash().attend(query, *_whole(tokens, query.shape[2:]))

    else:
        config = _diffusers_config(groups)

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return _by_diffusers(query, key, value, config, backend)

    if watched is None:
        return attend

    def counted(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with count_sent(watched):
            return attend(query, key, value)

    return counted


_WHOLE: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}


def _whole(tokens: int, heads: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    if (tokens, *heads) not in _WHOLE:
        _WHOLE[tokens, *heads] = (torch.randn(1, tokens, *heads), torch.randn(1, tokens, *heads))
    return _WHOLE[tokens, *heads]


class WatchedFlash(CpuFlash):
    """Notes how many bytes of tensors there are, beyond those when it was made, while it computes."""

    def __init__(self, into: dict[str, Any]) -> None:
        self._into = into
        self._before = set(_storages())

    def attend_block(
        self, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        new = {pointer: size for pointer, size in _storages().items() if pointer not in self._before}
        self._into["resident"] = max(self._into["resident"], sum(new.values()))
        return super().attend_block(query, key, value, key_bias)


def _storages() -> dict[int, int]:
    tensors = [one for one in gc.get_objects() if type(one) is Tensor and one.numel() > 1000]
    return {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}


class count_sent:  # noqa: N801
    """Adds to `sent` what torch.distributed is given for other ranks."""

    def __init__(self, into: dict[str, Any]) -> None:
        self._into = into

    def __enter__(self) -> None:
        from torch.distributed import _functional_collectives as functional

        self._kept: list[tuple[Any, str, Callable[..., Any]]] = [
            (dist, "all_to_all_single", dist.all_to_all_single),
            (dist, "batch_isend_irecv", dist.batch_isend_irecv),
            (functional, "all_to_all_single", functional.all_to_all_single),
            (functional, "all_gather_tensor", functional.all_gather_tensor),
        ]
        plain, batch, functional_all, gather = (kept for _, _, kept in self._kept)

        def all_to_all(output: Tensor, given: Tensor, *args: Any, group: Any, **named: Any) -> Any:
            counts = args[1] if len(args) > 1 else named["input_split_sizes"]
            own = counts[dist.get_rank(group)]
            self._add((given.numel() - own) * given.itemsize)
            return plain(output, given, *args, group=group, **named)

        def send_and_receive(operations: list[dist.P2POp]) -> Any:
            self._add(sum(one.tensor.nbytes for one in operations if one.op is dist.isend))
            return batch(operations)

        def functional_all_to_all(given: Tensor, into: Any, counts: Any, group: Any, *args: Any) -> Any:
            self._add(given.nbytes * (dist.get_world_size(group) - 1) // dist.get_world_size(group))
            return functional_all(given, into, counts, group, *args)

        def all_gather(given: Tensor, *args: Any, group: Any, **named: Any) -> Any:
            self._add(given.nbytes * (dist.get_world_size(group) - 1))
            return gather(given, *args, group=group, **named)

        replaced = (all_to_all, send_and_receive, functional_all_to_all, all_gather)
        for (module, name, _), replacement in zip(self._kept, replaced, strict=True):
            setattr(module, name, replacement)

    def __exit__(self, *_: object) -> None:
        for module, name, kept in self._kept:
            setattr(module, name, kept)

    def _add(self, num_bytes: int) -> None:
        self._into["sent"] += num_bytes


_CONFIGS: dict[str, Any] = {}


def _diffusers_config(groups: GangGroups) -> Any:
    """diffusers' own context parallelism of the same shape. Its start-up divides by the number of accelerators, of
    which a CPU has none; the mesh that it would have made is given to it here."""
    from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig
    from torch.distributed.device_mesh import init_device_mesh

    shape = groups.shape
    if str(shape) not in _CONFIGS:
        own = ContextParallelConfig(ring_degree=shape.ring, ulysses_degree=shape.ulysses)
        config = ParallelConfig(context_parallel_config=own)
        mesh = init_device_mesh("cpu", own.mesh_shape, mesh_dim_names=own.mesh_dim_names)
        config.setup(groups.rank, shape.ranks, torch.device("cpu"), mesh=mesh)
        _CONFIGS[str(shape)] = config
    return _CONFIGS[str(shape)]


def _by_diffusers(query: Tensor, key: Tensor, value: Tensor, config: Any, backend: CpuFlash) -> Tensor:
    """Its templates around the same kernel as ours: on a CPU it has none of its own that a ring could use."""
    from diffusers.models.attention_dispatch import _templated_context_parallel_attention

    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, *options: Any, **named: Any) -> Any:
        out, lse = backend.attend_block(query, key, value)
        return (out, lse) if options[5] else out

    attended: Tensor = _templated_context_parallel_attention(
        query, key, value, forward_op=forward, backward_op=None, _parallel_config=config
    )
    return attended
