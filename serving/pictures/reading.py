"""Reads a picture from bytes that anyone may have sent: bounded before it is decoded, upright, sRGB.

The content decides what a picture is, not the name of its file. Pillow decodes with integers alone in the formats that
are let in, so the same bytes give the same pixels on every machine (tests pin them).
"""

import io
import warnings
from dataclasses import dataclass

from PIL import Image, ImageCms, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
"""What may be sent, as Pillow calls it."""

MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "AVIF": "image/avif"}

MAX_PICTURE_BYTES = 64 << 20
"""Bytes of one picture."""

MAX_PICTURE_PIXELS = 64_000_000
"""Pixels of one picture, width times height: what a large camera takes, and eight times the largest film."""

MAX_PICTURE_SIDE = 16_384
"""Pixels along a side."""

_MAX_16_BIT = 65_535
_CAMERA_FORMAT = "MPO"
"""How Pillow calls a JPEG that has further pictures behind the first, as cameras write them; the first is meant."""


class PictureError(ValueError):
    """A picture that cannot be used. The message completes a sentence that begins with its name."""


@dataclass(frozen=True)
class PictureFacts:
    """What a picture's header says of it."""

    media_type: str
    width: int
    """Pixels, as stored: not yet turned."""
    height: int


def describe_picture(content: bytes) -> PictureFacts:
    """What a picture is, from its header; no pixel is decoded. Raises PictureError."""
    with _opened(content) as image:
        return PictureFacts(_media_type(image), image.width, image.height)


def read_picture(content: bytes) -> Image.Image:
    """The picture as mode RGB, or RGBA if any of it is transparent: upright and in sRGB. Raises PictureError."""
    with _opened(content) as image:
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
        except Exception as error:  # whatever a decoder says to bytes that anyone may have made
            raise PictureError(f"is cut short or damaged: {error}") from error
        profile = image.info.get("icc_profile")
    colours, alpha = _split_alpha(upright)
    in_srgb = _to_srgb(colours, profile)
    if alpha is None or alpha.getextrema() == (255, 255):
        return in_srgb
    in_srgb.putalpha(alpha)
    return in_srgb


def _opened(content: bytes) -> Image.Image:
    """The picture, of which only the header is read. Raises PictureError for all that can be refused by that."""
    if len(content) > MAX_PICTURE_BYTES:
        raise PictureError(f"has {len(content)} bytes; a picture may have at most {MAX_PICTURE_BYTES}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound is below
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureError(f"has more than {MAX_PICTURE_PIXELS} pixels, the most that is allowed") from error
    except Exception as error:  # as above
        raise PictureError("is no PNG, JPEG, WebP or AVIF picture, or a damaged one") from error
    if max(image.size) > MAX_PICTURE_SIDE or image.width * image.height > MAX_PICTURE_PIXELS:
        raise PictureError(
            f"has {image.width} x {image.height} pixels; at most {MAX_PICTURE_PIXELS} are allowed,"
            f" and {MAX_PICTURE_SIDE} along a side"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != _CAMERA_FORMAT:
        raise PictureError(f"is animated ({frames} frames); a picture must be a still")
    return image


def _media_type(image: Image.Image) -> str:
    return MEDIA_TYPES["JPEG" if image.format == _CAMERA_FORMAT else str(image.format)]


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The picture without transparency (L, RGB or CMYK, 8 bits) and its transparency."""
    if image.mode in ("I", "I;16", "I;16B"):
        return _from_16_bit(image), None
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits a pixel as 8, rounded."""
    import numpy as np

    wide = np.asarray(image).astype(np.int64)
    return Image.fromarray(((wide * 255 + _MAX_16_BIT // 2) // _MAX_16_BIT).clip(0, 255).astype(np.uint8), mode="L")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The colours in sRGB; a profile that cannot be read, or is for another kind of picture, counts as sRGB."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")
