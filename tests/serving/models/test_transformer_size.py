"""A transformer's size is reckoned from its config as diffusers would build it."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ModelError
from serving.models.transformer_size import TransformerSize, read_transformer_size

CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "patch_size": st.sampled_from([[1, 2, 2], [1, 1, 1], [1, 2, 4]]),
        "num_attention_heads": st.integers(1, 4),
        "attention_head_dim": st.sampled_from([8, 16, 48]),
        "in_channels": st.integers(1, 48),
        "out_channels": st.one_of(st.none(), st.integers(1, 48)),
        "text_dim": st.integers(1, 64),
        "freq_dim": st.sampled_from([16, 64]),
        "ffn_dim": st.integers(1, 64),
        "num_layers": st.integers(1, 3),
        "cross_attn_norm": st.booleans(),
    },
)

OF_PICTURES = st.fixed_dictionaries(
    {"image_dim": st.sampled_from([8, 20]), "added_kv_proj_dim": st.sampled_from([8, 24])},
    optional={"pos_embed_seq_len": st.integers(1, 20)},
)
"""Keys of a transformer that reads embeddings of pictures."""


def size_of(folder: Path, config: dict[str, object]) -> TransformerSize:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return read_transformer_size(path, "m")


@settings(max_examples=40, deadline=None)
@given(config=CONFIGS, pictures=st.one_of(st.just({}), OF_PICTURES))
def test_any_config_has_the_parameters_that_diffusers_makes(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, object], pictures: dict[str, object]
) -> None:
    config = {"num_layers": 2, **config, **pictures}
    with torch.device("meta"):
        built = WanTransformer3DModel.from_config(config)
    size = size_of(tmp_path_factory.mktemp("transformer"), config)
    assert size.parameters == sum(parameter.numel() for parameter in built.parameters())
    assert size.inner == built.config["num_attention_heads"] * built.config["attention_head_dim"]
    assert size.ffn == built.config["ffn_dim"]


@settings(max_examples=20, deadline=None)
@given(config=CONFIGS, layers=st.sampled_from([[0], [0, 2], [0, 1, 2]]), channels=st.integers(1, 96))
def test_any_config_of_vace_has_the_parameters_that_diffusers_makes(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, object], layers: list[int], channels: int
) -> None:
    config = {**config, "num_layers": 3, "vace_layers": layers, "vace_in_channels": channels}
    with torch.device("meta"):
        built = WanVACETransformer3DModel.from_config(config)
    config["_class_name"] = "WanVACETransformer3DModel"
    size = size_of(tmp_path_factory.mktemp("transformer"), config)
    assert size.parameters == sum(parameter.numel() for parameter in built.parameters())


def test_wan_14b_has_14_billion_parameters(tmp_path: Path) -> None:
    assert size_of(tmp_path, {}).parameters == pytest.approx(14.3e9, rel=0.01)


@pytest.mark.parametrize("value", [0, -1, "many", 1.5, None, True])
def test_a_size_that_is_no_positive_integer_is_refused_by_name(tmp_path: Path, value: object) -> None:
    with pytest.raises(ModelError, match=r"'m': \S+: num_layers must be a positive integer"):
        size_of(tmp_path, {"num_layers": value})
