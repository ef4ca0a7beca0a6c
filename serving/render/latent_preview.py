"""What a take will look like, long before it is decoded: a strip of pictures of its estimated clean latents.

A latent becomes a picture by a linear map (serving/models/latent_rgb.py). Where a checkpoint brings none, decoders fit
one on the first frames that they decode with it and keep it among the artifacts.

Legend: n latents or pictures, C channels, h and w height and width of a latent; H and W those of a picture in pixels.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

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
    if scale == 1:
        return pictures_nhw3
    num, height, width, _ = pictures_nhw3.shape
    rows_Hh, columns_Ww = _interpolation(height, scale), _interpolation(width, scale)
    tall_nHw3 = (rows_Hh @ pictures_nhw3.reshape(num, height, width * 3)).reshape(num, -1, width, 3)
    large: Pixels = np.rint(columns_Ww @ tall_nHw3).astype(np.uint8)
    return large


def png(picture_HW3: Pixels) -> bytes:
    """The picture as a PNG file (W3C PNG, second edition): 8-bit RGB, every row as its difference from the last."""
    height, width, _ = picture_HW3.shape
    levels = picture_HW3.reshape(height, -1)
    rows = np.full((height, 1 + 3 * width), 2, np.uint8)  # each row begins with its filter: 2, "up"
    rows[:, 1:] = np.diff(levels, axis=0, prepend=np.zeros_like(levels[:1]))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, content) for kind, content in chunks)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _interpolation(size: int, scale: int) -> Array:
    """Weights of `size` pixels at each of size * scale places between them, [size * scale, size]."""
    places = np.clip((np.arange(size * scale) + 0.5) / scale - 0.5, 0, size - 1)
    weights: Array = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(size))).astype(np.float32)
    return weights
