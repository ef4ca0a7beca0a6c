"""Opening a model by name: what is understood, what is refused and how, and that opening stays cheap."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.errors import ModelError
from serving.models.registry import POCKET, known_models, open_model
from serving.models.testing import MADE_FOR, VARIANTS, Variant, write_tiny_checkpoint


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "2.1")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A tiny checkpoint that a test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_opens_with_what_its_longtake_json_says(tmp_path: Path, variant: Variant) -> None:
    model = open_model(str(write_tiny_checkpoint(tmp_path, variant)))
    said, capabilities = MADE_FOR[variant], model.capabilities
    assert (capabilities.window, capabilities.fps) == (said["window"], said["fps"])
    assert (capabilities.width, capabilities.height) == (said["width"], said["height"])
    assert capabilities.guidance == tuple(said["guidance"])
    assert model.name == str(tmp_path)


@pytest.mark.parametrize(
    ("variant", "window", "size", "fps", "guidance", "cell", "multiple"),
    [
        ("2.1", 21, (832, 480), 16, (5.0,), 8, 16),
        ("2.2-a14b", 21, (1280, 720), 16, (4.0, 3.0), 8, 16),
        ("2.2-5b", 31, (1280, 704), 24, (5.0,), 16, 32),
    ],
)
def test_without_longtake_json_a_model_is_taken_for_its_published_family(
    tmp_path: Path,
    variant: Variant,
    window: int,
    size: tuple[int, int],
    fps: int,
    guidance: tuple[float, ...],
    cell: int,
    multiple: int,
) -> None:
    folder = write_tiny_checkpoint(tmp_path, variant)
    (folder / "longtake.json").unlink()
    for config in folder.glob("transformer*/config.json"):
        edit(config, rope_max_seq_len=1024)
    capabilities = open_model(str(folder)).capabilities
    assert capabilities.window == window
    assert (capabilities.width, capabilities.height) == size
    assert (capabilities.fps, capabilities.guidance) == (fps, guidance)
    assert (capabilities.pixels_per_cell, capabilities.size_multiple) == (cell, multiple)


def test_one_guidance_scale_serves_both_experts(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path, "2.2-a14b")
    edit(folder / "longtake.json", guidance=[2])
    assert open_model(str(folder)).capabilities.guidance == (2.0, 2.0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"windw": 8}, "windw: unknown key, .*; did you mean 'window'"),
        ({"window": 1}, r"window: .*greater than or equal to 2 \(got 1\)"),
        ({"window": "8"}, r"window: .*valid integer \(got '8'\)"),
        ({"window": 33}, "window must be at most 32 latents"),
        ({"width": 40}, "width must be a multiple of 16, not 40"),
        ({"height": 528}, "height must be at most 512 pixels, the positions that the transformer knows, not 528"),
        ({"fps": 0}, "fps: "),
        ({"guidance": []}, "guidance: "),
        ({"guidance": [0.5]}, r"guidance\[0\]: "),
        ({"guidance": [4.0, 3.0]}, "guidance has 2 entries for 1 expert"),
    ],
)
def test_a_bad_longtake_json_is_refused_with_key_and_value(
    folder: Path, changes: dict[str, Any], complaint: str
) -> None:
    edit(folder / "longtake.json", **changes)
    with pytest.raises(ModelError, match=complaint):
        open_model(str(folder))


def test_every_problem_of_a_longtake_json_is_told_at_once(folder: Path) -> None:
    edit(folder / "longtake.json", window=-1, fps="fast", colour="red")
    with pytest.raises(ModelError) as caught:
        open_model(str(folder))
    assert all(key in str(caught.value) for key in ("window", "fps", "colour"))


@pytest.mark.parametrize("content", ["", "[1]", "{", "\xff"])
def test_a_longtake_json_that_is_no_json_object_is_refused(folder: Path, content: str) -> None:
    (folder / "longtake.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match=r"longtake\.json"):
        open_model(str(folder))


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not a checkpoint in diffusers format: model_index\.json is missing"):
        open_model(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"_class_name": "LTXPipeline"}, "'LTXPipeline'.*'WanPipeline'"),
        ({"transformer": ["diffusers", "LTXVideoTransformer3DModel"]}, "transformer must be a WanTransformer3DModel"),
        ({"transformer": ["my_code", "WanTransformer3DModel"]}, "my_code"),
        ({"transformer": [None, None]}, "transformer must be"),
        ({"scheduler": ["diffusers", "DDIMScheduler"]}, "UniPCMultistepScheduler"),
        ({"boundary_ratio": 0.9}, "transformer_2 must be"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(folder: Path, changes: dict[str, Any], complaint: str) -> None:
    edit(folder / "model_index.json", **changes)
    with pytest.raises(ModelError, match=complaint):
        open_model(str(folder))


@pytest.mark.parametrize(("channels", "image_dim"), [(32, None), (16, 1280), (20, None)])
def test_a_transformer_that_reads_other_things_than_latents_and_pictures_is_refused(
    folder: Path, channels: int, image_dim: int | None
) -> None:
    edit(folder / "transformer" / "config.json", in_channels=channels, image_dim=image_dim)
    with pytest.raises(ModelError, match=r"reads \d+ channels; Longtake knows|image_encoder"):
        open_model(str(folder))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("pockt", POCKET),
        ("Pocket", POCKET),
        ("wan2.1-t2v-1.3b-diffusers", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
        ("Wan2.2-TI2V-5B", "Wan-AI/Wan2.2-TI2V-5B-Diffusers"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_match(name: str, nearest: str) -> None:
    with pytest.raises(ModelError, match=f"unknown model '{name}'.*did you mean '{nearest}'"):
        open_model(name)


@pytest.mark.parametrize(
    "name", ["", "\0", "x" * 100_000, "a/b/c", "~nobody-of-that-name/x", "no such model", "../none"]
)
def test_a_name_that_cannot_be_a_model_is_a_short_model_error(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        open_model(name)
    assert len(str(caught.value)) < 400


def test_a_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "wan.safetensors"
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="is a file"):
        open_model(str(path))


def test_the_weights_hash_follows_the_weights_and_not_the_place(pristine: Path, folder: Path) -> None:
    original = open_model(str(pristine)).weights_hash()
    (folder / "README.md").write_text("not a weight")
    assert open_model(str(folder)).weights_hash() == original

    weights = next((folder / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")

    assert open_model(str(folder)).weights_hash() != original
    assert len(original) == 64


def test_known_models_start_with_the_one_that_ships() -> None:
    known = known_models()
    assert known[0].name == POCKET
    assert all(model.description for model in known)


def test_opening_a_model_imports_neither_diffusers_nor_transformers(pristine: Path) -> None:
    program = (
        "import sys; from serving.models.registry import open_model;"
        "assert 'torch' not in sys.modules;"
        f"open_model({str(pristine)!r}).capabilities;"
        "assert not {'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=180)


def test_loading_everything_prints_nothing(pristine: Path) -> None:
    program = (
        "from serving.models.registry import open_model;"
        f"model = open_model({str(pristine)!r});"
        "model.encode_prompts(['a red ball']); model.open_codec(); model.solver(4);"
        "model.load_denoiser()._expert(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=180, capture_output=True)
    assert (done.stdout, done.stderr) == (b"", b"")
