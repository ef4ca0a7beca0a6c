"""One window with pictures equals diffusers' own WanImageToVideoPipeline, and WanVACEPipeline, bit for bit, on the same
weights and noise.

Legend: N latents, C channels, h, w latent height and width; H, W pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanVACEPipeline
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from serving.models.beside import read_control
from serving.models.conditions import ClipEncoder, PlacedPicture, TakePictures, make_condition
from serving.models.quiet import quiet_loading
from serving.models.registry import open_model
from serving.models.testing import PICTURE_VARIANTS, SchedulerKind, Variant, write_tiny_checkpoint
from serving.models.wan import WanModel
from sharding.denoiser import Condition, PromptPart
from sharding.spans import Latents, LatentSpan
from sharding.timeline import Recipe, Timeline

STEPS = 4
PROMPT, NEGATIVE = "a red ball moving right", "blurry text"


def picture(model: WanModel, seed: int) -> NDArray[np.uint8]:
    made_for = model.capabilities
    return np.random.default_rng(seed).integers(0, 256, (made_for.height, made_for.width, 3), dtype=np.uint8)


def noise(model: WanModel) -> Tensor:
    made_for = model.capabilities
    shape = made_for.latent_shape(width=made_for.width, height=made_for.height)
    return torch.randn(made_for.window, *shape, generator=torch.Generator().manual_seed(3))


def condition_of(
    model: WanModel, placed: Sequence[PlacedPicture], references: Sequence[NDArray[np.uint8]] = ()
) -> Condition:
    made_for = model.capabilities
    size = (made_for.height, made_for.width)
    return model.make_condition(TakePictures(placed, references), size=size, latents=made_for.window)


def denoise(model: WanModel, noise_NChw: Tensor, condition: Condition, steps: int = STEPS) -> Tensor:
    embedding, negative = model.encode_prompts([PROMPT, NEGATIVE])
    parts = [PromptPart(embedding, negative, torch.ones(len(noise_NChw)))]
    denoiser, solver = model.load_denoiser(guidance_batching="split"), model.solver(steps)
    start_NChw = torch.stack([condition.given.get(n, latent) for n, latent in enumerate(noise_NChw)])
    shares = tuple(0.0 if n in condition.given else 1.0 for n in range(len(noise_NChw))) if condition.given else ()
    whole = (LatentSpan(0, len(noise_NChw)),)
    timeline = Timeline(start_NChw, Recipe(solver=solver, cover=lambda step: whole, shares=shares))
    while not timeline.done:
        (call,) = timeline.ready()
        prediction = denoiser.predict(
            timeline.input_of(call), timestep=solver.timestep(call.step), parts=parts, start=0,
            shares=timeline.shares_of(call) if shares else (), beside=condition.beside,
        )  # fmt: skip
        timeline.accept(call, prediction)
    return torch.stack([timeline.latent(n) for n in range(timeline.num_latents)])


def run(owner: Any, model: WanModel, noise_NChw: Tensor, *, steps: int = STEPS, **pictures: Any) -> Tensor:
    """What a pipeline of diffusers makes of one window, with `pictures` as it takes them."""
    with quiet_loading():
        pipeline = owner.from_pretrained(model.folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    made_for = model.capabilities
    latents_BCNhw = pipeline(
        **pictures,
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        width=made_for.width,
        height=made_for.height,
        num_frames=made_for.grid.frames_of(Latents(made_for.window)),
        num_inference_steps=steps,
        guidance_scale=made_for.guidance[0],
        guidance_scale_2=made_for.guidance[1] if len(made_for.guidance) > 1 else None,
        latents=noise_NChw.transpose(0, 1)[None],
        max_sequence_length=min(512, pipeline.tokenizer.model_max_length),
        output_type="latent",
    ).frames
    latents_NChw: Tensor = latents_BCNhw[0].transpose(0, 1)
    return latents_NChw


def run_pipeline(model: WanModel, noise_NChw: Tensor, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    first, *last = map(Image.fromarray, pictures)
    return run(WanImageToVideoPipeline, model, noise_NChw, image=first, last_image=last[0] if last else None)


@pytest.mark.parametrize("scheduler", ["unipc", "euler"])
@pytest.mark.parametrize("variant", [variant for variant in PICTURE_VARIANTS if variant != "2.1-flf2v"])
def test_a_window_with_a_first_picture_has_the_bits_of_diffusers_own_pipeline(
    tmp_path: Path, variant: Variant, scheduler: SchedulerKind
) -> None:
    model = open_model(str(write_tiny_checkpoint(tmp_path, variant, scheduler=scheduler)))
    first, noise_NChw = picture(model, 1), noise(model)
    condition = condition_of(model, [PlacedPicture(0, False, first)])
    ours = denoise(model, noise_NChw, condition)
    theirs = run_pipeline(model, noise_NChw, [first])
    if model.checkpoint.architecture.expand_timesteps:  # the pipeline puts the picture back in at its end
        theirs = torch.cat([ours[:1], theirs[1:]])
    assert ours.std() > 0.1, "a comparison of nothing with nothing"
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("variant", ["2.1-flf2v", "2.2-i2v-a14b"])
def test_a_window_with_a_first_and_a_last_picture_has_the_bits_of_diffusers_own_pipeline(
    tmp_path: Path, variant: Variant
) -> None:
    model = open_model(str(write_tiny_checkpoint(tmp_path, variant)))
    first, last, noise_NChw = picture(model, 1), picture(model, 2), noise(model)
    placed = [PlacedPicture(0, False, first), PlacedPicture(len(noise_NChw) - 1, True, last)]
    ours = denoise(model, noise_NChw, condition_of(model, placed))
    assert torch.equal(ours, run_pipeline(model, noise_NChw, [first, last]))
    other = [placed[0], PlacedPicture(len(noise_NChw) - 1, True, picture(model, 4))]
    assert not torch.equal(ours, denoise(model, noise_NChw, condition_of(model, other)))


@pytest.mark.parametrize("variant", ["2.2-5b", "2.2-i2v-a14b"])
def test_a_clip_encoded_latent_by_latent_has_the_bits_of_one_encoded_at_once(tmp_path: Path, variant: Variant) -> None:
    model = open_model(str(write_tiny_checkpoint(tmp_path, variant)))
    vae = model._vae
    clip_CFHW = torch.rand(3, 13, 64, 64, generator=torch.Generator().manual_seed(5)) * 2 - 1
    with torch.no_grad():
        mean_CNhw = vae.encode(clip_CFHW[None]).latent_dist.mode()[0]
    channel = (slice(None), None, None, None)
    means, deviations = torch.tensor(vae.config.latents_mean)[channel], torch.tensor(vae.config.latents_std)[channel]
    whole_CNhw = (mean_CNhw - means) * (1.0 / deviations)
    encoder = ClipEncoder(vae)
    pieces = [clip_CFHW[:, :1], *clip_CFHW[:, 1:].split(4, dim=1)]
    assert torch.equal(torch.stack([encoder.encode(piece) for piece in pieces], 1), whole_CNhw)


def run_vace(
    model: WanModel,
    noise_NChw: Tensor,
    placed: Sequence[PlacedPicture],
    references: Sequence[NDArray[np.uint8]] = (),
    steps: int = STEPS,
) -> Tensor:
    """With the pictures of characters at the first latents, which the pipeline denoises too."""
    made_for = model.capabilities
    frames = made_for.grid.frames_of(Latents(made_for.window))
    video = np.full((frames, made_for.height, made_for.width, 3), 0.5, np.float32)  # grey, which is 0 in -1..1
    mask = np.ones_like(video)
    for picture in placed:
        video[4 * picture.latent], mask[4 * picture.latent] = picture.pixels_HW3.astype(np.float32) / 255, 0
    clip = {name: torch.from_numpy(of).permute(0, 3, 1, 2)[None] for name, of in (("video", video), ("mask", mask))}
    characters = [Image.fromarray(pixels) for pixels in references] or None
    return run(WanVACEPipeline, model, noise_NChw, steps=steps, reference_images=characters, **(clip if placed else {}))


@pytest.mark.parametrize("scheduler", ["unipc", "euler"])
@pytest.mark.parametrize("places", [(), (0,), (0, 3), (1, 2)], ids=str)
def test_a_window_of_vace_with_pictures_at_any_time_has_the_bits_of_diffusers_own_pipeline(
    tmp_path: Path, places: tuple[int, ...], scheduler: SchedulerKind
) -> None:
    model = open_model(str(write_tiny_checkpoint(tmp_path, "2.1-vace", scheduler=scheduler)))
    noise_NChw = noise(model)
    placed = [PlacedPicture(n, n == 3, picture(model, 10 + n)) for n in places]
    ours = denoise(model, noise_NChw, condition_of(model, placed))
    assert ours.std() > 0.1, "a comparison of nothing with nothing"
    assert torch.equal(ours, run_vace(model, noise_NChw, placed))
    if placed:
        assert not torch.equal(ours, denoise(model, noise_NChw, condition_of(model, [])))


@pytest.mark.parametrize("places", [(), (0, 2)], ids=str)
def test_a_step_of_vace_with_two_characters_has_the_bits_of_diffusers_own_pipeline(
    tmp_path: Path, places: tuple[int, ...]
) -> None:
    model = open_model(str(write_tiny_checkpoint(tmp_path, "2.1-vace", scheduler="euler")))
    placed = [PlacedPicture(n, False, picture(model, 10 + n)) for n in places]
    references = [picture(model, 20), picture(model, 21)]
    condition, noise_NChw = condition_of(model, placed, references), noise(model)
    level = model.solver(1).timestep(0) / model.checkpoint.architecture.num_train_timesteps
    read = read_control(condition.beside, start=0, latents=len(noise_NChw), level=level)
    assert read.shown_RChw is not None
    ours = denoise(model, noise_NChw, condition, steps=1)
    theirs = run_vace(model, torch.cat([read.shown_RChw, noise_NChw]), placed, references, steps=1)
    assert torch.equal(ours, theirs[len(references) :])
    others = denoise(model, noise_NChw, condition_of(model, placed, references[::-1]), steps=1)
    assert not torch.equal(ours, others)


def test_a_clip_of_vace_that_repeats_its_settled_latents_is_that_of_a_whole_one(tmp_path: Path) -> None:
    model = open_model(str(write_tiny_checkpoint(tmp_path, "2.1-vace")))
    size, latents = (model.capabilities.height, model.capabilities.width), 34
    placed = [PlacedPicture(0, False, picture(model, 1)), PlacedPicture(30, False, picture(model, 2))]
    control = {}
    for window in (22, latents):
        beside = make_condition(
            model.checkpoint, model._vae, TakePictures(placed), size=size, latents=latents, window=window
        ).beside
        assert len(beside["reactive.0"]) == window
        control[window] = read_control(beside, start=0, latents=latents, level=1.0).channels_NChw
    torch.testing.assert_close(control[22], control[latents], rtol=0, atol=1e-3)
    assert not torch.allclose(control[22][31], control[22][29], rtol=0, atol=2e-3), "the second picture is in it"
