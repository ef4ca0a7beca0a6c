"""Whatever is sent, the answer is a storyboard or a StoryboardError with at least one problem, and nothing else."""

import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import Problem, StoryboardError
from serving.storyboard import parse_storyboard, storyboard_hash
from serving.storyboard.loading import Form

WORDS = st.sampled_from(
    [
        "version", "shots", "prompt", "seconds", "transition", "dissolve", "cut", "continue", "seed", "id", "video",
        "fps", "width", "characters", "hero", "{hero}", "{heor}", "{", "draft", "model", "pocket", "quality", "x", "",
        "(word)", "(table)", "[key]",
    ]
)  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), WORDS, st.just(1))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(WORDS, st.text(max_size=4)), inner, max_size=4)
    ),
    max_leaves=12,
)
SHOT_KEYS = ("id", "prompt", "seconds", "transition", "seed", "negative", "secnds")
BOARD_KEYS = ("title", "model", "seed", "video", "quality", "style", "negative", "identity", "characters", "extra")
LIKELY = {"prompt": st.sampled_from(["a {hero}", "x", "{", 3]), "seconds": st.sampled_from([1, 0.01, -1, "1", 600])}
SHOTS = st.fixed_dictionaries({}, optional=dict.fromkeys(SHOT_KEYS, VALUES) | LIKELY)
BOARDS = st.fixed_dictionaries(
    {"version": st.sampled_from([1, 1, 1, 2, True]), "shots": st.one_of(st.lists(SHOTS, max_size=4), VALUES)},
    optional=dict.fromkeys(BOARD_KEYS, VALUES),
)


def answer(content: bytes, form: Form) -> None:
    try:
        storyboard = parse_storyboard(content, form=form)
    except StoryboardError as error:
        check_problems(error.problems)
    else:
        assert len(storyboard_hash(storyboard)) == 64
        assert all(storyboard.written_prompt(shot) for shot in storyboard.shots)


def check_problems(problems: list[Problem]) -> None:
    assert problems
    assert all(len(str(problem)) < 2000 for problem in problems)


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes_are_answered(content: bytes) -> None:
    answer(content, "yaml")
    answer(content, "json")


@settings(max_examples=150)
@given(st.text(alphabet="{}[]:,-&*!?|>'\"#%@ \n\tab01.~<", max_size=60))
def test_any_marks_are_answered(text: str) -> None:
    answer(text.encode(), "yaml")
    answer(text.encode(), "json")


@settings(max_examples=200)
@given(st.one_of(VALUES, BOARDS))
def test_any_values_are_answered(value: Any) -> None:
    answer(json.dumps(value).encode(), "json")
    answer(yaml.safe_dump(value).encode("utf-8", "surrogatepass"), "yaml")
