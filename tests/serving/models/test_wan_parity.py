"""One chunk through our pieces equals diffusers' own WanPipeline on the same weights, noise, prompt and scheduler.

Legend: N latents, C channels, h, w latent height and width; F frames, H, W pixels.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from torch import Tensor

from serving.models.devices import GuidanceBatching
from serving.models.quiet import quiet_loading
from serving.models.registry import open_model
from serving.models.testing import VARIANTS, SchedulerKind, Variant, write_tiny_checkpoint
from serving.models.wan import WanModel
from sharding.chunks import ChunkLimits, plan_chunks
from sharding.denoiser import PromptPart
from sharding.spans import Latents
from sharding.timeline import Recipe, Timeline

STEPS = 5
PROMPT, NEGATIVE = "a red  ball moving right", "blurry text"
TOLERANCE = 1e-4


Record = Callable[[str, float], None]


@pytest.mark.parametrize("batching", ["split", "batched"])
@pytest.mark.parametrize("scheduler", ["unipc", "euler"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_chunk_equals_diffusers_own_pipeline(
    tmp_path: Path, variant: Variant, scheduler: SchedulerKind, batching: GuidanceBatching, record: Record
) -> None:
    model = open_model(str(write_tiny_checkpoint(tmp_path, variant, scheduler=scheduler)))
    _compare_with_pipeline(model, batching, record)


@pytest.mark.parametrize("batching", ["split", "batched"])
def test_one_chunk_of_pocket_equals_diffusers_own_pipeline(batching: GuidanceBatching, record: Record) -> None:
    _compare_with_pipeline(open_model("pocket"), batching, record)


def test_two_experts_each_take_their_noise_levels(tmp_path: Path) -> None:
    model = open_model(str(write_tiny_checkpoint(tmp_path, "2.2-a14b")))
    solver = model.solver(STEPS)

    experts = [model.expert_of(solver.timestep(i)) for i in range(STEPS)]

    assert experts == sorted(experts)
    assert set(experts) == {0, 1}
    assert (model.expert_of(875.0), model.expert_of(874.99)) == (0, 1)


def _compare_with_pipeline(model: WanModel, batching: GuidanceBatching, record: Record) -> None:
    noise_NChw = _noise(model)
    latents_NChw = _denoise_one_chunk(model, batching, noise_NChw)
    codec = model.open_codec()
    frames_F3HW = torch.cat([codec.decode(latent) for latent in latents_NChw])

    expected_NChw, expected_F3HW = _run_pipeline(model, noise_NChw)

    record("latents", float((latents_NChw - expected_NChw).abs().max()))
    record("pixels", float((frames_F3HW / 2 + 0.5 - expected_F3HW).abs().max()))
    assert expected_NChw.std() > 0.1, "a comparison of nothing with nothing"
    assert torch.allclose(latents_NChw, expected_NChw, rtol=0, atol=TOLERANCE)
    assert torch.allclose(frames_F3HW / 2 + 0.5, expected_F3HW, rtol=0, atol=TOLERANCE)


def _noise(model: WanModel) -> Tensor:
    made_for = model.capabilities
    shape = made_for.latent_shape(width=made_for.width, height=made_for.height)
    return torch.randn(made_for.window, *shape, generator=torch.Generator().manual_seed(3))


def _denoise_one_chunk(model: WanModel, batching: GuidanceBatching, noise_NChw: Tensor) -> Tensor:
    embedding, negative = model.encode_prompts([PROMPT, NEGATIVE])
    parts = [PromptPart(embedding, negative, torch.ones(len(noise_NChw)))]
    denoiser, solver = model.load_denoiser(guidance_batching=batching), model.solver(STEPS)
    limits = ChunkLimits(model.capabilities.window)
    timeline = Timeline(
        noise_NChw, Recipe(solver=solver, cover=lambda step: plan_chunks(len(noise_NChw), limits, step, STEPS))
    )
    while not timeline.done:
        (call,) = timeline.ready()
        timestep = solver.timestep(call.step)
        timeline.accept(call, denoiser.predict(timeline.input_of(call), timestep=timestep, parts=parts, start=0))
    return torch.stack([timeline.latent(n) for n in range(timeline.num_latents)])


def _run_pipeline(model: WanModel, noise_NChw: Tensor) -> tuple[Tensor, Tensor]:
    with quiet_loading():
        pipeline = WanPipeline.from_pretrained(model.folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    made_for = model.capabilities
    arguments = {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "width": made_for.width,
        "height": made_for.height,
        "num_frames": made_for.grid.frames_of(Latents(made_for.window)),
        "num_inference_steps": STEPS,
        "guidance_scale": made_for.guidance[0],
        "guidance_scale_2": made_for.guidance[1] if len(made_for.guidance) > 1 else None,
        "latents": noise_NChw.transpose(0, 1)[None],
        "max_sequence_length": min(512, pipeline.tokenizer.model_max_length),
    }
    latents_BCNhw = pipeline(**arguments, output_type="latent").frames
    frames_BF3HW = pipeline(**arguments, output_type="pt").frames
    return latents_BCNhw[0].transpose(0, 1), frames_BF3HW[0]


@pytest.fixture
def record(record_property: Callable[[str, object], None]) -> Record:
    """Keeps a measured difference in the test report; `pytest -s` shows it."""

    def keep(what: str, difference: float) -> None:
        record_property(f"max difference of {what}", difference)
        print(f"max difference of {what}: {difference:.2e}")

    return keep
