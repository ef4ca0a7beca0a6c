"""What may be wrong with a checkpoint's files: found when it is opened or before gangs start, told in one line."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from serving.errors import ModelError
from serving.models.registry import POCKET, open_model
from serving.models.testing import write_tiny_checkpoint
from serving.models.weight_shapes import check_weight_shapes

COMPONENTS = ("transformer", "transformer_2", "vae", "text_encoder")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "2.2-a14b")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A tiny checkpoint with two experts that a test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / "model"))


def weights_of(folder: Path, component: str) -> Path:
    return next((folder / component).glob("*.safetensors"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def shard(path: Path) -> Path:
    """Part a file of weights in two with an index; returns the second."""
    tensors, stem = load_file(path), path.name.removesuffix(".safetensors")
    names = sorted(tensors)
    parts = {f"{stem}-0000{k + 1}-of-00002.safetensors": names[k::2] for k in range(2)}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, path.with_name(file), metadata={"format": "pt"})
    places = {name: file for file, part in parts.items() for name in part}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    path.unlink()
    return path.with_name(list(parts)[1])


# ------------------------------------------------------------------------------------------------------ the files


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def lose_the_last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def leave_a_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 6674976\n")


def leave_a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/blob")


def make_a_variant(path: Path) -> None:
    path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))


def rename(path: Path) -> None:
    path.rename(path.with_name("weights.safetensors"))


def pickle_them(path: Path) -> None:
    path.rename(path.with_suffix(".bin"))


def remove(path: Path) -> None:
    path.unlink()


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def write_a_web_page(path: Path) -> None:
    path.write_text("<html>503 Service Unavailable</html>")


def write_a_wrong_header(path: Path) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [true], "data_offsets": [4, 0]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def lose_a_shard(path: Path) -> None:
    shard(path).unlink()


def cut_a_shard(path: Path) -> None:
    lose_the_last_byte(shard(path))


def mix_up_shards(path: Path) -> None:
    second = shard(path)
    tensors = load_file(second)
    tensors.pop(min(tensors))
    save_file(tensors, second)


def leave_the_folder(path: Path) -> None:
    shard(path)
    index = path.with_name(f"{path.name}.index.json")
    index.write_text(json.dumps({"weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}}))


DAMAGES: dict[Callable[[Path], object], str] = {
    cut_in_half: r"\.safetensors is cut short: it ends after \d+ bytes, within or before the tensor \w",
    cut_in_the_header: r"\.safetensors is cut short: it ends after 100 bytes, within its header",
    lose_the_last_byte: r"is cut short: it ends after \d+ bytes, within or before the tensor \w",
    empty: r"\.safetensors is empty",
    leave_a_pointer: r"\.safetensors is a pointer of Git LFS .*git lfs pull",
    leave_a_dangling_link: r"\.safetensors is a link to a file that is missing",
    make_a_variant: r"holds weights of the variant 'fp16' only .*fp16\.safetensors",
    rename: r"holds weights\.safetensors, but no \w+\.safetensors",
    pickle_them: "holds pickled weights only",
    remove: "holds no safetensors",
    make_a_folder: r"\.safetensors is no file",
    write_a_web_page: r"\.safetensors is no safetensors file",
    write_a_wrong_header: r"a: the file's header gives it no sound shape and place",
    lose_a_shard: r"-00002-of-00002\.safetensors \(with \S+\) is missing",
    cut_a_shard: r"-00002-of-00002\.safetensors is cut short",
    mix_up_shards: r"-00002-of-00002\.safetensors lacks \S+, which \S+ says is in it",
    leave_the_folder: "a shard lies beside its index",
}


@pytest.mark.parametrize("component", ["transformer_2", "text_encoder"])  # diffusers' names of files, transformers'
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_broken_weights_are_found_when_a_model_is_opened(
    folder: Path, component: str, damage: Callable[[Path], object]
) -> None:
    damage(weights_of(folder, component))
    with pytest.raises(ModelError, match=DAMAGES[damage]) as caught:
        open_model(str(folder))
    message = str(caught.value)
    assert "\n" not in message
    assert f": {component}" in message


@pytest.mark.parametrize("component", COMPONENTS)
def test_whole_shards_open_and_fit(folder: Path, component: str) -> None:
    shard(weights_of(folder, component))
    check_weight_shapes(open_model(str(folder)).checkpoint)


# ------------------------------------------------------------------------------------------------------ the shapes


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_tensor_of_another_shape_is_named_with_its_file(folder: Path, component: str) -> None:
    path = weights_of(folder, component)
    tensors = load_file(path)
    name = max(tensors, key=lambda tensor: tensors[tensor].dim())
    shape = list(tensors[name].shape)
    tensors[name] = torch.zeros([2 * shape[0], *shape[1:]])
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        check_weight_shapes(open_model(str(folder)).checkpoint)
    assert f"{component}/{path.name}" in str(caught.value)
    assert f"{name} is of shape {[2 * shape[0], *shape[1:]]}" in str(caught.value)
    assert f"must be {shape}" in str(caught.value)


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_tensor_that_is_missing_is_named(folder: Path, component: str) -> None:
    path = weights_of(folder, component)
    tensors = load_file(path)
    name = max(tensors, key=lambda tensor: tensors[tensor].dim())
    del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{component} lacks 1 tensors of its model; the first is {name}"):
        check_weight_shapes(open_model(str(folder)).checkpoint)


def test_pocket_is_whole() -> None:
    check_weight_shapes(open_model(POCKET).checkpoint)


# ------------------------------------------------------------------------------------------------------ the numbers

NO_NUMBERS: tuple[Any, ...] = (0, -1, float("nan"), float("inf"), True, "8", [8], 10**12)

COUNTS = {
    "vae/config.json": ("z_dim", "scale_factor_temporal", "scale_factor_spatial"),
    "transformer/config.json": ("in_channels", "num_attention_heads", "rope_max_seq_len"),
    "scheduler/scheduler_config.json": ("num_train_timesteps",),
}


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize(("file", "key"), [(file, key) for file, keys in COUNTS.items() for key in keys])
def test_a_count_that_is_none_is_refused_with_file_and_key(folder: Path, file: str, key: str, value: Any) -> None:
    edit(folder / file, **{key: value})
    with pytest.raises(ModelError, match=f"{file}: {key} must be a positive integer"):
        open_model(str(folder))


@pytest.mark.parametrize("value", [0, 1, 1.5, 875, -0.1, float("nan"), float("-inf"), True, "0.9"], ids=repr)
def test_a_boundary_that_lies_not_between_the_experts_is_refused(folder: Path, value: Any) -> None:
    edit(folder / "model_index.json", boundary_ratio=value)
    with pytest.raises(ModelError, match=r"model_index\.json: boundary_ratio must be a number between 0 and 1"):
        open_model(str(folder))


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("vae/config.json", {"latents_mean": [0.0] * 15}),
        ("vae/config.json", {"latents_mean": [float("nan")] * 16}),
        ("vae/config.json", {"latents_std": [0.0] * 16}),
        ("vae/config.json", {"latents_std": [True] * 16}),
        ("vae/config.json", {"latents_std": "ones"}),
        ("transformer/config.json", {"patch_size": [1, True, 2]}),
        ("transformer/config.json", {"patch_size": 2}),
        ("transformer/config.json", {"patch_size": [1, 0, 2]}),
        ("transformer/config.json", {"out_channels": 32}),
        ("transformer_2/config.json", {"num_layers": 3}),
        ("scheduler/scheduler_config.json", {"flow_shift": float("nan")}),
        ("scheduler/scheduler_config.json", {"shift": -1}),
        ("model_index.json", {"expand_timesteps": 1}),
        ("longtake.json", {"guidance": [float("nan")]}),
        ("longtake.json", {"guidance": [True]}),
        ("longtake.json", {"window": True}),
    ],
)
def test_other_values_that_no_film_could_be_made_with_are_refused(
    folder: Path, file: str, changes: dict[str, Any]
) -> None:
    edit(folder / file, **changes)
    with pytest.raises(ModelError, match=f"{next(iter(changes))}.*") as caught:
        open_model(str(folder))
    assert file in str(caught.value)


@pytest.mark.parametrize("file", ["model_index.json", "longtake.json"])
def test_a_byte_order_mark_is_read_over(folder: Path, file: str) -> None:
    path = folder / file
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert open_model(str(folder)).capabilities.guidance


@pytest.mark.parametrize("file", ["vae/config.json", "transformer/config.json", "scheduler/scheduler_config.json"])
def test_a_byte_order_mark_that_the_libraries_do_not_read_is_named(folder: Path, file: str) -> None:
    path = folder / file
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    with pytest.raises(ModelError, match=f"{file} begins with a byte order mark"):
        open_model(str(folder))


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 5000], ids=lambda content: repr(content[:4])
)
@pytest.mark.parametrize("file", ["model_index.json", "vae/config.json"])
def test_a_config_that_is_no_json_object_is_one_line(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(ModelError, match=file) as caught:
        open_model(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"vace_in_channels": 48}, r"vace_in_channels must be 96, .*, not 48"),
        ({"vace_layers": [1]}, r"vace_layers must be a list of numbers from 0, .* to 1, not \[1\]"),
        ({"vace_layers": [0, 7]}, r"vace_layers must be a list .*, not \[0, 7\]"),
        ({"vace_layers": "all"}, r"vace_layers must be a list .*, not 'all'"),
    ],
)
def test_a_control_clip_that_is_none_of_vaces_is_refused(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    folder = write_tiny_checkpoint(tmp_path, "2.1-vace")
    edit(folder / "transformer" / "config.json", **changes)
    with pytest.raises(ModelError, match=complaint):
        open_model(str(folder))


def test_a_transformer_of_another_class_than_its_pipelines_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path, "2.1-vace")
    edit(folder / "model_index.json", _class_name="WanPipeline")
    with pytest.raises(
        ModelError, match="the transformer of a WanPipeline must be a WanTransformer3DModel, not WanVACE"
    ):
        open_model(str(folder))
