"""Previews show what a take will look like before it is decoded, at next to no cost."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.models.latent_rgb import RGB_FILE, LatentRgb, RgbFit, shipped_rgb
from serving.models.pocket import world
from serving.models.pocket.fit_preview import fit_map, measure_r2
from serving.models.registry import POCKET_FOLDER, open_model
from serving.models.testing import write_tiny_checkpoint
from serving.render.latent_preview import GAP_PIXELS, UNSEEN, LatentPreview, enlarge, learned_rgb, png
from serving.store.artifact_keys import rgb_artifact
from serving.store.artifacts import Artifacts


def opened(content: bytes | None) -> np.ndarray:
    assert content is not None
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    assert image.mode == "RGB"
    return np.asarray(image)


def grey_map() -> LatentRgb:
    """One channel, straight to grey."""
    return LatentRgb(np.ones((1, 3)), np.zeros(3), 1.0)


def pocket_rgb() -> LatentRgb:
    rgb = shipped_rgb(POCKET_FOLDER)
    assert rgb is not None
    return rgb


def tiles_of(strip: np.ndarray, width: int) -> list[np.ndarray]:
    return [strip[:, at : at + width] for at in range(0, strip.shape[1], width + GAP_PIXELS)]


# ------------------------------------------------------------------------------------------------------ the map


@settings(max_examples=20)
@given(st.integers(1, 20), st.integers(0, 99))
def test_a_map_that_is_linear_is_found_again_from_latents_and_frames(channels: int, seed: int) -> None:
    luck = np.random.default_rng(seed)
    factors, bias = luck.uniform(-0.3, 0.3, (channels, 3)) / channels, luck.uniform(0.45, 0.55, 3)
    fit = RgbFit(channels)
    for _ in range(12):
        latent = luck.uniform(-1, 1, (channels, 6, 8)).astype(np.float32)
        colours = np.rint(255 * (np.einsum("chw,ck->hwk", latent, factors) + bias)).astype(np.uint8)
        fit.add(latent, np.broadcast_to(colours.repeat(4, 0).repeat(4, 1), (3, 24, 32, 3)))
    rgb = fit.solve()
    assert rgb is not None
    assert np.abs(rgb.factors_C3 - factors).max() < 0.01
    assert np.abs(rgb.bias_3 - bias).max() < 0.01
    assert rgb.r2 > 0.98


def test_there_is_no_map_before_there_are_frames_and_a_tame_one_of_a_single_black_one() -> None:
    fit = RgbFit(16)
    assert fit.solve() is None
    fit.add(np.zeros((16, 2, 2), np.float32), np.zeros((1, 16, 16, 3), np.uint8))
    rgb = fit.solve()
    assert rgb is not None
    assert np.isfinite(rgb.factors_C3).all()


def test_a_map_is_read_as_it_was_written_and_nothing_else_is_one(tmp_path: Path) -> None:
    rgb = pocket_rgb()
    again = LatentRgb.from_json(rgb.to_json())
    assert np.array_equal(again.factors_C3, rgb.factors_C3)
    assert np.array_equal(again.bias_3, rgb.bias_3)
    for text in ("", "[]", "{}", '{"factors": [[1, 2]], "bias": [0, 0, 0], "r2": 1}', '{"factors": 1, "bias": 2}'):
        with pytest.raises(ValueError, match=r"map of latents|Expecting"):
            LatentRgb.from_json(text)
    assert shipped_rgb(tmp_path) is None
    (tmp_path / RGB_FILE).parent.mkdir()
    (tmp_path / RGB_FILE).write_text("{}")
    assert shipped_rgb(tmp_path) is None


def test_a_map_that_was_learned_is_found_by_the_weights(tmp_path: Path) -> None:
    artifacts = Artifacts.open(str(tmp_path))
    assert learned_rgb(artifacts, "ab") is None
    artifacts.put(rgb_artifact("ab"), grey_map().to_json().encode())
    rgb = learned_rgb(artifacts, "ab")
    assert rgb is not None
    assert rgb.r2 == 1.0


def test_the_map_of_a_checkpoint_does_not_change_what_its_weights_are_known_by(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "model", "2.1")
    before = open_model(str(folder)).weights_hash()
    (folder / RGB_FILE).parent.mkdir()
    (folder / RGB_FILE).write_text(grey_map().to_json())
    assert open_model(str(folder)).weights_hash() == before


def test_pockets_map_is_what_its_program_fits_and_explains_clips_it_has_not_seen() -> None:
    vae = AutoencoderKLWan.from_pretrained(POCKET_FOLDER / "vae", torch_dtype=torch.float32)
    shipped = pocket_rgb()
    assert measure_r2(shipped, vae, seed=12345, clips=6) > 0.8
    few = fit_map(vae, seed=0, clips=6)
    again = fit_map(vae, seed=0, clips=6)
    assert np.array_equal(few.factors_C3, again.factors_C3)
    assert np.abs(few.bias_3 - shipped.bias_3).max() < 0.1


@pytest.mark.parametrize(("colour", "channel"), [("red", 0), ("blue", 2)])
def test_pockets_previews_have_the_colours_of_what_is_shown(colour: str, channel: int) -> None:
    vae = AutoencoderKLWan.from_pretrained(POCKET_FOLDER / "vae", torch_dtype=torch.float32)
    clip = world.Clip(colour, "ball", "circling", "plain")
    with torch.inference_mode():
        latents = vae.encode(world.render(clip, 9)[None] * 2 - 1).latent_dist.mean[0].transpose(0, 1)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std))
    pictures = pocket_rgb().pictures(((latents - mean) / std).numpy()).astype(int)
    others = [k for k in range(3) if k != channel]
    excess = pictures[..., channel] - pictures[..., others].max(-1)
    assert excess.max() > 50
    assert np.abs(pictures[:, 0, 0] - 158).max() < 40  # the plain backdrop's grey


# ------------------------------------------------------------------------------------------------------ the strip


def test_a_strip_shows_latents_from_all_over_the_take_in_order() -> None:
    preview = LatentPreview(100, grey_map())
    assert preview.png() is None
    assert len(preview.shown) == 12
    assert preview.shown[0] < 9
    assert preview.shown[-1] > 90
    latents = np.linspace(0, 1, 100, dtype=np.float32).reshape(100, 1, 1, 1) * np.ones((1, 1, 4, 6), np.float32)
    for start in (40, 0, 90, 20, 60, 80):
        preview.show(start, latents[start : start + 20])
    tiles = tiles_of(opened(preview.png()), 96)
    assert [tile.shape for tile in tiles] == [(64, 96, 3)] * 12
    assert [round(tile.mean()) for tile in tiles] == [round(255 * n / 99) for n in preview.shown]


def test_latents_that_nothing_is_known_of_are_grey_and_a_later_estimate_replaces_an_earlier() -> None:
    preview = LatentPreview(4, grey_map())
    preview.show(1, np.zeros((1, 1, 4, 6), np.float32))
    preview.show(1, np.ones((2, 1, 4, 6), np.float32))
    assert [tile.mean() for tile in tiles_of(opened(preview.png()), 96)] == [UNSEEN, 255, 255, UNSEEN]


def test_estimates_that_are_no_numbers_or_far_off_still_make_a_picture() -> None:
    preview = LatentPreview(3, grey_map())
    preview.show(0, np.array([np.nan, np.inf, -9], np.float32).reshape(3, 1, 1, 1) * np.ones((1, 1, 4, 6), np.float32))
    assert [tile.mean() for tile in tiles_of(opened(preview.png()), 96)] == [0, 255, 0]


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_a_png_holds_the_picture_exactly(width: int, height: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert np.array_equal(opened(png(picture)), picture)


def test_an_enlarged_picture_keeps_its_levels_and_invents_none() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    large = enlarge(picture, 8)
    assert large.shape == (2, 40, 56, 3)
    assert large.min() >= picture.min()
    assert large.max() <= picture.max()
    assert np.abs(large.mean() - picture.mean()) < 6
    assert np.array_equal(enlarge(picture, 1), picture)
