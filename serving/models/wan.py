"""The Wan family as the engine sees it: a WanModel is what was opened, a WanDenoiser predicts windows with its weights.

Covers 2.1 text-to-video, 2.2 A14B (two experts, switched by noise level) and 2.2 5B (one timestep per token). Results
equal those of diffusers' WanPipeline on the same weights. Nothing is loaded before it is asked for.

Legend: N latents, C latent channels, h, w latent height and width; B batch; L text tokens, D their dimension.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from serving.models.checkpoint import Checkpoint
from serving.models.codec import WanCodec
from serving.models.loading import load_module
from serving.models.packed_prompts import PackedPrompts
from serving.models.prompts import encode_prompts
from serving.models.quiet import quiet_loading
from serving.models.schedulers import DiffusersSolver, load_solver
from serving.models.sequence_parallel import SplitSequences, split_by_diffusers, split_over
from sharding.attention import choose_backend
from sharding.denoiser import Capabilities, PromptPart
from sharding.gang_groups import ALONE, GangGroups
from sharding.gang_shape import Workload
from sharding.guidance import guide, share_branches

ATTENTION = "native"
"""diffusers' name for torch's own scaled_dot_product_attention."""

GuidanceBatching = Literal["batched", "split"]
"""Whether prompt and negative go through the transformer as one batch of two or one after the other."""

ContextParallel = Literal["longtake", "diffusers"]
"""Who splits sequences over the ranks of a gang. diffusers' own way is a rival to compare ours with, on GPUs alone."""


@dataclass(frozen=True)
class WanModel:
    """A checkpoint that was opened: its configs are read, its weights are not."""

    checkpoint: Checkpoint
    capabilities: Capabilities

    @property
    def name(self) -> str:
        """As the user wrote it."""
        return self.checkpoint.name

    @property
    def folder(self) -> Path:
        return self.checkpoint.folder

    def workload(self, *, width: int, height: int, latents: int = 1) -> Workload:
        """What a gang shares out of one call of this many latents, at least, at a size in pixels."""
        _, cells_h, cells_w = self.capabilities.latent_shape(width=width, height=height)
        patch_h, patch_w = self.checkpoint.architecture.patch
        tokens = latents * (cells_h // patch_h) * (cells_w // patch_w)
        guided = any(scale != 1.0 for scale in self.capabilities.guidance)
        return Workload(self.checkpoint.architecture.heads, tokens, guided)

    def expert_of(self, timestep: float) -> int:
        """Index of the expert that predicts at this noise level, from the noisiest."""
        return self.checkpoint.architecture.expert_of(timestep)

    def call_bytes_per_token(self, device: str) -> int:
        """About what one token of a call takes at the dtype that a device uses, weights not counted.

        In one block at once: the residual stream in fp32, its norm, queries, keys, values and the attention's result,
        each `inner` wide, and the feed-forward's two activations. Not measured on a GPU.
        """
        from diffusers import WanTransformer3DModel

        config = WanTransformer3DModel.load_config(self.folder / self.checkpoint.architecture.expert_components[0])
        inner = config["num_attention_heads"] * config["attention_head_dim"]
        itemsize = default_dtype(device).itemsize
        return int(inner * (2 * 4 + 5 * itemsize) + 2 * config["ffn_dim"] * itemsize)

    def weights_hash(self) -> str:
        """sha256 over all weights and configs, for the manifest and the numerics key; read once. Raises ModelError."""
        return self._weights_hash

    def encode_prompts(self, texts: Sequence[str], *, device: str | None = None) -> list[Tensor]:
        """One embedding per text, float32 [tokens, dim] on the CPU. Loads the text encoder and frees it again."""
        device = device or default_device()
        return encode_prompts(self.checkpoint, texts, dtype=default_dtype(device), device=device)

    def load_denoiser(
        self,
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        guidance_batching: GuidanceBatching | None = None,
        groups: GangGroups = ALONE,
        context_parallel: ContextParallel = "longtake",
    ) -> "WanDenoiser":
        """A denoiser on one device; each expert is loaded when its first timestep comes. Defaults go by the device.

        With `groups` of several ranks every rank opens one and makes the same calls at once.
        """
        device = device or default_device()
        return WanDenoiser(
            self.checkpoint,
            self.capabilities,
            device=device,
            dtype=dtype or default_dtype(device),
            guidance_batching=guidance_batching or default_guidance_batching(device),
            groups=groups,
            context_parallel=context_parallel,
        )

    def open_codec(self) -> WanCodec:
        """A fresh decode session for one take. The VAE is loaded by the first and shared. Raises ModelError."""
        return WanCodec(self._vae)

    def solver(self, steps: int) -> DiffusersSolver:
        """The checkpoint's own scheduler, `steps` steps long. Raises ModelError."""
        return load_solver(self.checkpoint.fetch("scheduler"), self.checkpoint.architecture.scheduler_class, steps)

    def denoiser_bytes(self, device: str | None = None) -> int:
        """Bytes of weights that a rank holds, all experts together, at the dtype that a device uses. Loads none."""
        from diffusers import WanTransformer3DModel

        itemsize = default_dtype(device or default_device()).itemsize
        total = 0
        for component in self.checkpoint.architecture.expert_components:
            # The config is there since opening; fetching the component would download the weights that it describes.
            config = WanTransformer3DModel.load_config(self.folder / component)
            with torch.device("meta"):
                expert = WanTransformer3DModel.from_config(config)
            total += sum(parameter.numel() for parameter in expert.parameters()) * itemsize
        return total

    @cached_property
    def _weights_hash(self) -> str:
        return self.checkpoint.weights_hash()

    @cached_property
    def _vae(self) -> Any:
        from diffusers import AutoencoderKLWan

        # Always fp32: Wan's VAE loses detail in bf16, and diffusers' own examples load it so.
        return load_module(AutoencoderKLWan, self.checkpoint.fetch("vae"), dtype=torch.float32, device=default_device())


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

    @torch.no_grad()
    def predict(self, latents_NChw: Tensor, *, timestep: float, parts: Sequence[PromptPart], start: int) -> Tensor:
        """The prediction after guidance, parts mixed by their weights: float32 [N, C, h, w] where the latents are."""
        assert latents_NChw.shape[0] <= self._capabilities.window, "a window longer than the model holds"
        latents_1CNhw = latents_NChw.to(self._device, self._dtype).transpose(0, 1)[None].contiguous()
        mixed_NChw = torch.zeros(latents_NChw.shape, device=self._device)
        for part in parts:
            if part.weights.any():
                prediction_1CNhw = self._predict_guided(latents_1CNhw, timestep, part)
                weights_N111 = part.weights.to(self._device, torch.float32).view(-1, 1, 1, 1)
                mixed_NChw += weights_N111 * prediction_1CNhw[0].transpose(0, 1)
        return mixed_NChw.to(latents_NChw.device)

    def _predict_guided(self, latents_1CNhw: Tensor, timestep: float, part: PromptPart) -> Tensor:
        index = self._checkpoint.architecture.expert_of(timestep)
        scale = self._capabilities.guidance[index]
        texts = [text.to(self._device, self._dtype) for text in (part.embedding, part.negative)]
        if scale == 1.0:
            return self._forward(index, latents_1CNhw, timestep, texts[:1])
        if self._groups.cfg is not None:
            mine = self._groups.shape.coordinates(self._groups.rank).cfg
            mine_1CNhw = self._forward(index, latents_1CNhw, timestep, texts[mine : mine + 1])
            return guide(*share_branches(mine_1CNhw, group=self._groups.cfg), scale)
        if self._guidance_batching == "batched":
            both_2CNhw = self._forward(index, latents_1CNhw.expand(2, -1, -1, -1, -1), timestep, texts)
        else:
            both_2CNhw = torch.cat([self._forward(index, latents_1CNhw, timestep, [text]) for text in texts])
        return guide(both_2CNhw[:1], both_2CNhw[1:], scale)

    def _forward(self, expert_index: int, latents_BCNhw: Tensor, timestep: float, texts: Sequence[Tensor]) -> Tensor:
        """`texts` are [tokens, dim], one for each sample of the batch."""
        expert = self._expert(expert_index)
        with self._prompts[expert_index].together(texts) as texts_BLD:
            output = expert(
                hidden_states=latents_BCNhw,
                timestep=self._timesteps(latents_BCNhw, timestep),
                encoder_hidden_states=texts_BLD,
                return_dict=False,
            )
        prediction: Tensor = output[0].float()
        return prediction

    def _timesteps(self, latents_BCNhw: Tensor, timestep: float) -> Tensor:
        """[B], or [B, tokens] for a model that takes one timestep per token."""
        batch, _, num_latents, height, width = latents_BCNhw.shape
        if not self._checkpoint.architecture.expand_timesteps:
            return torch.full((batch,), timestep, device=self._device)
        patch_h, patch_w = self._checkpoint.architecture.patch
        num_tokens = num_latents * (height // patch_h) * (width // patch_w)
        return torch.full((batch, num_tokens), timestep, device=self._device)

    def _expert(self, index: int) -> Any:
        if index not in self._experts:
            from diffusers import WanTransformer3DModel

            folder = self._checkpoint.fetch(self._checkpoint.architecture.expert_components[index])
            expert = load_module(WanTransformer3DModel, folder, dtype=self._dtype, device=self._device)
            with quiet_loading():  # else an environment variable of diffusers could choose other kernels
                expert.set_attention_backend(ATTENTION)
            self._prompts[index] = PackedPrompts(expert, self._backend)
            if self._context_parallel == "diffusers":
                split_by_diffusers(expert, self._groups)
            elif (sequences := split_over(expert, self._groups, self._backend)) is not None:
                self._sequences.append(sequences)
            self._experts[index] = expert
        return self._experts[index]


def default_device() -> str:
    """`cuda` where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_product(device: str) -> str:
    """What computes: the GPU's product name, or a CPU's architecture and the instruction set that torch uses of it."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def default_dtype(device: str) -> torch.dtype:
    """bf16 on a GPU; fp32 on a CPU, since many have no bf16 units."""
    return torch.bfloat16 if device.startswith("cuda") else torch.float32


def default_guidance_batching(device: str) -> GuidanceBatching:
    """Batched on a CPU: 10 to 20 % faster at pocket's size on one thread (2026-11-23). Split on a GPU, where one window
    of a real model fills the device and a batch of two only takes more memory.
    """
    return "split" if device.startswith("cuda") else "batched"
