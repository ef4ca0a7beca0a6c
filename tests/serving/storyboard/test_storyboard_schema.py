"""A storyboard means the same in YAML and JSON, has an identity, and agrees with the JSON Schema that is published."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from serving.errors import StoryboardError
from serving.models.pocket.world import vocabulary
from serving.storyboard import (
    Dissolve,
    load_storyboard,
    parse_storyboard,
    storyboard_hash,
    storyboard_schema,
    write_yaml,
)
from serving.storyboard.schema import add_style

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))
SHOT = {"prompt": "a red ball", "seconds": 1}


def as_json(content: object) -> bytes:
    return json.dumps(content).encode()


def test_the_harbour_reads_as_the_documentation_says() -> None:
    board = load_storyboard(next(path for path in EXAMPLES if path.name == "harbour.yaml"))
    assert [shot.id for shot in board.shots] == ["open", "turn", "dusk"]
    assert [shot.transition for shot in board.shots] == ["cut", "continue", Dissolve(dissolve=0.5)]
    assert board.written_prompt(board.shots[0]) == "a red ball moving right, day"
    assert add_style(board.written_prompt(board.shots[0]), board.style) == "a red ball moving right, day, soft light"
    assert (board.shots[2].seed, board.shots[2].negative, board.negative) == (9, "text", "blurry")
    assert board.lines.of(("shots", 1, "seconds")) == 14


def test_what_is_left_out_has_its_default() -> None:
    board = parse_storyboard(as_json({"version": 1, "shots": [SHOT, SHOT]}), form="json")
    assert (board.title, board.model, board.seed, board.quality) == ("Untitled", "pocket", 0, "standard")
    assert (board.style, board.negative, board.identity, board.characters) == ("", "", 0.0, {})
    assert (board.video.width, board.video.height, board.video.fps) == (None, None, None)
    assert [shot.id for shot in board.shots] == ["shot-1", "shot-2"]
    assert [shot.transition for shot in board.shots] == ["cut", "cut"]


@pytest.mark.parametrize(
    ("prompt", "written"),
    [
        ("{hero} runs", "a red ball runs"),
        ("{ hero } and {hero}", "a red ball and a red ball"),
        ("{{hero}}", "{hero}"),
        ("{{{hero}}}", "{a red ball}"),
        ("}}{{", "}{"),
        ("plain", "plain"),
    ],
)
def test_characters_are_written_out_and_doubled_braces_are_braces(prompt: str, written: str) -> None:
    content = {"version": 1, "characters": {"hero": "a red ball"}, "shots": [{**SHOT, "prompt": prompt}]}
    board = parse_storyboard(as_json(content), form="json")
    assert board.written_prompt(board.shots[0]) == written


def test_a_description_is_taken_literally() -> None:
    content = {"version": 1, "characters": {"a": "{b} }", "b": "x"}, "shots": [{**SHOT, "prompt": "{a}"}]}
    board = parse_storyboard(as_json(content), form="json")
    assert board.written_prompt(board.shots[0]) == "{b} }"


@pytest.mark.parametrize(
    ("text", "style"),
    [("no", "no"), ("1:30", "1:30"), ("2026-01-02", "2026-01-02"), ("'7'", "7"), ("|\n  a\n  b", "a\nb\n")],
)
def test_plain_words_of_yaml_stay_words(text: str, style: str) -> None:
    board = parse_storyboard(f"version: 1\nshots: [{{prompt: x, seconds: 1}}]\nstyle: {text}\n".encode())
    assert board.style == style


@pytest.mark.parametrize(
    ("text", "seconds"), [("2", 2.0), ("2.5", 2.5), ("+2.5", 2.5), (".5", 0.5), ("1e1", 10.0), ("2.", 2.0)]
)
def test_numbers_of_yaml_are_numbers(text: str, seconds: float) -> None:
    board = parse_storyboard(f"version: 1\nshots: [{{prompt: x, seconds: {text}}}]\n".encode())
    assert board.shots[0].seconds == seconds


def test_a_byte_order_mark_and_windows_lines_are_read_past() -> None:
    board = parse_storyboard("\ufeffversion: 1\r\nshots:\r\n  - {prompt: é, seconds: 1}\r\n".encode())
    assert board.shots[0].prompt == "é"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_the_same_storyboard_in_json(path: Path) -> None:
    board = load_storyboard(path)
    again = parse_storyboard(as_json(yaml.safe_load(path.read_text())), form="json")
    assert again == board
    assert storyboard_hash(again) == storyboard_hash(board)


def test_the_hash_ignores_how_it_was_written_and_sees_every_key() -> None:
    def hash_of(content: dict[str, Any]) -> str:
        return storyboard_hash(parse_storyboard(as_json(content), form="json"))

    plain = {"version": 1, "shots": [SHOT]}
    assert hash_of(plain) == hash_of({"shots": [{"seconds": 1.0, "prompt": "a red ball"}], "version": 1, "seed": 0})
    variants: list[dict[str, Any]] = [
        {"seed": 1},
        {"title": "x"},
        {"style": "x"},
        {"identity": 0.5},
        {"shots": [{**SHOT, "seconds": 1.01}]},
    ]
    assert len({hash_of(plain), *(hash_of({**plain, **variant}) for variant in variants)}) == len(variants) + 1


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_by_the_schema_names_its_shots_and_uses_pockets_words(path: Path) -> None:
    raw = yaml.safe_load(path.read_text())
    jsonschema.Draft202012Validator(storyboard_schema()).validate(raw)
    assert all("id" in shot for shot in raw["shots"])
    board = load_storyboard(path)
    prompts = [*(board.written_prompt(shot) for shot in board.shots), board.style, board.negative]
    words = {word for prompt in prompts for word in prompt.replace(",", " ").split()}
    assert words <= set(vocabulary())


def test_the_demo_has_every_kind_of_transition_and_the_length_that_was_promised() -> None:
    board = load_storyboard(next(path for path in EXAMPLES if path.name == "demo.yaml"))
    kinds = {"dissolve" if isinstance(shot.transition, Dissolve) else shot.transition for shot in board.shots}
    assert kinds == {"cut", "continue", "dissolve"}
    assert len(board.shots) >= 5
    assert 22 <= sum(shot.seconds for shot in board.shots) <= 26


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"version": 1},
        {"version": 2, "shots": [SHOT]},
        {"version": 1, "shots": []},
        {"version": 1, "shots": [SHOT], "fps": 3},
        {"version": 1, "shots": [{**SHOT, "secnds": 1}]},
        {"version": 1, "shots": [{**SHOT, "seconds": 0}]},
        {"version": 1, "shots": [{**SHOT, "seconds": True}]},
        {"version": 1, "shots": [{**SHOT, "prompt": " "}]},
        {"version": 1, "shots": [{**SHOT, "transition": "fade"}]},
        {"version": 1, "shots": [{**SHOT, "transition": {"dissolve": 0}}]},
        {"version": 1, "shots": [{**SHOT, "id": "a b"}]},
        {"version": 1, "shots": [SHOT], "video": {"width": 3}},
        {"version": 1, "shots": [SHOT], "characters": {"a b": "x"}},
        {"version": 1, "shots": [SHOT], "seed": -1},
    ],
)
def test_schema_and_parser_refuse_the_same(content: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(storyboard_schema()).validate(content)
    with pytest.raises(StoryboardError):
        parse_storyboard(as_json(content), form="json")


def test_the_schema_is_a_schema_and_closes_every_mapping() -> None:
    schema = storyboard_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["required"] == ["version", "shots"]
    parts = [schema, *schema["$defs"].values()]
    assert all(part["additionalProperties"] is False for part in parts)
    assert all("description" in field for part in parts for field in part["properties"].values())


def test_json_is_read_as_json_also_where_yaml_is_expected() -> None:
    board = {"version": 1, "title": "Fête 🎉 / \\", "shots": [{"prompt": 'a "red" ball', "seconds": 1}]}
    escaped = json.dumps(board, indent="\t").replace("/", "\\/")
    assert "\\ud83c" in escaped
    read = parse_storyboard(escaped.encode())
    assert (read.title, read.shots[0].prompt) == (board["title"], 'a "red" ball')


def test_surrogate_pairs_in_the_quotes_of_yaml_are_one_character() -> None:
    board = parse_storyboard(b'version: 1\ntitle: "\\ud83c\\udf89"\nshots: [{prompt: x, seconds: 1}]\n')
    assert board.title == "🎉"


MERGING = b"""\
version: 1
x-defaults: &defaults {seconds: 2, negative: blur, x-by: ada}
x-others: &others {seconds: 3, seed: 7}
shots:
  - {<<: *defaults, prompt: a red ball}
  - {prompt: a blue box, <<: [*defaults, *others], negative: noise, x-note: the second}
"""


def test_merge_keys_fill_in_what_a_mapping_lacks() -> None:
    board = parse_storyboard(MERGING)
    assert [(shot.seconds, shot.negative, shot.seed) for shot in board.shots] == [(2, "blur", None), (2, "noise", 7)]


def test_keys_of_a_users_own_mean_nothing_and_are_kept() -> None:
    board = parse_storyboard(MERGING)
    plain = parse_storyboard(
        b"version: 1\nshots: [{prompt: a red ball, seconds: 2, negative: blur},"
        b" {prompt: a blue box, seconds: 2, negative: noise, seed: 7}]"
    )
    assert storyboard_hash(board) == storyboard_hash(plain)
    written = board.model_dump(mode="json")
    assert written["x-defaults"] == {"seconds": 2, "negative": "blur", "x-by": "ada"}
    assert [{key: shot[key] for key in shot if key.startswith("x-")} for shot in written["shots"]] == [
        {"x-by": "ada"}, {"x-by": "ada", "x-note": "the second"},
    ]  # fmt: skip
    assert parse_storyboard(as_json(written), form="json") == board
    assert parse_storyboard(write_yaml(board).encode()) == board
    jsonschema.Draft202012Validator(storyboard_schema()).validate(written)


def test_a_character_may_have_a_name_like_a_users_own_key() -> None:
    named = parse_storyboard(
        b"version: 1\ncharacters: {x-ray: a skeleton}\nshots: [{prompt: 'an {x-ray}', seconds: 1}]"
    )
    assert named.written_prompt(named.shots[0]) == "an a skeleton"
