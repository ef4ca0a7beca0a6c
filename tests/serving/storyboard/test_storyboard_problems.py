"""Every mistake in a storyboard is told with its path, line, value and the nearest right word, all at once."""

import json
from pathlib import Path
from typing import Literal

import pytest

from serving.documents.document import MAX_VALUES
from serving.errors import Problem, StoryboardError
from serving.settings import MAX_FILE_BYTES, MAX_PROBLEMS, MAX_SHOTS
from serving.storyboard import load_storyboard, parse_storyboard
from serving.storyboard.loading import Form

FORMS: tuple[Form, ...] = ("json", "yaml")
HEAD = "version: 1\ncharacters: {hero: a red ball}\nshots:\n"


def problems_of(text: str | bytes) -> list[Problem]:
    content = text.encode() if isinstance(text, str) else text
    with pytest.raises(StoryboardError) as caught:
        parse_storyboard(content)
    return caught.value.problems


def only_problem(text: str | bytes) -> Problem:
    problems = problems_of(text)
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


def shot(entries: str) -> str:
    return HEAD + "  - {id: a, prompt: x, seconds: 1}\n  - {id: b, prompt: x, seconds: 1}\n".replace(
        "{id: b, prompt: x, seconds: 1}", "{" + entries + "}"
    )


@pytest.mark.parametrize(
    ("entries", "path", "line", "value", "nearest"),
    [
        ("seconds: 1", "shots[1].prompt", 5, None, None),
        ("prompt: x", "shots[1].seconds", 5, None, None),
        ("prompt: x, secnds: 1", "shots[1].secnds", 5, None, "seconds"),
        ("prompt: x, seconds: -1", "shots[1].seconds", 5, "-1", None),
        ("prompt: x, seconds: 0", "shots[1].seconds", 5, "0", None),
        ("prompt: x, seconds: .nan", "shots[1].seconds", 5, "nan", None),
        ("prompt: x, seconds: .inf", "shots[1].seconds", 5, "inf", None),
        ("prompt: x, seconds: 1e9", "shots[1].seconds", 5, "1000000000.0", None),
        ("prompt: x, seconds: " + "9" * 5000, "shots[1].seconds", 5, "inf", None),
        ("prompt: x, seconds: true", "shots[1].seconds", 5, "true", None),
        ("prompt: x, seconds: '3'", "shots[1].seconds", 5, "'3'", None),
        ("prompt: x, seconds:", "shots[1].seconds", 5, "nothing", None),
        ("prompt: 7, seconds: 1", "shots[1].prompt", 5, "7", None),
        ("prompt: ' ', seconds: 1", "shots[1].prompt", 5, "' '", None),
        ("prompt: '{heor} runs', seconds: 1", "shots[1].prompt", 5, None, "hero"),
        ("prompt: 'a { b', seconds: 1", "shots[1].prompt", 5, "'a { b'", None),
        ("prompt: 'a }} b }', seconds: 1", "shots[1].prompt", 5, "'a }} b }'", None),
        ("prompt: x, seconds: 1, transition: disolve", "shots[1].transition", 5, "'disolve'", "{dissolve: 0.5}"),
        ("prompt: x, seconds: 1, transition: contineu", "shots[1].transition", 5, "'contineu'", "continue"),
        ("prompt: x, seconds: 1, transition: {disolve: 1}", "shots[1].transition.disolve", 5, None, "dissolve"),
        ("prompt: x, seconds: 1, transition: {dissolve: 0}", "shots[1].transition.dissolve", 5, "0", None),
        ("prompt: x, seconds: 1, transition: [1]", "shots[1].transition", 5, "a list of 1", None),
        ("prompt: x, seconds: 1, seed: -1", "shots[1].seed", 5, "-1", None),
        ("prompt: x, seconds: 1, seed: 1.5", "shots[1].seed", 5, "1.5", None),
        ("prompt: x, seconds: 1, seed: 3, transition: continue", "shots[1].seed", 5, "3", None),
        ("prompt: x, seconds: 1, id: a", "shots[1].id", 5, "'a'", None),
        ("prompt: x, seconds: 1, id: a b", "shots[1].id", 5, "'a b'", None),
        ("prompt: x, seconds: 1, id: 7", "shots[1].id", 5, "7", None),
        ("prompt: x, seconds: 1, seconds: 2", "shots[1].seconds", 5, None, None),
    ],
)
def test_a_wrong_shot_is_told_with_path_line_value_and_nearest(
    entries: str, path: str, line: int, value: str | None, nearest: str | None
) -> None:
    problem = only_problem(shot(entries))
    assert (problem.path, problem.line, problem.value, problem.nearest) == (path, line, value, nearest)


@pytest.mark.parametrize(
    ("entry", "path", "value", "nearest"),
    [
        ("version: 2", "version", "2", None),
        ("version: '1'", "version", "'1'", None),
        ("version: true", "version", "true", None),
        ("version: 1.0", "version", "1.0", None),
        ("qualty: draft", "qualty", None, "quality"),
        ("quality: drft", "quality", "'drft'", "draft"),
        ("quality: 8", "quality", "8", None),
        ("model: pockt", "model", "'pockt'", "pocket"),
        ("model: ''", "model", "''", None),
        ("seed: 99999999999999999999999", "seed", "1e+23", None),
        ("identity: 1.5", "identity", "1.5", None),
        ("identity: true", "identity", "true", None),
        ("title: [a]", "title", "a list of 1", None),
        ("style:", "style", "nothing", None),
        ("video: 96x64", "video", "'96x64'", None),
        ("video: {width: 96, hieght: 64}", "video.hieght", None, "height"),
        ("video: {width: 8}", "video.width", "8", None),
        ("video: {height: 100000}", "video.height", "100000", None),
        ("video: {fps: 0}", "video.fps", "0", None),
        ("video: {fps: 1000}", "video.fps", "1000", None),
        ("characters: {hero: 3}", "characters.hero", "3", None),
        ("characters: {hero: ''}", "characters.hero", "''", None),
        ("characters: {a b: x}", "characters['a b']", "'a b'", None),
        ("characters: [hero]", "characters", "a list of 1", None),
    ],
)
def test_a_wrong_key_of_the_storyboard_is_told(entry: str, path: str, value: str | None, nearest: str | None) -> None:
    version = "" if entry.startswith("version") else "version: 1\n"
    problem = only_problem(f"{version}shots: [{{prompt: x, seconds: 1}}]\n{entry}\n")
    assert (problem.path, problem.value, problem.nearest) == (path, value, nearest)
    assert problem.line == (2 if entry.startswith("version") else 3)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "empty"),
        ("# nothing\n", None, "empty"),
        ("hello", 1, "a mapping"),
        ("- 1\n", 1, "a mapping"),
        ("version: 1\n", 1, "is missing; it must be a list"),
        ("version: 1\nshots: []\n", 2, "a list of 1 to 1000 shots"),
        ("version: 1\nshots: {a: 1}\n", 2, "a list of 1 to 1000 shots"),
        ("version: 1\nshots:\n\t- a\n", 3, "indent with spaces"),
        ("version: 1\nshots:\n  - {prompt: {hero} runs, seconds: 1}\n", 3, "needs quotes"),
        ("version: 1\ntitle: a: b\n", 2, "quotes"),
        ("version: 1\nshots: [\n", 3, "not YAML"),
        ("version: 1\nshots: !!python/object:os.system []\n", 2, "tags"),
        ("version: 1\nshots: *shots\n", 2, "no anchor"),
        ("version: 1\n---\nversion: 1\n", 2, "one document"),
        ("version: 1\n? [a]\n: 1\n", 2, "a key must be a word"),
        ("version: 1\ntitle: a\x07b\n", 2, "control characters"),
        ("version: 1\ntitle: " + "[" * 500 + "\n", 2, "nested at most"),
    ],
)
def test_a_file_that_is_no_storyboard_is_told_so(text: str, line: int | None, words: str) -> None:
    problem = only_problem(text)
    assert problem.line == line
    assert words in problem.message


def test_bytes_that_are_not_utf8_are_told_with_their_line() -> None:
    problem = only_problem(b"version: 1\ntitle: caf\xe9\n")
    assert (problem.line, problem.value) == (2, "byte 0xE9")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('version: 1\nshots:\n  - {id: a, seconds: 1, prompt: "a\\0b"}\n', "yaml"),
        ('{"version": 1, "shots":\n\n[{"id": "a", "seconds": 1, "prompt": "a\\u0000b"}]}', "json"),
    ],
)
def test_a_character_that_no_database_keeps_is_told(text: str, form: Literal["yaml", "json"]) -> None:
    with pytest.raises(StoryboardError) as caught:
        parse_storyboard(text.encode(), form=form)
    assert [(problem.path, problem.line) for problem in caught.value.problems] == [("shots[0].prompt", 3)]
    assert "U+0000" in str(caught.value)


@pytest.mark.parametrize("key", ["title", "style", "negative", "model", "characters", "prompt", "id", "x-note"])
@pytest.mark.parametrize("character", ["\x1b", "\x07", "\x7f", "\x9b", "\x08", "\x00"])
def test_control_characters_are_refused_wherever_text_stands(key: str, character: str) -> None:
    text = f"a{character}b"
    shot = {"prompt": "x", "seconds": 1, **({key: text} if key in ("prompt", "id") else {})}
    entry = {} if key in shot else {key: {"hero": text} if key == "characters" else text}
    board = {"version": 1, "shots": [shot], **entry}
    for form in FORMS:
        with pytest.raises(StoryboardError, match=f"U\\+{ord(character):04X} is not allowed"):
            parse_storyboard(json.dumps(board).encode(), form=form)


def test_keys_hold_no_control_characters_either() -> None:
    told = [str(problem) for problem in problems_of('version: 1\nshots: [{prompt: x, seconds: 1}]\n"a\\x1bb": 1\n')]
    assert any("U+001B is not allowed" in line for line in told)
    assert not any("\x1b" in line for line in told)


@pytest.mark.parametrize("text", ["two\nlines", "a\ttab", "back\r"])
def test_only_texts_of_several_lines_have_line_breaks(text: str) -> None:
    shots = [{"prompt": text, "seconds": 1, "negative": text}]
    board = {"version": 1, "style": text, "characters": {"a": text}, "shots": shots}
    assert parse_storyboard(json.dumps(board).encode(), form="json").style == text
    for key in ("title", "model"):
        problem = only_problem(json.dumps({**board, key: f"./{text}"}))
        assert (problem.path, problem.message) == (key, "must be one line of text, without tabs")


def test_half_of_a_surrogate_pair_is_named_as_such() -> None:
    content = b'{"version": 1, "title": "a\\ud83cb", "shots": [{"prompt": "x", "seconds": 1}]}'
    for form in FORMS:
        with pytest.raises(StoryboardError) as caught:
            parse_storyboard(content, form=form)
        (problem,) = caught.value.problems
        assert (problem.path, "U+D83C is half of a surrogate pair" in problem.message) == ("title", True)


def test_empty_braces_have_a_hint() -> None:
    assert "write {{}} for the braces themselves" in only_problem(shot("prompt: 'a {} b', seconds: 1")).message


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("version: 1\n<<: 3\n", 2, "must be a mapping or a list of mappings"),
        ("version: 1\n<<: [{}, 3]\n", 2, "must be a mapping or a list of mappings"),
        ("version: 1\n<<: {}\n<<: {}\n", 3, "a second time"),
        ("a: &a {" + ", ".join(f"k{i}: 1" for i in range(900)) + "}\nb: [" + "{<<: *a}, " * 900 + "]\n", 2, "at most"),
    ],
    ids=["number", "list", "twice", "bomb"],
)  # fmt: skip
def test_a_merge_that_means_nothing_is_told(text: str, line: int, words: str) -> None:
    problem = only_problem(text)
    assert (problem.line, words in problem.message) == (line, True)


def test_an_alias_bomb_is_refused_before_it_is_expanded() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert str(MAX_VALUES) in only_problem("\n".join(levels)).message


def test_an_alias_is_welcome_where_it_saves_words() -> None:
    board = parse_storyboard(
        b"version: 1\nshots:\n - {prompt: &p a red ball, seconds: 1}\n - {prompt: *p, seconds: 2}\n"
    )
    assert board.shots[1].prompt == "a red ball"


def test_too_many_shots_are_refused() -> None:
    problem = only_problem(HEAD + " - {prompt: x, seconds: 1}\n" * (MAX_SHOTS + 1))
    assert (problem.path, problem.value) == ("shots", f"a list of {MAX_SHOTS + 1}")


def test_more_values_than_any_storyboard_holds_are_refused_on_the_way() -> None:
    assert str(MAX_VALUES) in only_problem("shots:\n" + "- a\n" * (MAX_VALUES + 5)).message


def test_a_file_beyond_the_limit_is_refused_unread() -> None:
    assert "KiB" in only_problem(b" " * (MAX_FILE_BYTES + 1)).message


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    text = HEAD + (
        "  - {prompt: '{heor} runs', secnds: 3}\n"
        "  - prompt: x\n    seconds: -2\n    transition: {dissolve: 1}\n"
        "  - {seconds: 1, seed: 4, transition: continue}\n"
        "qualty: draft\nmodel: pockt\n"
    )
    paths = [problem.path for problem in problems_of(text)]
    assert paths == [
        "shots[0].prompt", "shots[0].secnds", "shots[1].seconds", "shots[2].seed", "shots[2].prompt", "qualty", "model",
    ]  # fmt: skip


def test_a_misspelt_key_is_told_once_and_not_again_as_missing() -> None:
    assert only_problem(shot("prompt: x, secnds: 1")).path == "shots[1].secnds"


def test_very_many_problems_are_cut_short() -> None:
    problems = problems_of(HEAD + "  - {prompt: x, seconds: -1}\n" * 300)
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1].message == "and more problems like these"


@pytest.mark.parametrize("transition", ["continue", "{dissolve: 1}"])
def test_the_first_shot_cannot_follow_another(transition: str) -> None:
    problem = only_problem(f"version: 1\nshots:\n  - {{prompt: x, seconds: 1, transition: {transition}}}\n")
    assert problem.path == "shots[0].transition"


def test_a_default_id_that_another_shot_has_taken_is_told() -> None:
    text = "version: 1\nshots:\n  - {id: shot-2, prompt: x, seconds: 1}\n  - {prompt: x, seconds: 1}\n"
    assert only_problem(text).path == "shots[1].id"


def test_a_film_may_not_be_longer_than_its_bound() -> None:
    problem = only_problem(HEAD + "  - {prompt: x, seconds: 600}\n" * 7)
    assert (problem.path, problem.value) == ("shots", "4200 seconds")


def test_a_prompt_may_not_grow_beyond_its_bound_by_its_characters() -> None:
    text = f"version: 1\ncharacters: {{h: {'x' * 500}}}\nshots: [{{prompt: '{'{h}' * 5}', seconds: 1}}]\n"
    assert "2500 characters long" in only_problem(text).message


def test_long_values_and_keys_are_shown_short() -> None:
    problem = only_problem(shot(f"prompt: {'x' * 3000}, seconds: 1"))
    assert problem.value is not None
    assert problem.value.endswith("..., 3000 characters")
    assert all(len(str(problem)) < 400 for problem in problems_of(f"version: 1\n? {'k' * 5000}\n: 1\n"))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "empty"),
        ("{", 1, "ends too early"),
        ('{"a": 1,}', 1, "cannot stand here"),
        ('{"version": 1,\n "seconds": NaN}', 2, "cannot stand here"),
        ('{"version": 01}', 1, "cannot stand here"),
        ('{"a" 1}', 1, "cannot stand here"),
        ("[1] 2", 1, "something follows it"),
        ("[" * 100_000, 1, "nested at most"),
        ('{"version": 1, "title": "\t"}', 1, "cannot stand here"),
    ],
)
def test_wrong_json_is_told_with_its_line(text: str, line: int | None, words: str) -> None:
    with pytest.raises(StoryboardError) as caught:
        parse_storyboard(text.encode(), form="json")
    (problem,) = caught.value.problems
    assert problem.line == line
    assert words in problem.message


def test_problems_in_json_have_lines_and_repeated_keys_are_told() -> None:
    text = '{"version": 1,\n "version": 1,\n "shots": [\n  {"prompt": "x\\ud800",\n   "seconds": 1e999}]}'
    with pytest.raises(StoryboardError) as caught:
        parse_storyboard(text.encode(), form="json")
    told = [(problem.path, problem.line) for problem in caught.value.problems]
    assert told == [("version", 2), ("shots[0].prompt", 4), ("shots[0].seconds", 5)]


@pytest.mark.parametrize("name", ["missing.yaml", "folder", "nul\0.yaml", "x" * 300])
def test_a_path_that_is_no_file_is_told_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoryboardError):
        load_storyboard(tmp_path / name)
