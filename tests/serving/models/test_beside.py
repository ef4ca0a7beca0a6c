"""What each window of a take reads on a model that takes pictures beside its latents."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from serving.models.beside import read_beside, read_control
from serving.models.conditions import PlacedPicture, TakePictures
from serving.models.registry import open_model
from serving.models.testing import write_tiny_checkpoint
from serving.models.wan import WanModel
from sharding.denoiser import Condition, PromptPart

LATENTS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> WanModel:
    return open_model(str(write_tiny_checkpoint(tmp_path_factory.mktemp("i2v"), "2.2-i2v-a14b")))


def place(model: WanModel, latent: int, *, seed: int, closes: bool = False) -> PlacedPicture:
    shape = (model.capabilities.height, model.capabilities.width, 3)
    return PlacedPicture(latent, closes, np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def condition_of(model: WanModel, pictures: list[PlacedPicture], latents: int = LATENTS) -> Condition:
    size = (model.capabilities.height, model.capabilities.width)
    return model.make_condition(TakePictures(pictures), size=size, latents=latents)


@pytest.fixture(scope="module")
def beside(model: WanModel) -> dict[str, Tensor]:
    """A take with pictures at its start, in its middle and at its end."""
    pictures = [place(model, 0, seed=1), place(model, 6, seed=2), place(model, 11, seed=3, closes=True)]
    return dict(condition_of(model, pictures).beside)


def masks(channels_NChw: Tensor) -> list[tuple[float, ...]]:
    return [tuple(mask[:, 0, 0].tolist()) for mask in channels_NChw[:, :4]]


GIVEN, CLOSING, FREE = (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 0.0)


def test_the_first_window_reads_the_first_picture_in_its_own_latent(beside: dict[str, Tensor]) -> None:
    read = read_beside(beside, start=0, latents=4, level=0.7)
    assert read.shown_RChw is None
    assert masks(read.channels_NChw) == [GIVEN, FREE, FREE, FREE]
    assert torch.equal(read.channels_NChw, beside["section.0"])


def test_a_later_window_is_shown_its_sections_picture_before_its_own_latents(beside: dict[str, Tensor]) -> None:
    first, second = (read_beside(beside, start=start, latents=3, level=0.5) for start in (3, 8))
    for read, section in ((first, "section.0"), (second, "section.6")):
        assert masks(read.channels_NChw)[0] == GIVEN
        assert torch.equal(read.channels_NChw[0], beside[section][0])
        assert len(read.channels_NChw) == 4
        assert read.shown_RChw is not None
    assert masks(first.channels_NChw)[1:] == [FREE, FREE, FREE]
    assert first.shown_RChw is not None
    assert second.shown_RChw is not None
    assert not torch.equal(first.shown_RChw, second.shown_RChw)


def test_a_model_may_say_that_later_windows_read_a_slice_and_no_picture(
    beside: dict[str, Tensor], tmp_path: Path
) -> None:
    read = read_beside(beside, start=3, latents=3, level=0.5, shown=False)
    assert read.shown_RChw is None
    assert masks(read.channels_NChw) == [FREE, FREE, FREE]
    folder = write_tiny_checkpoint(tmp_path, "2.2-i2v-a14b")
    assert open_model(str(folder)).capabilities.pictures.shown
    made_for = json.loads((folder / "longtake.json").read_text())
    (folder / "longtake.json").write_text(json.dumps({**made_for, "later_windows": "slice"}))
    assert not open_model(str(folder)).capabilities.pictures.shown


def test_the_latent_that_is_shown_is_the_picture_at_the_steps_noise(beside: dict[str, Tensor]) -> None:
    clean, noise, half = (read_beside(beside, start=3, latents=3, level=level).shown_RChw for level in (0.0, 1.0, 0.5))
    assert clean is not None
    assert noise is not None
    assert half is not None
    assert torch.equal(clean[0], beside["section.0"][0, 4:])
    assert torch.allclose(half, (clean + noise) / 2, atol=1e-6)


def test_a_window_that_begins_with_a_sections_picture_reads_it_in_place(beside: dict[str, Tensor]) -> None:
    read = read_beside(beside, start=6, latents=4, level=0.5)
    assert read.shown_RChw is None
    assert torch.equal(read.channels_NChw, beside["section.6"])


def test_the_last_picture_is_read_by_the_windows_that_hold_it_and_by_no_other(beside: dict[str, Tensor]) -> None:
    holds, other = (read_beside(beside, start=start, latents=3, level=0.5) for start in (9, 7))
    assert masks(holds.channels_NChw)[-1] == CLOSING
    assert torch.equal(holds.channels_NChw[-1], beside["closing.11"])
    assert masks(other.channels_NChw)[1:] == [FREE] * 3


def test_a_condition_does_not_grow_with_the_take(model: WanModel) -> None:
    picture = place(model, 0, seed=1)
    short, long = (condition_of(model, [picture], latents).beside for latents in (4, 400))
    assert torch.equal(short["section.0"], long["section.0"])
    assert len(long["section.0"]) == model.capabilities.window


@pytest.mark.parametrize("batching", ["split", "batched"])
def test_a_shown_latent_changes_the_prediction_and_is_no_part_of_it(
    model: WanModel, beside: dict[str, Tensor], batching: str
) -> None:
    embedding, negative = model.encode_prompts(["a red ball", ""])
    part = PromptPart(embedding, negative, torch.ones(3))
    latents = torch.randn(3, *model.capabilities.latent_shape(width=32, height=48), generator=torch.Generator())
    denoiser = model.load_denoiser(guidance_batching="batched" if batching == "batched" else "split")
    seen = {}
    for picture in (1, 4):
        condition = condition_of(model, [place(model, 0, seed=picture)]).beside
        seen[picture] = denoiser.predict(latents, timestep=500.0, parts=[part], start=5, beside=condition)
        assert seen[picture].shape == latents.shape
    assert not torch.equal(seen[1], seen[4])


def test_a_first_picture_of_the_5b_kind_is_a_latent_of_the_take(tmp_path: Path) -> None:
    model = open_model(str(write_tiny_checkpoint(tmp_path, "2.2-5b")))
    condition = condition_of(model, [place(model, 0, seed=1), place(model, 5, seed=1)], 8)
    assert condition.beside == {}
    assert set(condition.given) == {0, 5}
    assert condition.given[0].shape == condition.given[5].shape == model.capabilities.latent_shape(width=64, height=96)
    assert not torch.equal(condition.given[0], condition.given[5])  # a still of one frame, and one of several


@pytest.fixture(scope="module")
def vace(tmp_path_factory: pytest.TempPathFactory) -> WanModel:
    return open_model(str(write_tiny_checkpoint(tmp_path_factory.mktemp("vace"), "2.1-vace")))


def control_of(vace: WanModel, references: int) -> dict[str, Tensor]:
    """A take with pictures at its start and in its middle, and characters."""
    pictures = TakePictures(
        [place(vace, 0, seed=1), place(vace, 6, seed=2)],
        [place(vace, 0, seed=10 + r).pixels_HW3 for r in range(references)],
    )
    size = (vace.capabilities.height, vace.capabilities.width)
    return dict(vace.make_condition(pictures, size=size, latents=LATENTS).beside)


def test_every_window_of_vace_reads_its_part_of_one_clip_behind_all_characters(vace: WanModel) -> None:
    beside = control_of(vace, references=2)
    whole = read_control(beside, start=0, latents=LATENTS, level=0.5)
    assert whole.channels_NChw.shape == (2 + LATENTS, 32 + 64, 6, 4)
    for start in (0, 3, 8):
        read = read_control(beside, start=start, latents=4, level=0.5)
        assert torch.equal(
            read.channels_NChw, torch.cat([whole.channels_NChw[:2], whole.channels_NChw[2:][start : start + 4]])
        )
        assert read.shown_RChw is not None
        assert whole.shown_RChw is not None
        assert torch.equal(read.shown_RChw, whole.shown_RChw)
    characters = whole.channels_NChw[:2]
    assert torch.equal(characters[:, :16], torch.stack([beside["reference.1"], beside["reference.0"]]))
    assert not characters[:, 16:].any(), "nothing is to be made there, and the mask says so"


def test_a_character_is_shown_at_the_steps_noise(vace: WanModel) -> None:
    beside = control_of(vace, references=1)
    clean, half, noise = (read_control(beside, start=3, latents=2, level=level).shown_RChw for level in (0.0, 0.5, 1.0))
    assert clean is not None
    assert half is not None
    assert noise is not None
    assert torch.equal(clean[0], beside["reference.0"])
    assert torch.allclose(half, (clean + noise) / 2, atol=1e-6)


def test_vace_reads_a_clip_of_grey_where_no_picture_is_given(vace: WanModel) -> None:
    size = (vace.capabilities.height, vace.capabilities.width)
    beside = vace.make_condition(TakePictures(), size=size, latents=LATENTS).beside
    read = read_control(beside, start=2, latents=3, level=0.5)
    assert read.shown_RChw is None
    inactive, reactive, mask = read.channels_NChw.split([16, 16, 64], 1)
    assert torch.equal(inactive, reactive)
    assert torch.equal(mask, torch.ones_like(mask))
