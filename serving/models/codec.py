"""Decodes Wan latents one at a time: the VAE is causal, and all it knows of the past sits in a cache of fixed size.

AutoencoderKLWan.decode walks through the latents in the same way, but keeps its cache on the module and returns all
frames at once. Here each session has its own cache, so that many takes share one module and memory does not grow.

Legend: C latent channels, h, w latent height and width; F frames, H, W height and width in pixels; B is always 1.
"""

from typing import Any

import torch
from torch import Tensor


class WanCodec:
    """One decode session: the latents of one take, in order. The module is shared and not changed."""

    def __init__(self, vae: Any) -> None:
        from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

        config = vae.config
        self._vae = vae
        self._mean_C11 = _per_channel(vae, config.latents_mean)
        # The pipeline multiplies by the inverse of the inverse; dividing by it keeps the same bits.
        self._inverse_std_C11 = 1.0 / _per_channel(vae, config.latents_std)
        num_caches = sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
        self._cache: list[Any] = [None] * num_caches
        self._is_first = True

    @property
    def exact(self) -> bool:
        """True: every convolution sees the same inputs as in decoding the whole take."""
        return True

    @torch.no_grad()
    def decode(self, latent_Chw: Tensor) -> Tensor:
        """The next latent's frames, float32 [F, 3, H, W] in -1..1 on the CPU: one for the first latent, then more."""
        latent_Chw = latent_Chw.to(self._mean_C11.device, self._mean_C11.dtype)
        latent_Chw = latent_Chw / self._inverse_std_C11 + self._mean_C11
        hidden_BC1hw = self._vae.post_quant_conv(latent_Chw[None, :, None])
        frames_BCFHW = self._vae.decoder(hidden_BC1hw, feat_cache=self._cache, feat_idx=[0], first_chunk=self._is_first)
        self._is_first = False
        frames_BCFHW = _unpatchify(frames_BCFHW, self._vae.config.patch_size)
        return frames_BCFHW[0].transpose(0, 1).clamp(-1.0, 1.0).float().cpu().contiguous()


def _per_channel(vae: Any, values: list[float]) -> Tensor:
    parameter = next(vae.decoder.parameters())
    return torch.tensor(values, device=parameter.device, dtype=parameter.dtype).view(-1, 1, 1)


def _unpatchify(frames_BCFHW: Tensor, patch_size: int | None) -> Tensor:
    from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

    return frames_BCFHW if patch_size is None else unpatchify(frames_BCFHW, patch_size=patch_size)
