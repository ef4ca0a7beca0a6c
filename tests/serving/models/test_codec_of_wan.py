"""Decoding one latent at a time against decoding the whole take, on random VAEs of both designs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from serving.models.registry import open_model
from serving.models.testing import Variant, write_tiny_checkpoint
from serving.models.wan import WanModel
from sharding.spans import Latents

both_designs = pytest.mark.parametrize("variant", ["2.1", "2.2-5b"])


def open_tiny(folder: Path, variant: Variant) -> WanModel:
    return open_model(str(write_tiny_checkpoint(folder, variant)))


def random_latents(model: WanModel, count: int, seed: int = 0) -> Tensor:
    shape = model.capabilities.latent_shape(width=model.capabilities.width, height=model.capabilities.height)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def decode_whole(model: WanModel, latents_NChw: Tensor) -> Tensor:
    """As WanPipeline does it: [F, 3, H, W]."""
    vae = model._vae
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    inverse_std = 1.0 / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    frames: Tensor = vae.decode(latents_NChw.transpose(0, 1)[None] / inverse_std + mean, return_dict=False)[0]
    return frames[0].transpose(0, 1)


@both_designs
def test_decoding_latent_by_latent_equals_decoding_the_whole_take(tmp_path: Path, variant: Variant) -> None:
    model = open_tiny(tmp_path, variant)
    latents_NChw = 2 * random_latents(model, 7)
    codec = model.open_codec()

    frames = torch.cat([codec.decode(latent) for latent in latents_NChw])

    whole = decode_whole(model, latents_NChw)
    print(f"max difference {float((frames - whole).abs().max()):.1e}")
    assert codec.exact
    assert whole.std() > 0.05, "a comparison of nothing with nothing"
    assert torch.equal(frames, whole)


@both_designs
def test_each_latent_gives_the_frames_that_the_grid_says(tmp_path: Path, variant: Variant) -> None:
    model = open_tiny(tmp_path, variant)
    codec, made_for = model.open_codec(), model.capabilities
    for n, latent in enumerate(random_latents(model, 4)):
        frames = codec.decode(latent)
        assert frames.shape == (len(made_for.grid.frames_in(Latents(n))), 3, made_for.height, made_for.width)
        assert frames.dtype == torch.float32
        assert frames.abs().max() <= 1


@both_designs
def test_two_takes_decoded_in_turns_share_the_weights_and_nothing_else(tmp_path: Path, variant: Variant) -> None:
    model = open_tiny(tmp_path, variant)
    one_NChw, other_NChw = random_latents(model, 4, seed=1), random_latents(model, 4, seed=2)
    one, other = model.open_codec(), model.open_codec()

    in_turns = [(one.decode(a), other.decode(b)) for a, b in zip(one_NChw, other_NChw, strict=True)]

    assert torch.equal(torch.cat([frames for frames, _ in in_turns]), decode_whole(model, one_NChw))
    assert torch.equal(torch.cat([frames for _, frames in in_turns]), decode_whole(model, other_NChw))


@both_designs
def test_memory_does_not_grow_with_the_take(tmp_path: Path, variant: Variant) -> None:
    model = open_tiny(tmp_path, variant)
    codec, held_bytes = model.open_codec(), []
    for latent in random_latents(model, 24):
        codec.decode(latent)
        held_bytes.append(sum(entry.nbytes for entry in codec._cache if isinstance(entry, Tensor)))

    # The first two latents fill the cache; from the third on it has its final size.
    assert held_bytes[2] > 0
    assert set(held_bytes[2:]) == {held_bytes[2]}


def test_decoding_leaves_its_latent_as_it_was(tmp_path: Path) -> None:
    model = open_tiny(tmp_path, "2.1")
    latent = random_latents(model, 1)[0]
    before = latent.clone()
    model.open_codec().decode(latent)
    assert torch.equal(latent, before)
