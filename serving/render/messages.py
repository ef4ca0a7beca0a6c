"""What the processes of one render say to each other. Arrays are numpy, since torch tensors pickle slowly.

Legend: n latents of a call, C channels, h and w height and width of a latent.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class TakeInputs:
    """To a gang, once for a take: what its calls read beside latents."""

    embeddings: dict[str, Array]
    """Of its prompts by their text, float32 [tokens, dim] each."""
    beside: dict[str, Array] = field(default_factory=dict)
    """What its pictures became, for models that read them with every call (sharding.denoiser.Condition)."""


@dataclass(frozen=True)
class FilmInputs:
    """To a gang of one render, once: the inputs of every take by its key. What takes share is sent once."""

    takes: dict[str, TakeInputs]


@dataclass(frozen=True)
class Part:
    """One prompt of a call: its text, that of its negative, and its weight at each latent that the call reads, [n]."""

    text: str
    negative: str
    weights: Array


@dataclass(frozen=True)
class CallInput:
    """To a gang: predict these latents."""

    latents_nChw: Array
    timestep: float
    parts: tuple[Part, ...]
    start: int
    """Index in the take of the first latent that the call reads."""
    shares: tuple[float, ...] = ()
    """Of `timestep`, that each latent has; empty: all of it."""


@dataclass(frozen=True)
class GangCall:
    """To a gang of one render: predict this call of a take."""

    take_key: str
    content: CallInput


@dataclass(frozen=True)
class GangReady:
    """From a gang, once: its model is loaded."""

    numerics: dict[str, str]
    """What the bytes of its predictions depend on: the numerics key, part by part."""


@dataclass(frozen=True)
class CallOutput:
    """From a gang: the prediction of the call it was given."""

    prediction_nChw: Array
    seconds: float


@dataclass(frozen=True)
class GangError:
    """From a gang: the call, or loading the model, raised. The gang ends."""

    text: str
    """The traceback; of an unfit model, the one line that says what is wrong."""
    disk_full: bool = False
    """The film could not be written; `text` says it in words."""
    model_unfit: bool = False


@dataclass(frozen=True)
class FinishedLatents:
    """To the finisher: the next latents of the take that is being finished, float32 [n, C, h, w]."""

    latents_nChw: Array


@dataclass(frozen=True)
class HeadFinished:
    """From the finisher, after each latent: how far the film has come, from its head."""

    latents: int
    """Decoded."""
    frames: int
    """In the file."""


@dataclass(frozen=True)
class Film:
    """A complete film, as its file is and as it came out."""

    sha256: str
    frames: int
    bytes: int
    seams: tuple[dict[str, object], ...]
    """Measures of each seam region and cut, as the manifest holds them."""
    encode_s: float
    """Seconds spent on assembling, encoding and measuring."""


@dataclass(frozen=True)
class FilmDone:
    """From the finisher: the film is complete in `partial`, a temporary file beside its place."""

    partial: Path
    film: Film
    decode_s: float


@dataclass(frozen=True)
class FinisherError:
    """From the finisher: decoding or encoding raised. It has removed its temporary file and ends."""

    text: str
    """As in GangError."""
    disk_full: bool = False
    """The film could not be written; `text` says it in words."""
    model_unfit: bool = False
