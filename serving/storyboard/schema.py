"""The keys of storyboard version 1, what each accepts, and its identity. What keys mean together is in rules.py.

Every field carries `Allowed`: what it accepts, in a person's words. Messages and the published JSON Schema both come
from here, so they cannot disagree.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import to_jsonable_python

from serving.documents.places import Lines, Place
from serving.pictures.fitting import COLOUR, Fit, Fitting
from serving.settings import (
    MAX_CHARACTERS,
    MAX_MODEL_CHARS,
    MAX_PROMPT_CHARS,
    MAX_SEED,
    MAX_SHOT_S,
    MAX_SHOTS,
    MAX_TITLE_CHARS,
)
from serving.storyboard.characters import write_out
from sharding.stitching import STITCHING_KINDS, StitchingKind

MAX_DISSOLVE_S = 10.0
"""Seconds of one dissolve."""

MAX_WORDS_CHARS = 500
"""Characters of a style, a negative prompt or the description of a character."""

MIN_SIDE_PIXELS = 16
"""Pixels; the least width or height of a film."""

MAX_SIDE_PIXELS = 4096
"""Pixels; the greatest width or height of a film."""

MAX_FPS = 60
"""Frames per second of a film; the least is 1."""


MAX_KEYFRAMES = 32
"""Keyframes of one shot, its first and last picture not counted."""

MAX_REFERENCES = 4
"""Pictures of one character."""

MAX_PICTURE_CHARS = 1000
"""Characters of a picture's path or address."""

_MEANING = {"own_keys": False}
"""Context of a dump that leaves out what means nothing."""

Quality = Literal["draft", "standard", "final"]

FORM_TAGS = ("(word)", "(table)")
"""Names that pydantic puts into the place of an error to tell apart the two forms that a value may have."""


@dataclass(frozen=True)
class Allowed:
    """What a field accepts: completes the sentence "must be ..."."""

    words: str
    choices: tuple[str, ...] = ()
    """Words that a user may have meant."""
    item: str = ""
    """What an item or value of the field accepts, if the field is a collection of plain values."""
    key: str = ""
    """What a key of the field accepts, if the field is a mapping with free keys."""


class _Part(BaseModel):
    """A mapping with known keys. Other keys that begin with "x-" are the user's own: they are kept and written out
    again, and mean nothing."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, serialize_by_alias=True, json_schema_extra={"patternProperties": {"^x-": {}}}
    )

    _LATER_KEYS: ClassVar[frozenset[str]] = frozenset()
    """Keys that the language got after its first release: they are not written where they say nothing, so that a
    storyboard without them keeps the form, and the hash, that it always had."""

    _own_keys: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_own_keys(cls, value: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, dict):
            return validate(value)
        own = {key: item for key, item in value.items() if isinstance(key, str) and key.startswith("x-")}
        part = validate({key: item for key, item in value.items() if key not in own})
        if own:
            part._own_keys = to_jsonable_python(own, inf_nan_mode="null")
        return part

    @model_serializer(mode="wrap")
    # pydantic would take a return type for the schema of what is written.
    def _write_own_keys(self, write: SerializerFunctionWrapHandler, info: SerializationInfo):  # type: ignore[no-untyped-def]
        silent: dict[str, tuple[Any, ...]] = {
            key: (type(self).model_fields[key].default, []) for key in self._LATER_KEYS
        }
        written = {key: value for key, value in write(self).items() if value not in silent.get(key, ())}
        return {**written, **({} if info.context == _MEANING else self._own_keys)}


_A_SIDE = Allowed(f"a whole number of pixels from {MIN_SIDE_PIXELS} to {MAX_SIDE_PIXELS}")
_Side = Annotated[int, Field(strict=True, ge=MIN_SIDE_PIXELS, le=MAX_SIDE_PIXELS)]

_A_SEED = Allowed(f"a whole number from 0 to {MAX_SEED}")
_Seed = Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)]

_SOME_WORDS = Allowed(f"text of at most {MAX_WORDS_CHARS} characters")
_Words = Annotated[str, Field(max_length=MAX_WORDS_CHARS)]

_A_PICTURE = Allowed(
    "the path of a PNG, JPEG, WebP or AVIF picture, relative to the storyboard, or sha256: and 64 digits of an asset"
)
_Picture = Annotated[str, Field(min_length=1, max_length=MAX_PICTURE_CHARS, pattern=r"\S")]

_CHARACTER_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,39}$"
_SHOT_ID = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


def _whole_number(value: object) -> object:
    if type(value) is not int:  # a literal is compared by ==, which takes true and 1.0 for 1
        raise ValueError("not a whole number")
    return value


def _hide_default(schema: dict[str, Any]) -> None:
    del schema["default"]


class Video(_Part):
    """Size and speed of the film; what is left out is what the model was made for."""

    _LATER_KEYS = frozenset({"fit", "background"})

    width: Annotated[_Side | None, _A_SIDE] = Field(default=None, description="Pixels; a multiple of the model's grid.")
    height: Annotated[_Side | None, _A_SIDE] = Field(
        default=None, description="Pixels; a multiple of the model's grid."
    )
    fps: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=MAX_FPS)] | None,
        Allowed(f"a whole number of frames per second from 1 to {MAX_FPS}"),
    ] = Field(default=None, description="Frames per second.")
    fit: Annotated[Fit, Allowed("cover or contain", choices=("cover", "contain"))] = Field(
        default="cover",
        description="How pictures of another shape fill the frame: cropped to cover it, or contained between bars.",
    )
    background: Annotated[
        Annotated[str, Field(pattern=f"^{COLOUR.pattern}$")], Allowed('a colour such as "#1a2b3c", in quotes')
    ] = Field(default="#000000", description="Colour of the bars, and behind what is transparent in a picture.")

    @property
    def fitting(self) -> Fitting:
        """How the film's pictures are brought to its size."""
        return Fitting(self.fit, self.background)


class Dissolve(_Part):
    """A shot that fades in over the end of the shot before it."""

    dissolve: Annotated[
        float,
        Field(strict=True, gt=0, le=MAX_DISSOLVE_S, allow_inf_nan=False),
        Allowed(f"a number of seconds above 0, at most {MAX_DISSOLVE_S:g}"),
    ] = Field(description="Seconds that both shots are seen, half of it before the cut.")


def _form_tag(value: object) -> str | None:
    if isinstance(value, dict | BaseModel):
        return FORM_TAGS[1]
    return FORM_TAGS[0] if isinstance(value, str) else None


Transition = Annotated[
    Annotated[Literal["cut", "continue"], Tag(FORM_TAGS[0])] | Annotated[Dissolve, Tag(FORM_TAGS[1])],
    Discriminator(_form_tag),
]

_A_DESCRIPTION = Allowed(f"text of 1 to {MAX_WORDS_CHARS} characters")
_Description = Annotated[str, Field(min_length=1, max_length=MAX_WORDS_CHARS, pattern=r"\S")]


class Character(_Part):
    """A person or thing with pictures of it."""

    text: Annotated[_Description, _A_DESCRIPTION] = Field(description="What prompts say in the place of its name.")
    images: Annotated[
        tuple[_Picture, ...],
        Field(min_length=1, max_length=MAX_REFERENCES),
        Allowed(f"a list of 1 to {MAX_REFERENCES} pictures", item=_A_PICTURE.words),
    ] = Field(description="What it looks like, at no particular time.")
    as_: Annotated[
        Literal["reference", "first_frame"],
        Allowed("reference or first_frame", choices=("reference", "first_frame")),
    ] = Field(
        default="reference",
        alias="as",
        description="first_frame: its first picture is the first frame of the first shot that names it.",
    )


class Keyframe(_Part):
    """A picture at a time of a shot."""

    at: Annotated[
        float,
        Field(strict=True, ge=0, le=MAX_SHOT_S, allow_inf_nan=False),
        Allowed("a number of seconds from the start of the shot, within it"),
    ] = Field(description="Seconds from the start of the shot.")
    image: Annotated[_Picture, _A_PICTURE] = Field(description="The picture.")
    strength: Annotated[
        float, Field(strict=True, gt=0, le=1, allow_inf_nan=False), Allowed("a number above 0, at most 1")
    ] = Field(default=1.0, description="1: the film shows this picture; less: something like it.")


class Shot(_Part):
    """One prompt with a length; the unit that a person edits."""

    _LATER_KEYS = frozenset({"image", "last_image", "keyframes"})

    id: Annotated[
        str,
        Field(pattern=_SHOT_ID),
        Allowed('text of at most 64 letters, digits, "-" and "_" (a number needs quotes)'),
    ] = Field(
        default="",
        description="Name of the shot; shot-1, shot-2, ... if it is left out. Noise hangs on it, so write it.",
        json_schema_extra=_hide_default,
    )
    prompt: Annotated[
        str,
        Field(min_length=1, max_length=MAX_PROMPT_CHARS, pattern=r"\S"),
        Allowed(f"text of 1 to {MAX_PROMPT_CHARS} characters"),
    ] = Field(description="What is seen. {name} stands for a character; {{ and }} are braces.")
    seconds: Annotated[
        float,
        Field(strict=True, gt=0, le=MAX_SHOT_S, allow_inf_nan=False),
        Allowed(f"a number of seconds above 0, at most {MAX_SHOT_S:g}"),
    ] = Field(description="Length; rounded to whole frames.")
    transition: Annotated[
        Transition, Allowed('"cut", "continue" or {dissolve: seconds}', choices=("cut", "continue", "{dissolve: 0.5}"))
    ] = Field(default="cut", description="How the shot begins; continue is one unbroken movement with the shot before.")
    seed: Annotated[_Seed | None, _A_SEED] = Field(
        default=None, description="Seed of this take instead of the storyboard's."
    )
    negative: Annotated[_Words | None, _SOME_WORDS] = Field(
        default=None, description="What is not wanted, instead of the storyboard's negative."
    )
    image: Annotated[_Picture | None, _A_PICTURE] = Field(default=None, description="The picture at its first frame.")
    last_image: Annotated[_Picture | None, _A_PICTURE] = Field(
        default=None, description="The picture at its last frame."
    )
    keyframes: Annotated[
        tuple[Keyframe, ...],
        Field(max_length=MAX_KEYFRAMES),
        Allowed(f"a list of at most {MAX_KEYFRAMES} keyframes", item="a mapping with at least at and image"),
    ] = Field(default=(), description="Pictures at other times of the shot.")


class Storyboard(_Part):
    """What the user sends: title, model, size, seed, shots and transitions. Made by `load_storyboard`."""

    _LATER_KEYS = frozenset({"stitching"})

    version: Annotated[
        Literal[1], BeforeValidator(_whole_number), Allowed("the number 1, the only version there is")
    ] = Field(description="Version of the storyboard's language.")
    title: Annotated[
        str, Field(max_length=MAX_TITLE_CHARS), Allowed(f"text of at most {MAX_TITLE_CHARS} characters")
    ] = Field(default="Untitled", description="Name of the film.")
    model: Annotated[
        str,
        Field(min_length=1, max_length=MAX_MODEL_CHARS),
        Allowed("the name of a model that ships with Longtake, a folder (with a /) or a hub id (organisation/model)"),
    ] = Field(default="pocket", description="pocket, a folder, or a hub id.")
    seed: Annotated[_Seed, _A_SEED] = Field(
        default=0, description="The same storyboard with the same seed is the same film."
    )
    video: Annotated[Video, Allowed("a mapping of width, height and fps")] = Field(
        default=Video(), description="Size and speed; default: what the model was made for."
    )
    quality: Annotated[Quality, Allowed("draft, standard or final", choices=("draft", "standard", "final"))] = Field(
        default="standard", description="8, 24 or 40 denoising steps."
    )
    style: Annotated[_Words, _SOME_WORDS] = Field(default="", description="Added to the end of every prompt.")
    negative: Annotated[_Words, _SOME_WORDS] = Field(default="", description="What is not wanted in any shot.")
    stitching: Annotated[
        StitchingKind | None,
        Allowed(", ".join(STITCHING_KINDS[:-1]) + " or " + STITCHING_KINDS[-1], choices=STITCHING_KINDS),
    ] = Field(
        default=None,
        description="How the chunks of a long take agree on one movement; without it as the model does best.",
    )
    identity: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False), Allowed("a number from 0 to 1")] = (
        Field(default=0.0, description="How much of the starting noise all takes share (rho): likeness across cuts.")
    )
    characters: Annotated[
        dict[
            Annotated[str, Field(pattern=_CHARACTER_NAME)],
            Annotated[
                Annotated[_Description, Tag(FORM_TAGS[0])] | Annotated[Character, Tag(FORM_TAGS[1])],
                Discriminator(_form_tag),
            ],
        ],
        Field(max_length=MAX_CHARACTERS),
        Allowed(
            f"a mapping of at most {MAX_CHARACTERS} names to descriptions",
            item=f"{_A_DESCRIPTION.words}, or a mapping of text and images",
            key='a letter followed by at most 39 letters, digits, "-" and "_"',
        ),
    ] = Field(
        default={},
        description="Names for prompts: {hero} is replaced by its description.",
        json_schema_extra={"additionalProperties": False},
    )
    shots: Annotated[
        tuple[Shot, ...],
        Field(min_length=1, max_length=MAX_SHOTS),
        Allowed(f"a list of 1 to {MAX_SHOTS} shots", item="a mapping with at least prompt and seconds"),
    ] = Field(description="The shots in order.")

    _lines: Lines = PrivateAttr(default_factory=Lines)

    @field_validator("shots")
    @classmethod
    def _name_shots(cls, shots: tuple[Shot, ...]) -> tuple[Shot, ...]:
        return tuple(
            shot if shot.id else shot.model_copy(update={"id": default_shot_id(index)})
            for index, shot in enumerate(shots)
        )

    @property
    def lines(self) -> Lines:
        """Where each key stood in the file; empty for a storyboard that was not read from one."""
        return self._lines

    def written_prompt(self, shot: Shot) -> str:
        """The shot's prompt with its characters written out, without the style."""
        return write_out(shot.prompt, {name: described(character) for name, character in self.characters.items()})

    def pictures(self) -> Iterator[tuple[Place, str]]:
        """Every picture with its place, in the order of the file's keys: shots last."""
        for name, character in self.characters.items():
            if isinstance(character, Character):
                yield from ((("characters", name, "images", k), image) for k, image in enumerate(character.images))
        for index, shot in enumerate(self.shots):
            for key in ("image", "last_image"):
                if (image := getattr(shot, key)) is not None:
                    yield ("shots", index, key), image
            for k, keyframe in enumerate(shot.keyframes):
                yield ("shots", index, "keyframes", k, "image"), keyframe.image

    def with_pictures(self, names: Mapping[str, str]) -> "Storyboard":
        """The same with pictures called otherwise: names[old] = new; those that are not in it stay."""

        def renamed(picture: str) -> str:
            return names.get(picture, picture)

        characters = {
            name: character
            if isinstance(character, str)
            else character.model_copy(update={"images": tuple(map(renamed, character.images))})
            for name, character in self.characters.items()
        }
        shots = tuple(
            shot.model_copy(
                update={
                    "image": shot.image and renamed(shot.image),
                    "last_image": shot.last_image and renamed(shot.last_image),
                    "keyframes": tuple(k.model_copy(update={"image": renamed(k.image)}) for k in shot.keyframes),
                }
            )
            for shot in self.shots
        )
        return self.model_copy(update={"characters": characters, "shots": shots})


def described(character: str | Character) -> str:
    """What prompts say in the place of a character's name."""
    return character if isinstance(character, str) else character.text


ASSET = re.compile(r"sha256:([0-9a-f]{64})")
"""How a storyboard names an asset that was sent."""


def asset_of(picture: str) -> str | None:
    """The sha256 of the asset that a picture is, hexadecimal; None for a path or an address."""
    match = ASSET.fullmatch(picture)
    return match[1] if match else None


def is_address(picture: str) -> bool:
    """True for a picture that is named by its address on the web."""
    return picture.startswith(("http://", "https://"))


def default_shot_id(index: int) -> str:
    """The id of a shot that has none."""
    return f"shot-{index + 1}"


def add_style(prompt: str, style: str) -> str:
    """The prompt followed by the style, if there is one."""
    return f"{prompt}, {style}" if style.strip() else prompt


def storyboard_hash(storyboard: Storyboard) -> str:
    """sha256 of the canonical JSON of the storyboard, hexadecimal; the same however it was written down."""
    meaning = storyboard.model_dump(mode="json", context=_MEANING)
    canonical = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def storyboard_schema() -> dict[str, Any]:
    """The JSON Schema of a storyboard (draft 2020-12)."""
    schema = Storyboard.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Longtake storyboard"}
