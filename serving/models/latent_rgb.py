"""What a latent looks like without decoding it: a linear map of its channels to red, green and blue.

A checkpoint may bring its map in `preview/latent_rgb.json` (pocket does); for others it can be fitted by least squares
on any frames that were decoded.

Legend: n latents, C channels, h and w height and width of a latent; F frames, H and W their height and width in pixels.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

RGB_FILE = "preview/latent_rgb.json"
"""In a checkpoint's folder. Not among what its hash covers, since no film depends on it."""


@dataclass(frozen=True)
class LatentRgb:
    """The linear map of one VAE's latents, normalised as the model sees them, to colours in 0..1."""

    factors_C3: NDArray[np.float64]
    bias_3: NDArray[np.float64]
    r2: float
    """Share of the variance of the frames, averaged over a latent's cell, that the map explains where it was fitted."""

    def pictures(self, latents_nChw: Array) -> NDArray[np.uint8]:
        """One picture a latent, uint8 [n, h, w, 3]."""
        factors_C3 = self.factors_C3.astype(np.float32)
        colours = np.einsum("nchw,ck->nhwk", latents_nChw, factors_C3, optimize=True) + self.bias_3.astype(np.float32)
        pictures: NDArray[np.uint8] = np.rint(np.clip(np.nan_to_num(colours), 0, 1) * 255).astype(np.uint8)
        return pictures

    def to_json(self) -> str:
        content = {"factors": self.factors_C3.tolist(), "bias": self.bias_3.tolist(), "r2": self.r2}
        return json.dumps(content, indent=1) + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> "LatentRgb":
        """Raises ValueError for anything but what `to_json` writes."""
        try:
            content = json.loads(text)
            rgb = LatentRgb(np.asarray(content["factors"], float), np.asarray(content["bias"], float), content["r2"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no map of latents to colours: {error!r}") from error
        if rgb.factors_C3.ndim != 2 or rgb.factors_C3.shape[1:] != (3,) or rgb.bias_3.shape != (3,):
            raise ValueError(f"a map of latents to colours is [C, 3] and [3], not {rgb.factors_C3.shape}")
        return rgb


class RgbFit:
    """Gathers latents and the frames that they decode to, in sums that do not grow; fits the map by least squares."""

    def __init__(self, channels: int) -> None:
        self._inputs = np.zeros((channels + 1, channels + 1))  # with a constant 1 as the last input
        self._products = np.zeros((channels + 1, 3))
        self._squares = np.zeros(3)

    def add(self, latent_Chw: Array, frames_FHW3: NDArray[np.uint8]) -> None:
        """One latent and its frames."""
        channels, height, width = latent_Chw.shape
        frames, rows, columns, _ = frames_FHW3.shape
        cells = frames_FHW3.reshape(frames, height, rows // height, width, columns // width, 3).mean((0, 2, 4)) / 255
        colours = cells.reshape(-1, 3)
        inputs = np.concatenate([latent_Chw.reshape(channels, -1).T, np.ones((height * width, 1))], 1).astype(float)
        self._inputs += inputs.T @ inputs
        self._products += inputs.T @ colours
        self._squares += (colours**2).sum(0)

    def solve(self) -> LatentRgb | None:
        """The map, or None while there is nothing to fit it on. A trace of ridge keeps it tame on few frames."""
        count = self._inputs[-1, -1]
        if not count:
            return None
        ridge = 1e-4 * count * np.diag([1.0] * (len(self._inputs) - 1) + [0.0])
        solution = np.linalg.solve(self._inputs + ridge, self._products)
        rgb = LatentRgb(solution[:-1], solution[-1], 0.0)
        return replace(rgb, r2=self.r2_of(rgb))

    def r2_of(self, rgb: LatentRgb) -> float:
        """Share of the variance of the frames that were gathered here that a map explains."""
        solution = np.concatenate([rgb.factors_C3, rgb.bias_3[None]])
        residual = (
            self._squares - 2 * (solution * self._products).sum(0) + (solution * (self._inputs @ solution)).sum(0)
        )
        total = self._squares - self._products[-1] ** 2 / self._inputs[-1, -1]
        return 1 - float(residual.sum()) / max(float(total.sum()), 1e-12)


def shipped_rgb(folder: Path) -> LatentRgb | None:
    """The map that a checkpoint's folder brings, if it does and it can be read."""
    try:
        return LatentRgb.from_json((folder / RGB_FILE).read_bytes())
    except (OSError, ValueError):
        return None
