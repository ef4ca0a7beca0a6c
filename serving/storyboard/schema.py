"""The keys of storyboard version 1, what each accepts, and its identity. What keys mean together is in rules.py.

Every field carries `Allowed`: what it accepts, in a person's words. Messages and the published JSON Schema both come
from here, so they cannot disagree.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

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

from serving.documents.places import Lines
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


_MEANING = {"own_keys": False}
"""Context of a dump that leaves out what means nothing."""

Quality = Literal["draft", "standard", "final"]

TRANSITION_TAGS = ("(word)", "(table)")
"""Names that pydantic puts into the place of an error to tell the two forms of a transition apart."""


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

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"patternProperties": {"^x-": {}}})

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
        return {**write(self), **({} if info.context == _MEANING else self._own_keys)}


_A_SIDE = Allowed(f"a whole number of pixels from {MIN_SIDE_PIXELS} to {MAX_SIDE_PIXELS}")
_Side = Annotated[int, Field(strict=True, ge=MIN_SIDE_PIXELS, le=MAX_SIDE_PIXELS)]

_A_SEED = Allowed(f"a whole number from 0 to {MAX_SEED}")
_Seed = Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)]

_SOME_WORDS = Allowed(f"text of at most {MAX_WORDS_CHARS} characters")
_Words = Annotated[str, Field(max_length=MAX_WORDS_CHARS)]

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

    width: Annotated[_Side | None, _A_SIDE] = Field(default=None, description="Pixels; a multiple of the model's grid.")
    height: Annotated[_Side | None, _A_SIDE] = Field(
        default=None, description="Pixels; a multiple of the model's grid."
    )
    fps: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=MAX_FPS)] | None,
        Allowed(f"a whole number of frames per second from 1 to {MAX_FPS}"),
    ] = Field(default=None, description="Frames per second.")


class Dissolve(_Part):
    """A shot that fades in over the end of the shot before it."""

    dissolve: Annotated[
        float,
        Field(strict=True, gt=0, le=MAX_DISSOLVE_S, allow_inf_nan=False),
        Allowed(f"a number of seconds above 0, at most {MAX_DISSOLVE_S:g}"),
    ] = Field(description="Seconds that both shots are seen, half of it before the cut.")


def _transition_tag(value: object) -> str | None:
    if isinstance(value, dict | Dissolve):
        return TRANSITION_TAGS[1]
    return TRANSITION_TAGS[0] if isinstance(value, str) else None


Transition = Annotated[
    Annotated[Literal["cut", "continue"], Tag(TRANSITION_TAGS[0])] | Annotated[Dissolve, Tag(TRANSITION_TAGS[1])],
    Discriminator(_transition_tag),
]


class Shot(_Part):
    """One prompt with a length; the unit that a person edits."""

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


class Storyboard(_Part):
    """What the user sends: title, model, size, seed, shots and transitions. Made by `load_storyboard`."""

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
    identity: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False), Allowed("a number from 0 to 1")] = (
        Field(default=0.0, description="How much of the starting noise all takes share (rho): likeness across cuts.")
    )
    characters: Annotated[
        dict[
            Annotated[str, Field(pattern=_CHARACTER_NAME)],
            Annotated[str, Field(min_length=1, max_length=MAX_WORDS_CHARS, pattern=r"\S")],
        ],
        Field(max_length=MAX_CHARACTERS),
        Allowed(
            f"a mapping of at most {MAX_CHARACTERS} names to descriptions",
            item=f"text of 1 to {MAX_WORDS_CHARS} characters",
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
        return write_out(shot.prompt, self.characters)


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
