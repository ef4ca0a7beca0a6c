"""What a WanDenoiser does beyond diffusers' pipeline: parts, guidance switched off, laziness, repeatability."""

from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from torch import Tensor

from serving.models.denoiser import WanDenoiser
from serving.models.quiet import quiet_loading
from serving.models.registry import open_model
from serving.models.testing import write_tiny_checkpoint
from serving.models.wan import WanModel
from sharding.denoiser import PromptPart


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> WanModel:
    return open_model(str(write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "2.1")))


@pytest.fixture(scope="module")
def denoiser(model: WanModel) -> WanDenoiser:
    return model.load_denoiser()


@pytest.fixture(scope="module")
def embeddings(model: WanModel) -> list[Tensor]:
    return model.encode_prompts(["a red ball moving right", "a blue box moving left", "blurry"])


def noise(num_latents: int = 4) -> Tensor:
    return torch.randn(num_latents, 16, 6, 4, generator=torch.Generator().manual_seed(1))


def part(embeddings: list[Tensor], index: int, weights: Tensor) -> PromptPart:
    return PromptPart(embeddings[index], embeddings[2], weights)


def predict(denoiser: WanDenoiser, *parts: PromptPart) -> Tensor:
    return denoiser.predict(noise(), timestep=700.0, parts=parts, start=0)


def test_parts_are_mixed_by_their_weights_at_each_latent(denoiser: WanDenoiser, embeddings: list[Tensor]) -> None:
    ramp = torch.tensor([1.0, 0.75, 0.25, 0.0])
    one = predict(denoiser, part(embeddings, 0, torch.ones(4)))
    other = predict(denoiser, part(embeddings, 1, torch.ones(4)))

    mixed = predict(denoiser, part(embeddings, 0, ramp), part(embeddings, 1, 1 - ramp))

    weights = ramp.view(-1, 1, 1, 1)
    assert not torch.allclose(one, other, atol=1e-3)
    assert torch.allclose(mixed, weights * one + (1 - weights) * other, rtol=0, atol=1e-6)


def test_a_part_without_weight_costs_and_changes_nothing(denoiser: WanDenoiser, embeddings: list[Tensor]) -> None:
    unused = PromptPart(torch.full_like(embeddings[0], torch.nan), embeddings[2], torch.zeros(4))
    alone = predict(denoiser, part(embeddings, 0, torch.ones(4)))
    assert torch.equal(predict(denoiser, unused, part(embeddings, 0, torch.ones(4))), alone)


def test_a_prediction_repeated_gives_the_same_bits(denoiser: WanDenoiser, embeddings: list[Tensor]) -> None:
    whole = part(embeddings, 0, torch.ones(4))
    assert torch.equal(predict(denoiser, whole), predict(denoiser, whole))


def test_a_prediction_is_float32_and_leaves_its_latents_as_they_were(
    denoiser: WanDenoiser, embeddings: list[Tensor]
) -> None:
    latents = noise(3)
    before = latents.clone()
    prediction = denoiser.predict(latents, timestep=500.0, parts=[part(embeddings, 0, torch.ones(3))], start=7)
    assert (prediction.dtype, prediction.shape) == (torch.float32, latents.shape)
    assert torch.equal(latents, before)
    assert not prediction.requires_grad


def test_prompts_of_different_length_share_a_pass(model: WanModel, embeddings: list[Tensor]) -> None:
    short = PromptPart(embeddings[0][:5], embeddings[2][:3], torch.ones(4))
    split, batched = (model.load_denoiser(guidance_batching=kind) for kind in ("split", "batched"))
    together = predict(batched, short)
    assert torch.allclose(together, predict(split, short), rtol=0, atol=1e-5)
    padded = PromptPart(embeddings[0], embeddings[2], torch.ones(4))
    assert not torch.allclose(together, predict(batched, padded), atol=1e-3), "what pads a prompt is attended to"
    assert torch.equal(predict(batched, padded), predict(model.load_denoiser(guidance_batching="batched"), padded))


def test_both_kinds_of_guidance_batching_agree(model: WanModel, embeddings: list[Tensor]) -> None:
    whole = part(embeddings, 0, torch.ones(4))
    split, batched = (model.load_denoiser(guidance_batching=kind) for kind in ("split", "batched"))
    assert torch.allclose(predict(split, whole), predict(batched, whole), rtol=0, atol=1e-5)
    assert split.numerics["guidance_batching"] == "split"
    assert split.numerics != batched.numerics


def test_a_guidance_scale_of_one_leaves_the_negative_out(tmp_path: Path, embeddings: list[Tensor]) -> None:
    folder = write_tiny_checkpoint(tmp_path, "2.1")
    (folder / "longtake.json").write_text('{"window": 4, "width": 32, "height": 48, "guidance": [1.0]}')
    denoiser = open_model(str(folder)).load_denoiser()
    poisoned = PromptPart(embeddings[0], torch.full_like(embeddings[2], torch.nan), torch.ones(4))
    assert torch.isfinite(predict(denoiser, poisoned)).all()


def test_half_precision_stays_near_full(model: WanModel, embeddings: list[Tensor]) -> None:
    whole = part(embeddings, 0, torch.ones(4))
    half, full = model.load_denoiser(dtype=torch.bfloat16), model.load_denoiser()
    assert half.numerics["dtype"] == "bfloat16"
    difference = (predict(half, whole) - predict(full, whole)).abs().mean()
    assert difference < 0.05 * predict(full, whole).abs().mean()


def test_a_window_longer_than_the_model_holds_is_our_bug(denoiser: WanDenoiser, embeddings: list[Tensor]) -> None:
    with pytest.raises(AssertionError, match="longer than the model holds"):
        denoiser.predict(noise(5), timestep=500.0, parts=[part(embeddings, 0, torch.ones(5))], start=0)


def test_the_size_of_the_weights_is_known_without_loading_them(tmp_path: Path) -> None:
    model = open_model(str(write_tiny_checkpoint(tmp_path, "2.2-a14b")))
    denoiser = model.load_denoiser()
    parameters = [parameter for index in (0, 1) for parameter in denoiser._expert(index).parameters()]
    assert model.denoiser_bytes("cpu") == sum(parameter.nbytes for parameter in parameters)


def test_embeddings_equal_those_of_diffusers_own_pipeline(model: WanModel) -> None:
    with quiet_loading():
        pipeline = WanPipeline.from_pretrained(model.folder, dtype=torch.float32)
    texts = ["a red ball &amp; a  blue box ", "", "blurry " * 40]
    for text, ours in zip(texts, model.encode_prompts(texts), strict=True):
        with torch.no_grad():  # with gradients, attention takes another kernel
            theirs, _ = pipeline.encode_prompt(text, do_classifier_free_guidance=False, max_sequence_length=12)
        assert torch.equal(ours, theirs[0])


def test_an_embedding_does_not_depend_on_what_is_encoded_beside_it(model: WanModel) -> None:
    together = model.encode_prompts(["a red ball", "blurry text day night", "a red ball"])
    assert torch.equal(together[0], model.encode_prompts(["a red ball"])[0])
    assert torch.equal(together[0], together[2])
