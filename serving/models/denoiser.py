"""A Wan transformer as the engine calls it: predicts windows of latents with a checkpoint's weights.

Legend: N latents, C latent channels, h, w latent height and width; B batch; L text tokens, D their dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from serving.models.beside import read_beside, read_control
from serving.models.checkpoint import Checkpoint
from serving.models.devices import GuidanceBatching, device_product
from serving.models.libraries import load_library
from serving.models.loading import load_module
from serving.models.packed_prompts import PackedPrompts
from serving.models.quiet import quiet_loading
from serving.models.sequence_parallel import SplitSequences, split_by_diffusers, split_over
from sharding.attention import choose_backend
from sharding.capabilities import Capabilities
from sharding.denoiser import NOTHING_BESIDE, PromptPart
from sharding.gang_groups import GangGroups
from sharding.guidance import guide, share_branches

ATTENTION = "native"
"""diffusers' name for torch's own scaled_dot_product_attention."""

ContextParallel = Literal["longtake", "diffusers"]
"""Who splits sequences over the ranks of a gang. diffusers' own way is a rival to compare ours with, on GPUs alone."""


@dataclass(frozen=True)
class _Window:
    """One window as the transformer is given it, without the prompts."""

    latents_1CNhw: Tensor
    """With what is read beside them, and what is shown before them."""
    timesteps_1L: Tensor
    """[1], or one per token."""
    embedding: Tensor | None
    """Of pictures, [pictures, tokens, dim]."""
    control_1KNhw: Tensor | None
    """VACE's control clip."""
    shown: int
    """Latents before the window's own, of which nothing is predicted."""


class WanDenoiser:
    """Predicts windows of latents. Deterministic for one set of numerics."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        capabilities: Capabilities,
        *,
        device: str,
        dtype: torch.dtype,
        guidance_batching: GuidanceBatching,
        groups: GangGroups,
        context_parallel: ContextParallel,
    ) -> None:
        self._checkpoint = checkpoint
        self._capabilities = capabilities
        self._device = device
        self._dtype = dtype
        self._guidance_batching = guidance_batching
        self._groups = groups
        self._context_parallel = context_parallel
        self._backend = choose_backend(device, rings=groups.shape.ring > 1)
        self._sequences: list[SplitSequences] = []
        self._prompts: dict[int, PackedPrompts] = {}
        """By expert."""
        self._experts: dict[int, Any] = {}

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def numerics(self) -> Mapping[str, str]:
        """This denoiser's share of the numerics key."""
        return {
            "device": self._device,
            "device_product": device_product(self._device),
            "dtype": str(self._dtype).removeprefix("torch."),
            "guidance_batching": "ranks" if self._groups.cfg is not None else self._guidance_batching,
            "attention": self._attention,
            "gang_shape": str(self._groups.shape),
        }

    @property
    def _attention(self) -> str:
        if self._groups.sequence is None:
            return ATTENTION
        return self._backend.name if self._context_parallel == "longtake" else self._context_parallel

    def regroup(self, groups: GangGroups) -> None:
        """The gang was formed anew, in the same shape; what is loaded stays."""
        assert groups.shape == self._groups.shape, "another shape is another gang"
        self._groups = groups
        if self._context_parallel == "diffusers":
            self._experts.clear()
        for sequences in self._sequences:
            sequences.groups = groups

    def warm_up(self) -> None:
        """Loads the expert of the noisiest steps, with which every take begins. Raises ModelError."""
        self._expert(0)

    @torch.no_grad()
    def predict(
        self,
        latents_NChw: Tensor,
        *,
        timestep: float,
        parts: Sequence[PromptPart],
        start: int,
        shares: Sequence[float] = (),
        beside: Mapping[str, Tensor] = NOTHING_BESIDE,
    ) -> Tensor:
        """The prediction after guidance, parts mixed by their weights: float32 [N, C, h, w] where the latents are."""
        window = self._read_window(latents_NChw, timestep, start, shares, beside)
        mixed_NChw = torch.zeros(latents_NChw.shape, device=self._device)
        for part in parts:
            if part.weights.any():
                prediction_1CNhw = self._predict_guided(window, timestep, part)[:, :, window.shown :]
                weights_N111 = part.weights.to(self._device, torch.float32).view(-1, 1, 1, 1)
                mixed_NChw += weights_N111 * prediction_1CNhw[0].transpose(0, 1)
        return mixed_NChw.to(latents_NChw.device)

    def _read_window(
        self, latents_NChw: Tensor, timestep: float, start: int, shares: Sequence[float], beside: Mapping[str, Tensor]
    ) -> _Window:
        """What the transformer is given for these latents, but the prompts."""
        architecture = self._checkpoint.architecture
        latents_NChw = latents_NChw.to(self._device, self._dtype)
        embedding, control_1KNhw, shown = None, None, 0
        if beside:
            at = {"start": start, "latents": len(latents_NChw)}
            level = timestep / architecture.num_train_timesteps
            if architecture.is_vace:
                read = read_control(beside, **at, level=level)
            else:
                read = read_beside(beside, **at, level=level, shown=self._capabilities.pictures.shown)
            if read.shown_RChw is not None:
                shown = len(read.shown_RChw)
                latents_NChw = torch.cat([read.shown_RChw.to(latents_NChw), latents_NChw])
            channels_NChw = read.channels_NChw.to(latents_NChw)
            if architecture.is_vace:
                control_1KNhw = channels_NChw.transpose(0, 1)[None].contiguous()
            else:
                latents_NChw = torch.cat([latents_NChw, channels_NChw], 1)
            embedding = read.embedding.to(latents_NChw) if read.embedding is not None else None
        # VACE was made for pictures of characters beyond its window.
        held = len(latents_NChw) - (shown if architecture.is_vace else 0)
        assert held <= self._capabilities.window, "a window longer than the model holds"
        latents_1CNhw = latents_NChw.transpose(0, 1)[None].contiguous()
        timesteps = self._timesteps(latents_1CNhw, timestep, shares)
        return _Window(latents_1CNhw, timesteps, embedding, control_1KNhw, shown)

    def _predict_guided(self, window: _Window, timestep: float, part: PromptPart) -> Tensor:
        index = self._checkpoint.architecture.expert_of(timestep)
        scale = self._capabilities.guidance[index]
        texts = [text.to(self._device, self._dtype) for text in (part.embedding, part.negative)]
        if scale == 1.0:
            return self._forward(index, window, texts[:1])
        if self._groups.cfg is not None:
            mine = self._groups.shape.coordinates(self._groups.rank).cfg
            mine_1CNhw = self._forward(index, window, texts[mine : mine + 1])
            return guide(*share_branches(mine_1CNhw, group=self._groups.cfg), scale)
        if self._guidance_batching == "batched":
            both_2CNhw = self._forward(index, window, texts)
        else:
            both_2CNhw = torch.cat([self._forward(index, window, [text]) for text in texts])
        return guide(both_2CNhw[:1], both_2CNhw[1:], scale)

    def _forward(self, expert_index: int, window: _Window, texts: Sequence[Tensor]) -> Tensor:
        """`texts` are [tokens, dim], one for each sample of the batch."""
        expert, batch = self._expert(expert_index), len(texts)
        control = {}
        if (control_1KNhw := window.control_1KNhw) is not None:
            control["control_hidden_states"] = control_1KNhw.expand(batch, -1, -1, -1, -1)
        with self._prompts[expert_index].together(texts) as texts_BLD:
            output = expert(
                hidden_states=window.latents_1CNhw.expand(batch, -1, -1, -1, -1),
                timestep=window.timesteps_1L.expand(batch, *window.timesteps_1L.shape[1:]),
                encoder_hidden_states=texts_BLD,
                encoder_hidden_states_image=None if window.embedding is None else window.embedding.repeat(batch, 1, 1),
                **control,
                return_dict=False,
            )
        prediction: Tensor = output[0].float()
        return prediction

    def _timesteps(self, latents_1CNhw: Tensor, timestep: float, shares: Sequence[float]) -> Tensor:
        """[1], or [1, tokens] for a model that takes one timestep per token."""
        _, _, num_latents, height, width = latents_1CNhw.shape
        if not self._checkpoint.architecture.expand_timesteps:
            assert not shares, "the model has one timestep for all latents"
            return torch.full((1,), timestep, device=self._device)
        patch_h, patch_w = self._checkpoint.architecture.patch
        tokens = (height // patch_h) * (width // patch_w)
        each_N = timestep * torch.tensor(shares or [1.0] * num_latents, dtype=torch.float32, device=self._device)
        return each_N.repeat_interleave(tokens)[None]

    def _expert(self, index: int) -> Any:
        if index not in self._experts:
            owner = getattr(load_library("diffusers"), self._checkpoint.architecture.transformer_class)
            folder = self._checkpoint.fetch(self._checkpoint.architecture.expert_components[index])
            expert = load_module(owner, folder, dtype=self._dtype, device=self._device)
            with quiet_loading():  # else an environment variable of diffusers could choose other kernels
                expert.set_attention_backend(ATTENTION)
            self._prompts[index] = PackedPrompts(expert, self._backend)
            if self._context_parallel == "diffusers":
                split_by_diffusers(expert, self._groups)
            elif (sequences := split_over(expert, self._groups, self._backend)) is not None:
                self._sequences.append(sequences)
            self._experts[index] = expert
        return self._experts[index]
