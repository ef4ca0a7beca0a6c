"""What a take will look like, long before it is decoded: a strip of pictures of its estimated clean latents.

A latent becomes a picture by a linear map (serving/models/latent_rgb.py). If a checkpoint brings none, decoders fit one
on the first frames that they decode with it and keep it among the artifacts.

Legend: n latents or pictures, C channels, h and w height and width of a latent; H and W those of a picture in pixels.
"""

from fractions import Fraction

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from serving.errors import ArtifactMissing
from serving.models.latent_rgb import LatentRgb
from serving.store.artifact_keys import rgb_artifact
from serving.store.artifacts import Artifacts

PREVIEW_TILES = 12
"""Latents shown in the preview of a take."""

PREVIEW_TILE_PIXELS = 96
"""Pixels; the least width of a latent in a preview."""


Array = NDArray[np.float32]
Pixels = NDArray[np.uint8]

GAP_PIXELS = 2
"""Black columns between two pictures of a strip."""

UNSEEN = 72
"""Grey level, 0..255, of latents that nothing is known of yet."""


class LatentPreview:
    """The strip of one take: a few latents, evenly spaced, as they were last estimated. Holds their pictures only."""

    def __init__(self, num_latents: int, rgb: LatentRgb) -> None:
        count = min(num_latents, PREVIEW_TILES)
        self.shown = tuple((2 * k + 1) * num_latents // (2 * count) for k in range(count))
        """The latents that have a picture in the strip."""
        self._rgb = rgb
        self._pictures: dict[int, Pixels] = {}

    def show(self, start: int, clean_nChw: Array) -> None:
        """Take in clean latents (see Solver.clean) from latent `start` on, in place of earlier estimates of them."""
        chosen = [n for n in self.shown if start <= n < start + len(clean_nChw)]
        if chosen:
            pictures = self._rgb.pictures(clean_nChw[[n - start for n in chosen]])
            self._pictures.update(zip(chosen, pictures, strict=True))

    def png(self) -> bytes | None:
        """The strip as a PNG file, the take's head on the left; None before anything is known."""
        if not self._pictures:
            return None
        unseen = np.full_like(next(iter(self._pictures.values())), UNSEEN)
        tiles = np.stack([self._pictures.get(n, unseen) for n in self.shown])
        large = enlarge(tiles, -(-PREVIEW_TILE_PIXELS // tiles.shape[2]))
        parted = np.pad(large, ((0, 0), (0, 0), (0, GAP_PIXELS), (0, 0)))
        strip = parted.swapaxes(0, 1).reshape(large.shape[1], -1, 3)
        return png(strip[:, :-GAP_PIXELS])


def learned_rgb(artifacts: Artifacts, weights_sha256: str) -> LatentRgb | None:
    """The map that the farm has fitted for these weights, if it has."""
    try:
        return LatentRgb.from_json(artifacts.get(rgb_artifact(weights_sha256)))
    except (ArtifactMissing, ValueError):
        return None


def enlarge(pictures_nhw3: Pixels, scale: int) -> Pixels:
    """The pictures `scale` times as large, interpolated between the centres of their pixels."""
    levels_n3hw = torch.from_numpy(pictures_nhw3).permute(0, 3, 1, 2).float()
    large_n3HW = functional.interpolate(levels_n3hw, scale_factor=scale, mode="bilinear", align_corners=False)
    large: Pixels = np.ascontiguousarray(large_n3HW.round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return large


def png(picture_HW3: Pixels) -> bytes:
    """The picture as a PNG file, 8-bit RGB."""
    height, width, _ = picture_HW3.shape
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "rgb24"
    encoder.time_base = Fraction(1, 1)
    encoder.options = {"pred": "up", "compression_level": "1", "threads": "1"}
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HW3), format="rgb24")
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])
