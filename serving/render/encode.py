"""Frames to H.264 in an mp4: the same frames give the same bytes."""

import contextlib
import hashlib
import os
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray

CONSTANT_RATE_FACTOR = "14"
"""x264's quality; at 14 a viewer cannot tell the film from its frames."""

_LUMA = (11966, 40254, 4064)
_BLUE = (-6596, -22189, 28784)
_RED = (28784, -26145, -2639)
"""BT.709 limited range times 2^16: 219/255 of (.2126, .7152, .0722); 224/255 of (B - Y)/1.8556 and (R - Y)/1.5748."""


class FilmWriter:
    """Encodes frames, uint8 [H, W, 3] sRGB with even H and W, into an mp4 at `path`.

    One encoder thread: x264's output depends on how many it uses. No macroblock tree: on frames below about 128 pixels
    its lookahead reads memory that nobody wrote, and the film's bytes change with whatever lay there (measured; see
    test_memory_left_by_others_does_not_change_the_bytes). BT.709 is written and tagged, so that players need not guess.
    """

    _MUXER: ClassVar = {"movflags": "+faststart"}
    _ENCODER: ClassVar = {"crf": CONSTANT_RATE_FACTOR, "preset": "medium", "mbtree": "0"}
    _KEYFRAME_S = 2

    def __init__(self, path: Path, *, width: int, height: int, fps: int) -> None:
        self._path = path
        self._container = av.open(str(path), "w", format="mp4", options={**self._MUXER, "fflags": "+bitexact"})
        stream = self._container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {**self._ENCODER, "threads": "1", "flags": "+bitexact"}
        context = stream.codec_context
        context.thread_count = 1
        context.time_base = self._frame_time = Fraction(1, fps)
        context.gop_size = self._KEYFRAME_S * fps
        context.color_primaries = ColorPrimaries.BT709
        context.color_trc = ColorTrc.BT709
        context.colorspace = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        self._stream = stream
        self.frames = 0

    def write(self, frame_HW3: NDArray[np.uint8]) -> None:
        """Append one frame."""
        picture = av.VideoFrame.from_ndarray(to_yuv420(frame_HW3), format="yuv420p")
        picture.pts = self.frames
        picture.time_base = self._frame_time
        self._container.mux(self._stream.encode(picture))
        self.frames += 1

    def close(self) -> str:
        """Complete the file and put it on disk; returns its sha256."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        with self._path.open("rb+") as file:
            os.fsync(file.fileno())
            return hashlib.file_digest(file, "sha256").hexdigest()

    def abandon(self) -> None:
        """Close and remove the unfinished file."""
        with contextlib.suppress(av.FFmpegError):  # it would write an index, also onto a disk that is full
            self._container.close()
        self._path.unlink(missing_ok=True)


class HeadWriter(FilmWriter):
    """Encodes frames that are watched while more of them come: after each second the file can be played as it is.

    The mp4 is in fragments of one second, each complete in itself (ISO/IEC 14496-12, 8.8).
    """

    _MUXER: ClassVar = {"movflags": "+frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
    _ENCODER: ClassVar = {"crf": "20", "preset": "veryfast", "tune": "zerolatency", "sc_threshold": "0"}
    _KEYFRAME_S = 1


def to_yuv420(frame_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """sRGB to planar BT.709 limited range with halved chroma, uint8 [3H/2, W]; H and W even (ITU-R BT.709-6, item 3).

    In integers, so that every machine computes the same.
    """
    rgb = frame_HW3.astype(np.int32)
    height, width, _ = rgb.shape
    halved = rgb.reshape(height // 2, 2, width // 2, 2, 3).sum((1, 3))  # four times the mean
    luma = _weighted(rgb, _LUMA, 16, 16)
    chroma = [_weighted(halved, weights, 128, 18) for weights in (_BLUE, _RED)]
    return np.concatenate([luma.ravel(), *(plane.ravel() for plane in chroma)]).reshape(3 * height // 2, width)


def _weighted(rgb: NDArray[np.int32], weights: tuple[int, int, int], offset: int, bits: int) -> NDArray[np.uint8]:
    total = sum(weight * rgb[..., k] for k, weight in enumerate(weights)) + (1 << (bits - 1))
    return np.clip((total >> bits) + offset, 0, 255).astype(np.uint8)
