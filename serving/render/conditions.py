"""From the picture files of a take to what its model makes of them: once for each take."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from serving.errors import ModelError
from serving.models.conditions import PlacedPicture, TakePictures
from serving.models.wan import WanModel
from serving.pictures.fitting import Fitting
from serving.pictures.preparing import prepare_picture
from serving.pictures.reading import PictureError
from serving.planning.plan import FilmPlan, TakePlan
from serving.render.messages import Array
from sharding.denoiser import Condition

NO_PICTURES: Mapping[str, bytes] = MappingProxyType({})

_OF_CHARACTERS = Fitting("contain", "#ffffff")
"""A character is seen whole and on white, as VACE was trained (diffusers' WanVACEPipeline.preprocess_conditions)."""


def make_condition(plan: FilmPlan, take: TakePlan, model: WanModel, pictures: Mapping[str, bytes]) -> Condition:
    """What the pictures of a take become; `pictures` are files by sha256. Raises ModelError, also for a file that is no
    picture, which whoever accepted it has let through."""

    def prepared(asset: str, fitting: Fitting) -> NDArray[np.uint8]:
        try:
            return prepare_picture(pictures[asset], width=plan.width, height=plan.height, fitting=fitting)
        except PictureError as error:
            raise ModelError(f"take {take.key!r}: the picture {asset[:12]}... {error}") from error

    placed = [
        PlacedPicture(picture.latent, picture.place == "last", prepared(picture.asset, plan.fitting))
        for picture in take.pictures
    ]
    references = [prepared(asset, _OF_CHARACTERS) for asset in take.references]
    return model.make_condition(TakePictures(placed, references), size=(plan.height, plan.width), latents=take.latents)


_GIVEN, _BESIDE = "given.", "beside."
"""What an array of a stored condition is called, before its latent or name."""


def pack_condition(condition: Condition) -> dict[str, Array]:
    """A condition as arrays by name, to be kept."""
    given = {f"{_GIVEN}{n}": latent.numpy() for n, latent in condition.given.items()}
    return given | {f"{_BESIDE}{name}": array for name, array in arrays_of(condition.beside).items()}


def unpack_condition(arrays: Mapping[str, Array]) -> tuple[dict[int, Array], dict[str, Array]]:
    """Of what was packed: the given latents by their index in the take, and what is read beside latents."""
    given = {int(name.removeprefix(_GIVEN)): array for name, array in arrays.items() if name.startswith(_GIVEN)}
    beside = {name.removeprefix(_BESIDE): array for name, array in arrays.items() if name.startswith(_BESIDE)}
    return given, beside


def arrays_of(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """As messages hold them."""
    return {name: value.numpy() for name, value in tensors.items()}
