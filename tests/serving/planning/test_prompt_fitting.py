"""What a model does not read of a storyboard's words is cut where the style survives, and told."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.models.registry import POCKET, open_model
from serving.planning.compile import compile_storyboard
from serving.planning.plan import FilmPlan, plan_json
from serving.planning.prompt_fitting import fit_prompt
from serving.storyboard import parse_storyboard

LONG = "a red ball " + "moving right " * 40


class Words:
    """A model that reads so many words, and an end mark."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def count(self, text: str) -> int:
        return len(text.split()) + 1

    def fits(self, text: str) -> bool:
        return self.count(text) <= self.limit


def plan_on_pocket(shots: list[dict[str, Any]], **keys: Any) -> FilmPlan:
    board = parse_storyboard(json.dumps({"version": 1, "shots": shots, **keys}).encode(), form="json")
    model = open_model(POCKET)
    return compile_storyboard(
        board, model_name=POCKET, capabilities=model.capabilities, tokens=model.prompt_tokens, steps=4
    )


text = st.text(st.sampled_from("ab "), max_size=60)


@settings(max_examples=200)
@given(prompt=text, style=text, limit=st.integers(4, 40))
def test_a_fitted_prompt_is_within_the_limit_and_whole_if_it_can_be(prompt: str, style: str, limit: int) -> None:
    tokens = Words(limit)
    whole = fit_prompt(prompt, style, None)
    fitted = fit_prompt(prompt, style, tokens)
    assert tokens.fits(fitted.text)
    assert (fitted.text == whole.text) == tokens.fits(whole.text)
    if fitted.text == whole.text:
        assert not fitted.lost_prompt
        assert not fitted.lost_style


def test_the_style_is_kept_and_the_end_of_the_prompt_goes() -> None:
    fitted = fit_prompt("one two three four five", "soft light", Words(6))
    assert fitted.text == "one two three, soft light"
    assert (fitted.lost_prompt, fitted.lost_style) == ("four five", "")


def test_a_style_that_is_too_long_leaves_the_prompt_half() -> None:
    fitted = fit_prompt("one two three four five", "a b c d e f g h", Words(8))
    assert fitted.text == "one two three four, a b c"
    assert (fitted.lost_prompt, fitted.lost_style) == ("five", "d e f g h")


def test_a_short_prompt_leaves_its_style_the_rest() -> None:
    fitted = fit_prompt("one", "a b c d e f g h", Words(8))
    assert fitted.text == "one, a b c d e f"
    assert fitted.lost_style == "g h"


def test_prompts_of_different_style_stay_different_beyond_the_limit() -> None:
    prompts = {plan_on_pocket([{"prompt": LONG, "seconds": 1}], style=style).takes[0].prompts[0].text for style in "ab"}
    assert len(prompts) == 2
    assert all(open_model(POCKET).prompt_tokens.fits(prompt) for prompt in prompts)


@pytest.mark.parametrize(
    ("shots", "keys", "path"),
    [
        ([{"prompt": LONG, "seconds": 1}], {}, "shots[0].prompt"),
        ([{"prompt": "a", "seconds": 1}, {"prompt": LONG, "seconds": 1}], {"style": "day"}, "shots[1].prompt"),
        ([{"prompt": "a", "seconds": 1}], {"style": LONG[:400]}, "style"),
        ([{"prompt": "a", "seconds": 1}], {"negative": LONG[:400]}, "negative"),
        ([{"prompt": "a", "seconds": 1, "negative": LONG[:400]}], {}, "shots[0].negative"),
        ([{"prompt": "{hero}", "seconds": 1}], {"characters": {"hero": LONG[:400]}}, "shots[0].prompt"),
    ],
)
def test_words_that_the_model_does_not_read_are_warned_of(
    shots: list[dict[str, Any]], keys: dict[str, Any], path: str
) -> None:
    [warning] = plan_on_pocket(shots, **keys).warnings
    assert warning.path == path
    assert "the model reads 32 tokens of a prompt and its style; left out: 'right moving" in warning.message or (
        "left out: 'moving right" in warning.message
    )


def test_a_prompt_that_no_latent_shows_is_warned_of() -> None:
    shots = [
        {"prompt": "a red ball", "seconds": 1.0625},
        {"prompt": "a blue box", "seconds": 0.125, "transition": "continue"},
        {"prompt": "a star", "seconds": 1, "transition": "continue"},
    ]
    plan = plan_on_pocket(shots)
    assert "a blue box" not in {prompt.text for prompt in plan.takes[0].prompts}
    [warning] = plan.warnings
    assert warning.path == "shots[1].prompt"
    assert warning.message.startswith("is never shown: the shot has 2 of the 4 frames of a latent")
    assert plan_json(plan)["warnings"] == [{"path": warning.path, "message": warning.message}]


def test_a_storyboard_whose_words_are_all_read_has_no_warnings() -> None:
    plan = plan_on_pocket([{"prompt": "a red ball", "seconds": 1}], style="day", negative="text")
    assert plan.warnings == ()
    assert plan_json(plan)["warnings"] == []
