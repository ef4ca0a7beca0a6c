"""Pictures as the Wan family takes them, made once per take: encoded by the checkpoint's VAE, and by its CLIP if it has
one. Equal to what diffusers' WanImageToVideoPipeline makes, but for takes longer than the model's window.

A model of the 5B kind is given a picture as a latent of the take. The others read a mask and encoded pictures beside
their latents (Wan 2.1 and 2.2 image-to-video). For those a take is divided into sections, each from one picture to the
next: a section is encoded as the clip that the model was trained on, the picture and then grey frames, for as many
latents as the model's window has; beyond those the last one is repeated, for nothing changes there any more. VACE reads
a control clip of the whole take, also without a picture, which is encoded in such runs too.

Legend: C latent channels, n latents, h, w latent height and width; F frames, H, W height and width in pixels.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serving.models.checkpoint import Checkpoint
from serving.models.libraries import load_library
from serving.models.loading import load_module
from sharding.denoiser import Condition

STILL_FRAMES = 5
"""A picture becomes a latent behind a take's first as the second latent of a clip that shows nothing else."""

_GIVEN_FIRST = (1.0, 1.0, 1.0, 1.0)
"""Mask of a first latent, which stands for one frame."""
_GIVEN_LAST = (0.0, 0.0, 0.0, 1.0)
"""Mask of a latent of which the last frame is given."""


@dataclass(frozen=True)
class PlacedPicture:
    """A picture at a latent of a take: at the last frame that the latent stands for."""

    latent: int
    closes: bool
    """It is the take's last; else what follows begins from it."""
    pixels_HW3: NDArray[np.uint8]
    """At the film's size, sRGB."""


@dataclass(frozen=True)
class TakePictures:
    """Everything that a take is made from beside words."""

    placed: Sequence[PlacedPicture] = ()
    references_HW3: Sequence[NDArray[np.uint8]] = ()
    """Pictures of its characters at the film's size, sRGB."""


def make_condition(
    checkpoint: Checkpoint, vae: Any, pictures: TakePictures, *, size: tuple[int, int], latents: int, window: int
) -> Condition:
    """What the pictures of a take of `latents` latents become; one at its first latent, if there are any and the model
    reads them beside its latents. `size` is (height, width) in pixels. Raises ModelError."""
    if checkpoint.architecture.is_vace:
        return Condition(beside=_make_control(checkpoint, vae, pictures, size, latents=latents, window=window))
    if checkpoint.architecture.expand_timesteps:
        return Condition(given={p.latent: _encode_given(vae, p) for p in pictures.placed})
    return Condition(beside=_make_sections(checkpoint, vae, pictures.placed, size, latents=latents, window=window))


def _make_sections(
    checkpoint: Checkpoint,
    vae: Any,
    pictures: Sequence[PlacedPicture],
    size: tuple[int, int],
    *,
    latents: int,
    window: int,
) -> dict[str, Tensor]:
    """What image-to-video models read; nothing without pictures."""
    beside: dict[str, Tensor] = {}
    closing = next((p for p in pictures if p.closes), None)
    opening = [p for p in pictures if not p.closes]
    for picture in opening:
        length = min(window, latents - picture.latent)
        beside[f"section.{picture.latent}"] = _encode_section(vae, picture, None, length, size)
    if closing is not None:  # the model knows it as the end of a clip of at most its window
        length = min(window, latents)
        whole = length == latents
        section_nChw = _encode_section(vae, opening[0] if whole else None, closing, length, size)
        beside[f"closing.{closing.latent}"] = section_nChw[-1]
    if checkpoint.architecture.image_dim is not None:
        for picture in opening:
            shown = [p.pixels_HW3 for p in (picture, closing) if p is not None]
            beside[f"embedding.{picture.latent}"] = embed_pictures(checkpoint, shown)
    return beside


@torch.no_grad()
def embed_pictures(checkpoint: Checkpoint, pictures_HW3: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Picture embeddings float32 [pictures, tokens, dim], as WanImageToVideoPipeline.encode_image makes them."""
    from PIL import Image

    transformers = load_library("transformers")
    folder = checkpoint.fetch("image_encoder")
    encoder = load_module(transformers.CLIPVisionModel, folder, dtype=torch.float32, device="cpu")
    # The one that resizes by Pillow: the same everywhere, and no torchvision is needed.
    processor = transformers.CLIPImageProcessorPil.from_pretrained(checkpoint.fetch("image_processor"))
    images = [Image.fromarray(pixels) for pixels in pictures_HW3]
    encoded = encoder(**processor(images=images, return_tensors="pt"), output_hidden_states=True)
    embedding: Tensor = encoded.hidden_states[-2].float().cpu()
    return embedding


class ClipEncoder:
    """Encodes a clip piece by piece, holding the state of a causal VAE: memory does not grow with the clip. Gives the
    bits of AutoencoderKLWan.encode. The module is shared and not changed."""

    def __init__(self, vae: Any) -> None:
        from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

        self._vae = vae
        parameter = next(vae.parameters())
        self._place = {"device": parameter.device, "dtype": parameter.dtype}
        num_caches = sum(isinstance(module, WanCausalConv3d) for module in vae.encoder.modules())
        self._cache: list[Any] = [None] * num_caches

    @torch.no_grad()
    def encode(self, frames_CFHW: Tensor) -> Tensor:
        """The next latent, float32 [C, h, w], normalised: of one frame first, then of as many as a latent has."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import patchify

        config = self._vae.config
        frames = frames_CFHW[None].to(**self._place)
        if config.patch_size is not None:
            frames = patchify(frames, patch_size=config.patch_size)
        hidden = self._vae.quant_conv(self._vae.encoder(frames, feat_cache=self._cache, feat_idx=[0]))
        mean_Chw = hidden[0, : config.z_dim, 0].float()
        # The pipeline multiplies by the inverse of the deviations.
        place = {"device": mean_Chw.device, "dtype": torch.float32}
        means, deviations = (torch.tensor(v, **place).view(-1, 1, 1) for v in (config.latents_mean, config.latents_std))
        normalised: Tensor = ((mean_Chw - means) * (1.0 / deviations)).cpu()
        return normalised

    def encode_run(self, run: range, placed: Mapping[int, PlacedPicture], size: tuple[int, int]) -> Tensor:
        """The next latents of a clip of (height, width) that is grey but for pictures at the last frames of theirs:
        float32 [n, C, h, w]."""
        latents = []
        for n in run:
            frames = torch.zeros(3, self._vae.config.scale_factor_temporal if n else 1, *size)
            if n in placed:
                frames[:, -1:] = _to_frame(placed[n].pixels_HW3)
            latents.append(self.encode(frames))
        return torch.stack(latents)


def _make_control(
    checkpoint: Checkpoint, vae: Any, pictures: TakePictures, size: tuple[int, int], *, latents: int, window: int
) -> dict[str, Tensor]:
    """VACE's control clip as WanVACEPipeline makes it: what is given with grey elsewhere (inactive), grey where
    something is to be made (reactive), and a mask of that; then the pictures of characters."""
    frames_of_latent = checkpoint.architecture.frames_per_latent
    placed = {picture.latent: picture for picture in pictures.placed}
    free_11F = torch.ones(1, 1, frames_of_latent * (latents - 1) + 1)
    free_11F[..., [frames_of_latent * n for n in placed]] = 0
    # The pipeline takes the nearest frame of the clip for each latent, which need not be one of its own.
    mask_N = torch.nn.functional.interpolate(free_11F, size=latents, mode="nearest-exact")[0, 0]
    control = {"mask": mask_N[:, None].repeat(1, checkpoint.architecture.pixels_per_cell**2)}
    encoder = ClipEncoder(vae)
    for start, stop in itertools.pairwise([*sorted({0, *placed}), latents]):
        control[f"inactive.{start}"] = encoder.encode_run(range(start, min(stop, start + window)), placed, size)
    control["reactive.0"] = ClipEncoder(vae).encode_run(range(min(latents, window)), {}, size)
    for r, pixels_HW3 in enumerate(pictures.references_HW3):
        control[f"reference.{r}"] = ClipEncoder(vae).encode(_to_frame(pixels_HW3))
    return control


def _encode_given(vae: Any, picture: PlacedPicture) -> Tensor:
    frame_C1HW = _to_frame(picture.pixels_HW3)
    encoder = ClipEncoder(vae)
    first = encoder.encode(frame_C1HW)
    return first if picture.latent == 0 else encoder.encode(frame_C1HW.expand(-1, STILL_FRAMES - 1, -1, -1))


def _encode_section(
    vae: Any, first: PlacedPicture | None, last: PlacedPicture | None, length: int, size: tuple[int, int]
) -> Tensor:
    """Mask and latents of a clip that begins and ends with pictures, grey in between: float32 [n, mask + C, h, w]."""
    placed: dict[int, PlacedPicture] = {}
    mask_n4 = torch.zeros(length, 4)
    if last is not None:
        placed[length - 1], mask_n4[-1] = last, torch.tensor(_GIVEN_LAST)
    if first is not None:
        mask_n4[0] = torch.tensor(_GIVEN_FIRST)
        placed.setdefault(0, first)
    latents_nChw = ClipEncoder(vae).encode_run(range(length), placed, size)
    mask_n4hw = mask_n4[:, :, None, None].expand(-1, -1, *latents_nChw.shape[2:])
    return torch.cat([mask_n4hw, latents_nChw], 1)


def _to_frame(pixels_HW3: NDArray[np.uint8]) -> Tensor:
    """One frame [3, 1, H, W] in -1..1, with the bits of diffusers' VideoProcessor."""
    unit = torch.from_numpy(pixels_HW3.astype(np.float32) / 255.0).permute(2, 0, 1)
    return (2.0 * unit - 1.0).unsqueeze(1)
