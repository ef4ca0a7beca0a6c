"""Pictures in storyboards: what may be written, how a mistake is told, and that older files mean what they meant."""

from typing import Any

import pytest

from serving.errors import StoryboardError
from serving.storyboard import parse_storyboard, storyboard_hash
from serving.storyboard.schema import Storyboard, asset_of, storyboard_schema

PICTURES = b"""
version: 1
video: {fit: contain, background: "#1a2b3c"}
characters:
  hero: {text: a red ball, images: [hero.png, side.png], as: first_frame}
  dog: a small dog
shots:
  - id: open
    prompt: "{hero} meets {dog}"
    seconds: 6
    image: open.png
    last_image: close.png
    keyframes: [{at: 2.5, image: mid.png, strength: 0.5}, {at: 4, image: open.png}]
"""


def problems(content: bytes) -> list[str]:
    with pytest.raises(StoryboardError) as caught:
        parse_storyboard(content)
    return [str(problem) for problem in caught.value.problems]


def test_every_picture_is_found_with_its_place() -> None:
    board = parse_storyboard(PICTURES)
    assert list(board.pictures()) == [
        (("characters", "hero", "images", 0), "hero.png"),
        (("characters", "hero", "images", 1), "side.png"),
        (("shots", 0, "image"), "open.png"),
        (("shots", 0, "last_image"), "close.png"),
        (("shots", 0, "keyframes", 0, "image"), "mid.png"),
        (("shots", 0, "keyframes", 1, "image"), "open.png"),
    ]
    assert board.written_prompt(board.shots[0]) == "a red ball meets a small dog"


def test_pictures_can_be_called_otherwise_and_nothing_else_changes() -> None:
    board = parse_storyboard(PICTURES)
    names = {picture: f"sha256:{k:064x}" for k, (_, picture) in enumerate(board.pictures())}
    renamed = board.with_pictures(names)
    assert [picture for _, picture in renamed.pictures()] == [names[picture] for _, picture in board.pictures()]
    assert renamed.with_pictures({new: old for old, new in names.items()}) == board
    assert storyboard_hash(renamed) != storyboard_hash(board)


def test_a_storyboard_is_written_as_it_was_read() -> None:
    board = parse_storyboard(PICTURES)
    written = board.model_dump(mode="json")
    assert Storyboard.model_validate(written) == board
    assert written["characters"]["hero"]["as"] == "first_frame"


def test_a_storyboard_without_pictures_keeps_the_form_and_hash_that_it_had_before_there_were_any() -> None:
    board = parse_storyboard(b"version: 1\nshots: [{prompt: a, seconds: 1}]")
    assert storyboard_hash(board) == "dab51c4dc974af880ee435e5d1e2b835129794c18fc011a8df7638888268bb85"
    written = board.model_dump(mode="json")
    assert written["shots"][0].keys() == {"id", "prompt", "seconds", "transition", "seed", "negative"}
    assert written["video"].keys() == {"width", "height", "fps"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("image: ''", "shots[0].image: must be the path of a PNG, JPEG, WebP or AVIF picture"),
        ("image: 7", "shots[0].image: must be the path"),
        ("last_imag: a.png", "is not a key that is known here"),
        ("keyframes: [{at: 2.5, image: a.png}]", "must lie within its shot, which is 2 seconds long (got 2.5)"),
        ("keyframes: [{at: -1, image: a.png}]", "must be a number of seconds from the start of the shot"),
        ("keyframes: [{at: 1}]", "keyframes[0].image: is missing; it must be the path"),
        ("keyframes: [{at: 1, image: a.png, strength: 0}]", "strength: must be a number above 0, at most 1 (got 0)"),
        ("keyframes: [a.png]", "keyframes[0]: must be a mapping with at least at and image (got 'a.png')"),
    ],
)
def test_a_mistake_in_a_shot_is_told_with_its_place_and_what_is_allowed(line: str, said: str) -> None:
    content = f"version: 1\nshots:\n  - prompt: a\n    seconds: 2\n    {line}\n".encode()
    (told,) = problems(content)
    assert told.startswith("line 5: ")
    assert said in told


@pytest.mark.parametrize(
    ("character", "said"),
    [
        ("{text: a ball, images: []}", "characters.hero.images: must be a list of 1 to 4 pictures (got a list of 0)"),
        ("{text: 5, images: [a.png]}", "characters.hero.text: must be text of 1 to 500 characters (got 5)"),
        ("{text: a, images: [a.png, 3]}", "characters.hero.images[1]: must be the path"),
        ("{text: a, images: [a.png], as: firstframe}", "did you mean 'first_frame'?"),
        ("{text: a, images: [a.png], az: x}", "known are text, images, as"),
        ("[a]", "characters.hero: must be text of 1 to 500 characters, or a mapping of text and images"),
    ],
)
def test_a_mistake_in_a_character_is_told_with_its_place_and_what_is_allowed(character: str, said: str) -> None:
    content = f"version: 1\ncharacters:\n  hero: {character}\nshots: [{{prompt: a, seconds: 1}}]\n".encode()
    assert any(said in told for told in problems(content)), problems(content)


def test_a_wrong_fit_and_colour_are_told() -> None:
    told = problems(b"version: 1\nvideo: {fit: stretch, background: red}\nshots: [{prompt: a, seconds: 1}]")
    assert "video.fit: must be cover or contain (got 'stretch')" in told[0]
    assert "video.background: must be a colour such as" in told[1]


def test_the_schema_describes_the_new_keys() -> None:
    schema: dict[str, Any] = storyboard_schema()
    assert {"image", "last_image", "keyframes"} <= schema["$defs"]["Shot"]["properties"].keys()
    assert {"text", "images", "as"} <= schema["$defs"]["Character"]["properties"].keys()
    assert schema["$defs"]["Keyframe"]["required"] == ["at", "image"]


@pytest.mark.parametrize("text", ["sha256:" + "a" * 63, "sha256:" + "A" * 64, "md5:" + "a" * 64, "a.png", ""])
def test_only_a_whole_lower_case_hash_is_an_asset(text: str) -> None:
    assert asset_of(text) is None
    assert asset_of("sha256:" + "a" * 64) == "a" * 64
