"""Pictures for tests and benchmarks, drawn and written by Pillow in every form that users send."""

import io
from typing import Any

import numpy as np
from PIL import Image


def drawing(width: int = 40, height: int = 24) -> Image.Image:
    """A gradient with a red block in its left half and a blue one in its right: no two corners alike."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x + y) * 3 % 256], -1)
    pixels[height // 3 : height // 2, width // 8 : width // 3] = (220, 20, 30)
    pixels[height // 2 :, 2 * width // 3 :] = (20, 40, 230)
    return Image.fromarray(pixels.astype(np.uint8), mode="RGB")


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
