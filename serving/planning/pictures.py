"""Where the pictures of a storyboard land: from keys of shots to latents of takes, and what a model refuses. Pure.

A picture becomes the latent whose last frame is nearest to the time that was asked for; a causal model keeps that frame
best, and shows the picture in the other frames of the latent too. The first latent of a take is one frame.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from serving.documents.places import Place, show
from serving.errors import Problem, StoryboardError
from serving.models.registry import models_that_take
from serving.planning.plan import PicturePlace, ShotPlan, TakePicture
from serving.storyboard.characters import names_in
from serving.storyboard.schema import Character, Storyboard, asset_of
from sharding.capabilities import PictureSupport
from sharding.spans import Grid

MAX_TAKE_REFERENCES = 8
"""Pictures of characters that a take may have: every call computes each as one more latent."""

Ability = Literal["first", "last", "keyframes", "references", "strength"]

_WORDS: dict[Ability, str] = {
    "first": "a first picture (image)",
    "last": "a last picture (last_image)",
    "keyframes": "pictures inside a take (keyframes, or a picture of a shot that continues another)",
    "references": "pictures of characters",
    "strength": "a strength below 1",
}


@dataclass(frozen=True)
class _Wanted:
    """A picture of a shot before it meets the grid."""

    place: Place
    kind: PicturePlace
    shot: str
    asset: str
    frame: int
    """Of the take."""
    strength: float = 1.0
    opens: bool = False
    """It is at the first frame of the take's first shot."""
    closes: bool = False
    """It is at the last frame of the take's last shot."""


class Pictures:
    """The pictures of a storyboard, for a model that takes what `support` says. Raises StoryboardError for those that
    are no assets yet, and for pictures that the model does not take, all at once."""

    def __init__(self, storyboard: Storyboard, support: PictureSupport, grid: Grid, *, model_name: str) -> None:
        self._storyboard = storyboard
        self._support = support
        self._grid = grid
        self._model_name = model_name
        self._index = {shot.id: k for k, shot in enumerate(storyboard.shots)}
        self._first_frames = self._characters_as_first_frames()
        if unsent := [
            self._unsent(place, picture) for place, picture in storyboard.pictures() if not asset_of(picture)
        ]:
            raise StoryboardError(unsent)
        if refused := list(self._refused_characters()):
            raise StoryboardError(refused)

    def of_take(
        self, shots: Sequence[ShotPlan], *, head: int, latents: int, fps: int
    ) -> tuple[tuple[TakePicture, ...], list[Problem]]:
        """The pictures of a take of these shots, by latent, and what is wrong with them."""
        problems: list[Problem] = []
        landed: dict[int, tuple[_Wanted, TakePicture]] = {}
        for wanted in self._wanted(shots, head, fps):
            if (refusal := self._refusal(wanted)) is not None:
                problems.append(refusal)
                continue
            latent = self._latent_for(wanted, latents)
            if latent in landed:
                other = self._storyboard.lines.problem(landed[latent][0].place, "").path
                message = f"lands in the same latent as {other}, {self._grid.frames_per_latent} frames; set them apart"
                problems.append(self._storyboard.lines.problem(wanted.place, message))
                continue
            real = self._grid.frames_per_latent * latent
            picture = TakePicture(
                wanted.asset, wanted.kind, wanted.shot, latent, wanted.strength, frame=wanted.frame, real_frame=real
            )
            landed[latent] = wanted, picture
        ends = ("image", "first", self._support.needs_first), ("last_image", "last", self._support.needs_last)
        for key, place, needed in ends:
            shot = shots[0 if place == "first" else -1]
            if needed and not any(
                p.place == place and p.shot == shot.id for p in (pair[1] for pair in landed.values())
            ):
                message = f"is missing; {self._model_name} makes no take without one"
                problems.append(self._storyboard.lines.problem(("shots", self._index[shot.id], key), message))
        return tuple(landed[latent][1] for latent in sorted(landed)), problems

    def references(self, shots: Sequence[ShotPlan]) -> tuple[tuple[str, ...], list[Problem]]:
        """Assets that show the characters of a take of these shots, in the order in which prompts name them, and what
        is wrong with them."""
        names = [name for shot in shots for name in names_in(self._storyboard.shots[self._index[shot.id]].prompt)]
        assets = [
            _asset(image)
            for name in dict.fromkeys(names)
            if isinstance(character := self._storyboard.characters[name], Character) and character.as_ == "reference"
            for image in character.images
        ]
        found = tuple(dict.fromkeys(assets))
        if len(found) <= MAX_TAKE_REFERENCES:
            return found, []
        message = f"the take names characters with {len(found)} pictures in all; at most {MAX_TAKE_REFERENCES}"
        return (), [self._storyboard.lines.problem(("shots", self._index[shots[0].id], "prompt"), message)]

    # ------------------------------------------------------------------------------------------------ inner

    def _wanted(self, shots: Sequence[ShotPlan], head: int, fps: int) -> Iterator[_Wanted]:
        start = head
        for k, planned in enumerate(shots):
            index = self._index[planned.id]
            shot = self._storyboard.shots[index]
            last = start + planned.frames - 1
            first, last_of_take = k == 0, k == len(shots) - 1
            place: Place = ("shots", index, "image")
            image = shot.image
            if image is None and index in self._first_frames:
                image, place = self._first_frames[index]
            if image is not None:
                yield _Wanted(place, "first", shot.id, _asset(image), start, opens=first)
            for at, keyframe in enumerate(shot.keyframes):
                place = ("shots", index, "keyframes", at)
                frame = min(last, start + int(keyframe.at * fps + 0.5))
                yield _Wanted(place, "keyframe", shot.id, _asset(keyframe.image), frame, strength=keyframe.strength)
            if shot.last_image is not None:
                place = ("shots", index, "last_image")
                yield _Wanted(place, "last", shot.id, _asset(shot.last_image), last, closes=last_of_take)
            start += planned.frames

    def _latent_for(self, wanted: _Wanted, latents: int) -> int:
        if not self._support.keyframes:  # the ends of the take, whatever handles lie before and after its shots
            if wanted.opens:
                return 0
            if wanted.closes:
                return latents - 1
        per_latent = self._grid.frames_per_latent
        return min(latents - 1, (wanted.frame + per_latent // 2) // per_latent)

    def _refusal(self, wanted: _Wanted) -> Problem | None:
        support = self._support
        needs: Ability
        if wanted.opens:
            needs, able = "first", support.first
        elif wanted.closes:
            needs, able = "last", support.last
        else:
            needs, able = "keyframes", support.keyframes or (wanted.kind == "first" and support.sections)
        if able and wanted.strength < 1:
            needs, able = "strength", support.strength
        return None if able else self._lacks(wanted.place, needs)

    def _refused_characters(self) -> Iterator[Problem]:
        if self._support.references:
            return
        named = {name for shot in self._storyboard.shots for name in names_in(shot.prompt)}
        for name, character in self._storyboard.characters.items():
            if isinstance(character, Character) and character.as_ == "reference" and name in named:
                hint = "; as: first_frame would begin the first shot that names it with its picture"
                yield self._lacks(("characters", name, "images"), "references", hint if self._support.first else "")

    def _lacks(self, place: Place, needs: Ability, hint: str = "") -> Problem:
        able = [words for name, words in _WORDS.items() if getattr(self._support, name)]
        takes = f"takes {', '.join(able)}, and not" if able else "takes words alone, and not"
        others = ", ".join(models_that_take(needs))
        message = f"{self._model_name} {takes} {_WORDS[needs]}; models that do: {others}{hint}"
        return self._storyboard.lines.problem(place, message)

    def _unsent(self, place: Place, picture: str) -> Problem:
        message = "is not an asset: send the picture first (POST /v1/assets) and write its sha256:... here"
        return self._storyboard.lines.problem(place, message, value=show(picture))

    def _characters_as_first_frames(self) -> dict[int, tuple[str, Place]]:
        """Index of a shot -> the picture of a character that it begins with, and its place."""
        found: dict[int, tuple[str, Place]] = {}
        for name, character in self._storyboard.characters.items():
            if not isinstance(character, Character) or character.as_ != "first_frame":
                continue
            shots = (k for k, shot in enumerate(self._storyboard.shots) if name in names_in(shot.prompt))
            if (first := next(shots, None)) is not None:
                found.setdefault(first, (character.images[0], ("characters", name, "images", 0)))
        return found


def _asset(picture: str) -> str:
    """The sha256 of a picture, every one of which is an asset by now."""
    return asset_of(picture) or ""
