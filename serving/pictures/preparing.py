"""Brings a picture to the size of a film by one exact resampling: Pillow's Lanczos in 8 bits computes with integers."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.pictures.fitting import Fitting, contained_size, cover_box
from serving.pictures.reading import read_picture


def prepare_picture(content: bytes, *, width: int, height: int, fitting: Fitting) -> NDArray[np.uint8]:
    """The picture at a size in pixels, sRGB uint8 [height, width, 3]. Raises PictureError."""
    image = _on_background(read_picture(content), fitting.background)
    if fitting.fit == "cover":
        fitted = image.resize((width, height), Image.Resampling.LANCZOS, box=cover_box(image.size, (width, height)))
    else:
        inner = contained_size(image.size, (width, height))
        fitted = Image.new("RGB", (width, height), fitting.background)
        place = ((width - inner[0]) // 2, (height - inner[1]) // 2)
        fitted.paste(image.resize(inner, Image.Resampling.LANCZOS), place)
    return np.asarray(fitted, dtype=np.uint8).copy()


def _on_background(image: Image.Image, background: str) -> Image.Image:
    if image.mode != "RGBA":
        return image
    ground = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(ground, image).convert("RGB")
