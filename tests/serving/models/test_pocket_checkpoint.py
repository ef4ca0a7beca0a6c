"""The shipped checkpoint: small, safe to load, and it shows what a prompt says."""

import json
from dataclasses import asdict

import pytest

from benchmarks.adherence import CHECKPOINT, detect, render_prompts
from serving.models.pocket.export import Capabilities


def test_the_checkpoint_is_small_and_holds_only_safetensors() -> None:
    files = [path for path in CHECKPOINT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_the_checkpoint_states_its_capabilities() -> None:
    stated = json.loads((CHECKPOINT / "longtake.json").read_text())
    assert (stated["window"], stated["width"], stated["height"], stated["fps"]) == (8, 96, 64, 16)
    assert len(stated["guidance"]) == 1
    assert stated["pictures"] == ["first", "last", "keyframes", "strength", "context"]
    exported = json.loads(json.dumps(asdict(Capabilities())))
    assert stated == exported, "training pocket again would export a checkpoint that states something else"
    assert json.loads((CHECKPOINT / "model_index.json").read_text())["expand_timesteps"] is True


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_checkpoint_shows_the_colour_and_backdrop_of_a_prompt_in_eight_steps() -> None:
    prompts = ["a red ball moving right, day", "a yellow box circling, night"]
    films = render_prompts(CHECKPOINT, prompts, steps=8, guidance=3.0, frames=29)
    found = [detect(film) for film in films]
    assert [(one.colour, one.backdrop) for one in found] == [("red", "day"), ("yellow", "night")]
