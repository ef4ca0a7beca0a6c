"""Tokens are counted as the text encoder's tokenizer counts them, without the libraries that it comes with."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from serving.errors import ModelError
from serving.models.prompt_tokens import PromptTokens, clean_prompt
from serving.models.registry import POCKET_FOLDER

TOKENIZER = POCKET_FOLDER / "tokenizer"


def tokens_in(folder: Path) -> PromptTokens:
    return PromptTokens(folder, "m", fetch=lambda: folder)


POCKETS = tokens_in(TOKENIZER)
THEIRS: Any = AutoTokenizer.from_pretrained(TOKENIZER, local_files_only=True)


@given(st.text(max_size=80))
def test_a_prompt_is_cleaned_as_the_pipeline_cleans_it(text: str) -> None:
    assert clean_prompt(text) == prompt_clean(text)


@settings(max_examples=200)
@given(st.text(max_size=120))
def test_a_prompt_takes_as_many_tokens_as_the_encoder_sees(text: str) -> None:
    count = len(THEIRS(prompt_clean(text)).input_ids)
    assert POCKETS.count(text) == count
    assert POCKETS.fits(text) == (count <= POCKETS.limit == 32)


@pytest.mark.parametrize(("said", "limit"), [(None, 512), (16, 16), (4096, 512), (1e30, 512), (int(1e30), 512)])
def test_the_limit_is_the_pipelines_or_the_tokenizers_if_that_is_less(tmp_path: Path, said: Any, limit: int) -> None:
    if said is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": said}))
    assert tokens_in(tmp_path).limit == limit


@pytest.mark.parametrize("said", [0, -1, 3, True, "32", 12.5, float("nan"), None])
def test_a_limit_that_is_none_is_refused_by_name(tmp_path: Path, said: Any) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": said}))
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: model_max_length must be an integer of at least 4"):
        tokens_in(tmp_path)


def test_a_short_text_needs_no_tokenizer(tmp_path: Path) -> None:
    assert tokens_in(tmp_path).fits("a" * 510)


def test_a_broken_tokenizer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"'m': cannot read \S+tokenizer\.json: ") as caught:
        tokens_in(tmp_path).fits("a" * 600)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_its_fast_form_is_read_by_transformers(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TOKENIZER, tmp_path / "tokenizer"))
    THEIRS.save_pretrained(folder)
    assert tokens_in(folder).count("a red ball") == POCKETS.count("a red ball")


def test_counting_imports_neither_torch_nor_transformers() -> None:
    program = (
        "import sys; from serving.models.registry import open_model;"
        "assert open_model('pocket').prompt_tokens.count('a red ball') == 4;"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=180)
