"""Runs a diffusers transformer on a gang: its tokens are split as the context-parallel plan says that it publishes.

The plan names what is split on the way in and gathered on the way out; hooks do both here, for any number of tokens. In
between every rank works on its own tokens. Attention that diffusers would hand to its own context parallelism comes to
ours instead: Ulysses, ring or both, on any device. Nothing of the model is copied or subclassed.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from serving.errors import ModelError
from serving.models.checkpoint import VACE_TRANSFORMER
from sharding.attention import AttentionBackend
from sharding.gang_groups import GangGroups
from sharding.gang_shape import split_sizes
from sharding.sequence import sequence_attention
from sharding.splits import gather_parts, part_of


class SplitSequences:
    """The sequences that are split in one forward pass of a model, and attention over them.

    An attention processor of the model holds it where diffusers would put its own configuration, which it passes on for
    exactly those attentions whose tokens are split.
    """

    def __init__(self, groups: GangGroups, backend: AttentionBackend) -> None:
        self.groups = groups
        """May be replaced between two passes, by others of the same shape."""
        self._backend = backend
        self._sizes: dict[int, tuple[int, ...]] = {}
        """By length of the whole sequence: how many tokens each part has."""

    def begin(self) -> None:
        """A forward pass begins; nothing is split yet."""
        self._sizes.clear()

    def split(self, whole: Tensor, dim: int) -> Tensor:
        """This rank's part of a sequence. Raises ModelError if parts could be taken for those of another one."""
        total = whole.shape[dim]
        if total not in self._sizes:
            sizes = split_sizes(total, self.groups.shape.sequence)
            for other, others in self._sizes.items():  # the same on every rank, so that all raise
                if any(size == another for size, another in zip(sizes, others, strict=True)):
                    raise ModelError(
                        f"sequences of {other} and {total} tokens cannot be told apart once they are split"
                    )
            self._sizes[total] = sizes
        sizes = self._sizes[total]
        return part_of(whole, dim=dim, sizes=sizes, index=self.groups.sequence_index).contiguous()

    def gather(self, part: Tensor, dim: int) -> Tensor:
        """The whole sequence that a part is of, on every rank."""
        assert self.groups.sequence is not None
        return gather_parts(part, dim=dim, sizes=self._sizes_of(part.shape[dim]), group=self.groups.sequence)

    def attend(
        self, query_BsHD: Tensor, key_BsHD: Tensor, value_BsHD: Tensor, key_bias: Tensor | None = None
    ) -> Tensor:
        """Attention of the queries here over the keys of all ranks, [B, s, H, D]; `key_bias` is of the keys here."""
        return sequence_attention(
            query_BsHD,
            key_BsHD,
            value_BsHD,
            groups=self.groups,
            query_sizes=self._sizes_of(query_BsHD.shape[1]),
            key_sizes=self._sizes_of(key_BsHD.shape[1]),
            backend=self._backend,
            key_bias=key_bias,
        )

    def _sizes_of(self, tokens: int) -> Sequence[int]:
        index = self.groups.sequence_index
        for sizes in self._sizes.values():
            if sizes[index] == tokens:
                return sizes
        raise ModelError(f"no sequence was split that has {tokens} tokens here; its plan leaves one out")


def split_over(model: nn.Module, groups: GangGroups, backend: AttentionBackend) -> SplitSequences | None:
    """Make a transformer of diffusers compute a sequence together with the other ranks of a gang.

    All ranks then call it with the same arguments at once, and all get the whole result. It cannot be undone; where the
    gang is formed anew, give the answer its new groups. Returns None if the shape splits no sequence. Raises
    ModelError for a model that publishes no plan, or one that this version does not understand.
    """
    if groups.sequence is None:
        return None
    plan = _plan_of(model)
    if not plan:
        raise ModelError(
            f"{type(model).__name__} publishes no context-parallel plan, so ulysses and ring are not for it"
        )
    sequences = SplitSequences(groups, backend)
    model.register_forward_pre_hook(lambda *_: sequences.begin())
    for pattern, steps in plan.items():
        found = [module for name, module in model.named_modules() if _matches(name, pattern)]
        if not found:
            raise ModelError(f"the plan of {type(model).__name__} names {pattern!r}, which it does not have")
        for module in found:
            _hook(module, steps, sequences)
    _take_attention()
    for module in model.modules():
        processor: Any = getattr(module, "processor", None)
        if hasattr(processor, "_parallel_config"):
            processor._parallel_config = sequences
    return sequences


def _plan_of(model: nn.Module) -> Mapping[str, Any] | None:
    """What is split of a model. VACE publishes nothing, but is Wan with a second row of blocks that goes first."""
    published: Mapping[str, Any] | None = getattr(model, "_cp_plan", None)
    if published or type(model).__name__ != VACE_TRANSFORMER:
        return published
    from diffusers import WanTransformer3DModel

    of_wan = WanTransformer3DModel._cp_plan
    tokens = of_wan["blocks.0"]["hidden_states"]
    return {**of_wan, "vace_blocks.0": {"hidden_states": tokens, "control_hidden_states": tokens}}


def split_by_diffusers(model: nn.Module, groups: GangGroups) -> None:
    """Hand a transformer's sequences to diffusers' own context parallelism: a rival to compare ours with, on GPUs.

    All ranks of the gang call it at once. It cannot be undone: a gang that is formed anew must load the model anew.
    Raises ModelError if diffusers refuses, as it does on a CPU.
    """
    if groups.sequence is None:
        return
    from diffusers.models._modeling_parallel import ContextParallelConfig
    from torch.distributed.device_mesh import init_device_mesh

    if not torch.cuda.is_available():  # its start-up divides by the number of accelerators
        raise ModelError("diffusers' own context parallelism runs on GPUs alone")
    shape = groups.shape
    mesh = init_device_mesh("cuda", (shape.cfg, shape.ring, shape.ulysses), mesh_dim_names=("cfg", "ring", "ulysses"))
    transformer: Any = model
    try:
        transformer.set_attention_backend("_native_cudnn")  # one of those whose log-sum-exp its ring can use
        transformer.enable_parallelism(
            config=ContextParallelConfig(ring_degree=shape.ring, ulysses_degree=shape.ulysses, mesh=mesh)
        )
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"diffusers cannot split {type(model).__name__} as {shape}: {error}") from error


def _matches(name: str, pattern: str) -> bool:
    """`*` stands for one part of a dotted name."""
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(want in ("*", part) for part, want in zip(parts, wanted, strict=True))


def _hook(module: nn.Module, steps: Any, sequences: SplitSequences) -> None:
    if isinstance(steps, Mapping):
        before = {name: step for name, step in steps.items() if not step.split_output}
        after = {index: step for index, step in steps.items() if step.split_output}
        if before:
            module.register_forward_pre_hook(_split_arguments(module, before, sequences), with_kwargs=True)
        if after:
            module.register_forward_hook(_change_output(after, sequences.split, "split_dim"))
        return
    outputs = dict(enumerate(steps)) if isinstance(steps, list | tuple) else {0: steps}
    module.register_forward_hook(_change_output(outputs, sequences.gather, "gather_dim"))


def _split_arguments(module: nn.Module, steps: Mapping[str, Any], sequences: SplitSequences) -> Callable[..., Any]:
    names = list(inspect.signature(module.forward).parameters)

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positional, named = list(args), dict(kwargs)
        for name, step in steps.items():
            if name in named:
                named[name] = _split(named[name], step, sequences)
            elif names.index(name) < len(positional):
                at = names.index(name)
                positional[at] = _split(positional[at], step, sequences)
        return tuple(positional), named

    return hook


def _split(value: Any, step: Any, sequences: SplitSequences) -> Any:
    """A plan says how many dimensions it means; an argument with others, or none at all, is left as it is."""
    if not isinstance(value, Tensor) or step.expected_dims not in (None, value.ndim):
        return value
    return sequences.split(value, step.split_dim)


def _change_output(
    steps: Mapping[int, Any], change: Callable[[Tensor, int], Tensor], dim: str
) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(_: nn.Module, args: Any, output: Any) -> Any:
        outputs = [output] if isinstance(output, Tensor) else list(output)
        for index, step in steps.items():
            if step is not None and step.expected_dims in (None, outputs[index].ndim):
                outputs[index] = change(outputs[index], getattr(step, dim))
        return outputs[0] if isinstance(output, Tensor) else tuple(outputs)

    return hook


def _key_bias(mask_BHqk: Tensor | None, key_BsHD: Tensor) -> Tensor | None:
    """A mask that is the same for all queries, as what is added to their scores, float32 [B, H or 1, s].

    Raises ModelError for any other: every rank would need a part of it that the plan does not give it.
    """
    if mask_BHqk is None:
        return None
    if mask_BHqk.ndim != 4 or mask_BHqk.shape[2] != 1 or mask_BHqk.shape[3] != key_BsHD.shape[1]:
        raise ModelError(
            f"a mask of {(*mask_BHqk.shape,)}, other for each query, cannot be split over the ranks of a gang"
        )
    mask_BHs = mask_BHqk[:, :, 0]
    if mask_BHs.dtype == torch.bool:  # the least number, and not -inf: a block may have nothing else
        return torch.where(mask_BHs, 0.0, torch.finfo(torch.float32).min / 2)
    return mask_BHs.float()


@functools.cache
def _take_attention() -> None:
    """Let diffusers' plain attention hand over to ours what carries SplitSequences. For other models nothing changes.

    diffusers keeps its ways to attend in a private table; there is no public way to add one (0.42).
    """
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    plain = _AttentionBackendRegistry._backends[AttentionBackendName.NATIVE]

    @functools.wraps(plain)
    def attend(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Any:
        sequences = options.get("_parallel_config")
        if not isinstance(sequences, SplitSequences):
            return plain(query=query, key=key, value=value, **options)
        if options.get("is_causal"):
            raise ModelError("causal attention cannot be split over the ranks of a gang")
        return sequences.attend(query, key, value, _key_bias(options.get("attn_mask"), key))

    _AttentionBackendRegistry._backends[AttentionBackendName.NATIVE] = attend
