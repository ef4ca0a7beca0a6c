"""What the keys of a storyboard mean together: characters, ids, transitions, totals.

The rules read the plain values of the file and skip whatever has the wrong type, so that they find their problems
beside those of the schema, not after them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from cluster.contract.plain_text import is_control_character
from serving.documents.places import Lines, Place, find_nearest, show
from serving.errors import Problem
from serving.models.registry import POCKET, nearest_model
from serving.settings import MAX_CHARACTERS, MAX_PROBLEMS, MAX_PROMPT_CHARS, MAX_SHOTS, MAX_TITLE_CHARS
from serving.storyboard.characters import has_stray_brace, names_in, write_out
from serving.storyboard.schema import add_style, default_shot_id

MAX_FILM_S = 3600.0
"""Seconds of one film."""


_Raw = Mapping[str, object]


@dataclass(frozen=True)
class _Draft:
    """The parts of a file that have the shape of a storyboard, by index in `shots`."""

    root: _Raw
    shots: Mapping[int, _Raw]
    lines: Lines

    @cached_property
    def characters(self) -> dict[str, str]:
        """Name -> description, if both are text."""
        raw = self.root.get("characters")
        texts = {k: _description(v) for k, v in raw.items()} if isinstance(raw, Mapping) else {}
        return {name: text for name, text in texts.items() if text is not None}

    def text(self, key: str) -> str:
        """The text at a key of the root, or nothing."""
        value = self.root.get(key)
        return value if isinstance(value, str) else ""


def _description(character: object) -> str | None:
    text = character.get("text") if isinstance(character, Mapping) else character
    return text if isinstance(text, str) else None


def check_rules(value: object, lines: Lines) -> list[Problem]:
    """The problems that the schema does not see; of each rule at most one more than are ever told."""
    if not isinstance(value, Mapping):
        return []
    raw = value.get("shots")
    shots = raw[:MAX_SHOTS] if isinstance(raw, list) else []
    draft = _Draft(value, {i: shot for i, shot in enumerate(shots) if isinstance(shot, Mapping)}, lines)
    return [problem for rule in _RULES for problem in islice(rule(draft), MAX_PROBLEMS + 1)]


def _model_is_known(draft: _Draft) -> Iterator[Problem]:
    name = draft.text("model")
    if name and name != POCKET and "/" not in name:
        message = f"there is no such model; {POCKET} ships with Longtake, "
        message += "others are given as a folder (./my-model) or a hub id (organisation/model)"
        yield draft.lines.problem(("model",), message, value=show(name), nearest=nearest_model(name))


def _names_are_one_line(draft: _Draft) -> Iterator[Problem]:
    for key in ("title", "model"):
        if any(is_control_character(letter) for letter in draft.text(key)[: 2 * MAX_TITLE_CHARS]):
            yield draft.lines.problem((key,), "must be one line of text, without tabs", value=show(draft.text(key)))


def _characters_are_described(draft: _Draft) -> Iterator[Problem]:
    characters = draft.characters
    for index, shot in draft.shots.items():
        prompt, place = shot.get("prompt"), ("shots", index, "prompt")
        if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT_CHARS:
            continue
        unknown = [name for name in dict.fromkeys(names_in(prompt)) if name not in characters]
        for name in unknown:
            yield _unknown_character(name, place, draft)
        if has_stray_brace(prompt):
            message = "a brace must stand around the name of a character; write {{ or }} for the brace itself"
            yield draft.lines.problem(place, message, value=show(prompt))
        elif not unknown:
            yield from _written_prompt_fits(prompt, place, draft)


def _unknown_character(name: str, place: Place, draft: _Draft) -> Problem:
    if not name:
        return draft.lines.problem(place, "{} names no character; write {{}} for the braces themselves")
    known = list(draft.characters)[:MAX_CHARACTERS]
    message = f"there is no character {show(name)}; "
    message += f"characters are {', '.join(known[:20])}" if known else "the storyboard describes no characters"
    return draft.lines.problem(place, message, nearest=find_nearest(name, known))


def _written_prompt_fits(prompt: str, place: Place, draft: _Draft) -> Iterator[Problem]:
    written = add_style(write_out(prompt, draft.characters), draft.text("style"))
    if len(written) > MAX_PROMPT_CHARS:
        message = f"is {len(written)} characters long with its characters and the style written out; "
        yield draft.lines.problem(place, message + f"at most {MAX_PROMPT_CHARS} are allowed")


def _ids_differ(draft: _Draft) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, shot in draft.shots.items():
        shot_id = shot.get("id") or default_shot_id(index)
        if not isinstance(shot_id, str):
            continue
        if shot_id in first:
            message = f"must differ from every other shot's id; shots[{first[shot_id]}] has the same"
            yield draft.lines.problem(("shots", index, "id"), message, value=show(shot_id))
        first.setdefault(shot_id, index)


def _first_shot_begins_with_a_cut(draft: _Draft) -> Iterator[Problem]:
    transition = draft.shots.get(0, {}).get("transition", "cut")
    if transition == "continue" or isinstance(transition, Mapping):
        message = "must be cut (or left out) on the first shot: there is no shot before it"
        shown = show(transition) if isinstance(transition, str) else "a dissolve"
        yield draft.lines.problem(("shots", 0, "transition"), message, value=shown)


def _seeds_begin_takes(draft: _Draft) -> Iterator[Problem]:
    for index, shot in draft.shots.items():
        if shot.get("transition") == "continue" and shot.get("seed") is not None:
            message = "is not allowed on a shot that continues: it shares the noise of the shot before; "
            message += "set the seed there, or begin with a cut"
            yield draft.lines.problem(("shots", index, "seed"), message, value=show(shot["seed"]))


def _keyframes_lie_in_their_shot(draft: _Draft) -> Iterator[Problem]:
    for index, shot in draft.shots.items():
        keyframes, seconds = shot.get("keyframes"), _seconds(shot)
        for k, keyframe in enumerate(keyframes if isinstance(keyframes, list) else []):
            at = keyframe.get("at") if isinstance(keyframe, Mapping) else None
            if isinstance(at, int | float) and not isinstance(at, bool) and seconds is not None and at > seconds:
                message = f"must lie within its shot, which is {seconds:g} seconds long"
                yield draft.lines.problem(("shots", index, "keyframes", k, "at"), message, value=show(at))


def _film_is_not_too_long(draft: _Draft) -> Iterator[Problem]:
    lengths = [s for shot in draft.shots.values() if (s := _seconds(shot)) is not None]
    if sum(lengths) > MAX_FILM_S and max(lengths) <= MAX_FILM_S:
        message = f"together must be at most {MAX_FILM_S:g} seconds long"
        yield draft.lines.problem(("shots",), message, value=f"{sum(lengths):g} seconds")


def _seconds(shot: _Raw) -> float | None:
    value = shot.get("seconds")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


_RULES: tuple[Callable[[_Draft], Iterator[Problem]], ...] = (
    _model_is_known,
    _names_are_one_line,
    _characters_are_described,
    _ids_differ,
    _first_shot_begins_with_a_cut,
    _seeds_begin_takes,
    _keyframes_lie_in_their_shot,
    _film_is_not_too_long,
)
