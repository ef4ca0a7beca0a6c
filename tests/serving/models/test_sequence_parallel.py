"""Models on a gang of real ranks predict what they predict on one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from serving.errors import ModelError
from serving.models.conditions import PlacedPicture, TakePictures
from serving.models.registry import open_model
from serving.models.sequence_parallel import SplitSequences, split_over
from serving.models.testing import PICTURE_VARIANTS, VARIANTS, Variant, write_tiny_checkpoint
from sharding.attention import choose_backend
from sharding.denoiser import PromptPart
from sharding.gang_groups import ALONE, GangGroups
from sharding.gang_shape import GangShape
from testkit.ranks import Worlds, all_shapes

SEVERAL = [
    pytest.param(shape, marks=[pytest.mark.slow] if shape.ranks > 2 else [])
    for shape in all_shapes(4)
    if shape.ranks > 1
]
TOLERANCE = 5e-5


def predict(groups: GangGroups, model_name: str, num_latents: int, timestep: float) -> tuple[Tensor, dict[str, str]]:
    """In a rank, or alone: one prediction and what its bits depend on."""
    model = open_model(model_name)
    random = torch.Generator().manual_seed(5)
    shape = model.capabilities.latent_shape(width=model.capabilities.width, height=model.capabilities.height)
    latents = torch.randn(num_latents, *shape, generator=random)
    embeddings = model.encode_prompts(["a red ball moving right", "a blue box", "blurry"])
    ramp = torch.linspace(0, 1, num_latents)
    parts = [PromptPart(embeddings[0], embeddings[2], ramp), PromptPart(embeddings[1], embeddings[2], 1 - ramp)]
    denoiser = model.load_denoiser(groups=groups)
    return denoiser.predict(latents, timestep=timestep, parts=parts, start=0), dict(denoiser.numerics)


@pytest.fixture(scope="module")
def alone() -> Tensor:
    return predict(ALONE, "pocket", 7, 700.0)[0]


@pytest.mark.parametrize("shape", SEVERAL, ids=str)
def test_pocket_on_every_shape_of_up_to_four_ranks(ranks: Worlds, alone: Tensor, shape: GangShape) -> None:
    answers = ranks[shape.ranks].run(predict, shape, "pocket", 7, 700.0)
    for prediction, numerics in answers:
        torch.testing.assert_close(prediction, alone, rtol=0, atol=TOLERANCE)
        assert torch.equal(prediction, answers[0][0]), "every rank has the same bits"
        assert numerics["gang_shape"] == str(shape)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_wan_with_tokens_that_do_not_divide(ranks: Worlds, tmp_path: Path, variant: Variant) -> None:
    folder = str(write_tiny_checkpoint(tmp_path, variant))
    for timestep in (900.0, 300.0):  # either expert
        expected, _ = predict(ALONE, folder, 3, timestep)
        for shape in (GangShape(ulysses=2, ring=2), GangShape(cfg=2, ring=2)):
            for prediction, _ in ranks[4].run(predict, shape, folder, 3, timestep):
                torch.testing.assert_close(prediction, expected, rtol=0, atol=TOLERANCE)


def predict_with_pictures(groups: GangGroups, folder: str, start: int) -> Tensor:
    """In a rank, or alone: one window of a take that has a first and, if the model takes it, a last picture."""
    model = open_model(folder)
    support, shape = model.capabilities.pictures, (model.capabilities.height, model.capabilities.width, 3)
    pixels = [np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8) for seed in (1, 2)]
    placed = [PlacedPicture(0, False, pixels[0])] + [PlacedPicture(7, True, pixels[1])] * support.last
    references = pixels if support.references else []
    condition = model.make_condition(TakePictures(placed, references), size=shape[:2], latents=8)
    size = model.capabilities.latent_shape(width=model.capabilities.width, height=model.capabilities.height)
    latents = torch.randn(3, *size, generator=torch.Generator().manual_seed(6))
    shares = (0.0, 1.0, 1.0) if support.given else ()
    prompt, negative = model.encode_prompts(["a red ball", "blurry"])
    return model.load_denoiser(groups=groups).predict(
        latents, timestep=500.0, parts=[PromptPart(prompt, negative, torch.ones(3))], start=start, shares=shares,
        beside=condition.beside,
    )  # fmt: skip


@pytest.mark.parametrize("variant", [*PICTURE_VARIANTS, "2.1-vace"])
def test_windows_with_pictures_on_a_gang(ranks: Worlds, tmp_path: Path, variant: Variant) -> None:
    folder = str(write_tiny_checkpoint(tmp_path, variant))
    for start in (0, 5):  # its own first latent, and one that is shown the picture before
        expected = predict_with_pictures(ALONE, folder, start)
        for shape in (GangShape(ulysses=2), GangShape(ring=2), GangShape(cfg=2), GangShape(ulysses=2, ring=2)):
            for prediction in ranks[shape.ranks].run(predict_with_pictures, shape, folder, start):
                torch.testing.assert_close(prediction, expected, rtol=0, atol=TOLERANCE)


def predict_with_short_prompts(groups: GangGroups, folder: str) -> Tensor:
    """In a rank, or alone: prompt and negative of different length."""
    model = open_model(folder)
    shape = model.capabilities.latent_shape(width=model.capabilities.width, height=model.capabilities.height)
    latents = torch.randn(3, *shape, generator=torch.Generator().manual_seed(6))
    prompt, negative = model.encode_prompts(["a red ball", "blurry"])
    part = PromptPart(prompt[:5], negative[:3], torch.ones(3))
    return model.load_denoiser(groups=groups).predict(latents, timestep=500.0, parts=[part], start=0)


def test_prompts_of_different_length_share_a_pass_on_a_gang(ranks: Worlds, tmp_path: Path) -> None:
    folder = str(write_tiny_checkpoint(tmp_path, "2.1"))
    expected = predict_with_short_prompts(ALONE, folder)
    for shape in (GangShape(ulysses=2), GangShape(cfg=2)):
        for prediction in ranks[2].run(predict_with_short_prompts, shape, folder):
            torch.testing.assert_close(prediction, expected, rtol=0, atol=TOLERANCE)


def tiny_ltx() -> nn.Module:
    """Another family of models, which splits the prompt's tokens too."""
    from diffusers import LTXVideoTransformer3DModel

    torch.manual_seed(3)
    model: nn.Module = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=3, attention_head_dim=16, cross_attention_dim=48,
        num_layers=2, caption_channels=12,
    )  # fmt: skip
    return model.eval()


@torch.no_grad()
def predict_with_ltx(groups: GangGroups, masked: bool = False) -> Tensor:
    model = tiny_ltx()
    split_over(model, groups, choose_backend("cpu"))
    random = torch.Generator().manual_seed(4)
    tokens, text = torch.randn(1, 5 * 3 * 3, 8, generator=random), torch.randn(1, 7, 12, generator=random)
    output = model(
        hidden_states=tokens, encoder_hidden_states=text, timestep=torch.tensor([500.0]),
        num_frames=5, height=3, width=3, return_dict=False,
        encoder_attention_mask=torch.tensor([[1.0, 1, 0, 1, 0, 0, 1]]) if masked else None,
    )  # fmt: skip
    prediction: Tensor = output[0]
    return prediction


@pytest.mark.parametrize("masked", [False, True], ids=["whole prompt", "padded prompt"])
@pytest.mark.parametrize("shape", [GangShape(ulysses=2), GangShape(ring=2), GangShape(ulysses=2, ring=2)], ids=str)
def test_another_model_is_split_by_the_plan_that_it_publishes(ranks: Worlds, shape: GangShape, masked: bool) -> None:
    expected = predict_with_ltx(ALONE, masked)
    for prediction in ranks[shape.ranks].run(predict_with_ltx, shape, masked):
        torch.testing.assert_close(prediction, expected, rtol=0, atol=TOLERANCE)


def test_what_is_masked_of_a_prompt_changes_the_prediction() -> None:
    assert not torch.allclose(predict_with_ltx(ALONE), predict_with_ltx(ALONE, masked=True), atol=TOLERANCE)


def attend_as_diffusers_does(groups: GangGroups, *, causal: bool) -> None:
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    sequences = SplitSequences(groups, choose_backend("cpu"))
    part = sequences.split(torch.randn(1, 8, 2, 8), 1)
    mask = None if causal else torch.zeros(1, 1, part.shape[1], part.shape[1])
    dispatch_attention_fn(part, part, part, attn_mask=mask, is_causal=causal, parallel_config=sequences)


def say_why_not(groups: GangGroups, case: str) -> str:
    """In a rank: the error that a model or an attention which cannot be split raises."""
    try:
        if case == "no plan":
            split_over(nn.Linear(2, 2), groups, choose_backend("cpu"))
        else:
            split_over(tiny_ltx(), groups, choose_backend("cpu"))
            attend_as_diffusers_does(groups, causal=case == "causal")
    except ModelError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("case", "said"), [("no plan", "Linear publishes no"), ("masked", "other for each query"), ("causal", "causal")]
)
def test_what_cannot_be_split_is_refused(ranks: Worlds, case: str, said: str) -> None:
    assert all(said in answer for answer in ranks[2].run(say_why_not, GangShape(ulysses=2), case))
