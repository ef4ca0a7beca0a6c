"""The Wan family as Longtake opens it: a WanModel knows a checkpoint's configs, and loads what is asked of it.

Covers 2.1 text-to-video, image-to-video, FLF2V and VACE, 2.2 A14B (two experts, switched by noise level), text- and
image-to-video, and 2.2 5B (one timestep per token). Results equal those of diffusers' WanPipeline,
WanImageToVideoPipeline and WanVACEPipeline on the same weights. torch and diffusers are imported by what needs weights,
not by opening a model: commands that only plan start in a fraction of the time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.models.checkpoint import Checkpoint
from serving.models.libraries import load_library
from serving.models.prompt_tokens import PromptTokens
from serving.models.transformer_size import TransformerSize, bytes_per_number, read_transformer_size
from sharding.capabilities import Capabilities
from sharding.gang_shape import Workload

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from serving.models.codec import WanCodec
    from serving.models.conditions import TakePictures
    from serving.models.denoiser import ContextParallel, WanDenoiser
    from serving.models.devices import GuidanceBatching
    from serving.models.schedulers import DiffusersSolver
    from sharding.denoiser import Condition
    from sharding.gang_groups import GangGroups


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
        size, itemsize = self._transformer_size, bytes_per_number(device)
        return int(size.inner * (2 * 4 + 5 * itemsize) + 2 * size.ffn * itemsize)

    def weights_hash(self) -> str:
        """sha256 over all weights and configs, for the manifest and the numerics key; read once. Raises ModelError."""
        return self._weights_hash

    def encode_prompts(self, texts: Sequence[str], *, device: str | None = None) -> "list[Tensor]":
        """One embedding per text, float32 [tokens, dim] on the CPU. Loads the text encoder and frees it again."""
        from serving.models.devices import default_device, default_dtype
        from serving.models.prompts import encode_prompts

        device = device or default_device()
        return encode_prompts(self.checkpoint, texts, dtype=default_dtype(device), device=device)

    def make_condition(self, pictures: "TakePictures", *, size: tuple[int, int], latents: int) -> "Condition":
        """What the pictures of a take become, on the CPU; `size` is (height, width) in pixels. Loads the VAE, and CLIP
        if it has one. Raises ModelError."""
        from serving.models.conditions import make_condition

        window = self.capabilities.window
        return make_condition(self.checkpoint, self._vae, pictures, size=size, latents=latents, window=window)

    def load_denoiser(
        self,
        *,
        device: str | None = None,
        dtype: "torch.dtype | None" = None,
        guidance_batching: "GuidanceBatching | None" = None,
        groups: "GangGroups | None" = None,
        context_parallel: "ContextParallel" = "longtake",
    ) -> "WanDenoiser":
        """A denoiser on one device; each expert is loaded when its first timestep comes. Defaults go by the device.

        With `groups` of several ranks every rank opens one and makes the same calls at once.
        """
        from serving.models.denoiser import WanDenoiser
        from serving.models.devices import default_device, default_dtype, default_guidance_batching
        from sharding.gang_groups import ALONE

        device = device or default_device()
        return WanDenoiser(
            self.checkpoint,
            self.capabilities,
            device=device,
            dtype=dtype or default_dtype(device),
            guidance_batching=guidance_batching or default_guidance_batching(device),
            groups=groups or ALONE,
            context_parallel=context_parallel,
        )

    def open_codec(self) -> "WanCodec":
        """A fresh decode session for one take. The VAE is loaded by the first and shared. Raises ModelError."""
        from serving.models.codec import WanCodec

        return WanCodec(self._vae)

    def solver(self, steps: int) -> "DiffusersSolver":
        """The checkpoint's own scheduler, `steps` steps long. Raises ModelError."""
        from serving.models.schedulers import load_solver

        return load_solver(self.checkpoint.fetch("scheduler"), self.checkpoint.architecture.scheduler_class, steps)

    def denoiser_bytes(self, device: str) -> int:
        """Bytes of weights that a rank holds, all experts together, at the dtype that a device uses. Loads none."""
        experts = len(self.checkpoint.architecture.expert_components)
        return experts * self._transformer_size.parameters * bytes_per_number(device)

    @cached_property
    def prompt_tokens(self) -> PromptTokens:
        """How many tokens of a prompt it reads. Raises ModelError."""
        return PromptTokens(self.folder / "tokenizer", self.name, fetch=lambda: self.checkpoint.fetch("tokenizer"))

    @cached_property
    def _transformer_size(self) -> TransformerSize:
        """Of each expert: they differ in their weights alone."""
        first = self.checkpoint.architecture.expert_components[0]
        return read_transformer_size(self.folder / first / "config.json", self.name)

    @cached_property
    def _weights_hash(self) -> str:
        return self.checkpoint.weights_hash()

    @cached_property
    def _vae(self) -> Any:
        import torch

        from serving.models.devices import default_device
        from serving.models.loading import load_module

        # Always fp32: Wan's VAE loses detail in bf16, and diffusers' own examples load it so.
        owner = load_library("diffusers").AutoencoderKLWan
        return load_module(owner, self.checkpoint.fetch("vae"), dtype=torch.float32, device=default_device())
