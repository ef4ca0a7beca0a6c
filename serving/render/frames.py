"""Decoded frames, kept without loss: FFV1 in Matroska, written and read one frame at a time.

FFV1 version 3 (RFC 9043) holds 8-bit RGB exactly, in a third of its size or less. The same frames give the same bytes.
The file ends with its own sha256, in an element that every Matroska reader skips: FFV1's checksums are of no use to us,
since FFmpeg 8.1 only logs a damaged slice and shows an older one in its place (measured).
"""

import hashlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import torch
from av.error import FFmpegError
from numpy.typing import NDArray
from torch import Tensor

from serving.errors import Fault
from serving.render.assembler import Frame

_PIXELS = "bgr0"
"""The 8-bit RGB that FFV1 takes; getting there from rgb24 and back only moves bytes."""

_FFV1 = {"level": "3", "slices": "4", "slicecrc": "0", "g": "1", "coder": "1", "context": "0"}

_SEAL = b"\xec\xa0"
"""Begins an EBML Void element of 32 bytes (RFC 8794, 11.3.2), which holds the sha256 of everything before it."""

_SEAL_BYTES = len(_SEAL) + hashlib.sha256().digest_size


class DamagedFrames(Fault):
    """A file that does not hold the frames that were written."""


def to_pixels(frames_F3HW: Tensor) -> NDArray[np.uint8]:
    """Decoded frames, float32 [F, 3, H, W] in -1..1, as uint8 [F, H, W, 3]."""
    levels = ((frames_F3HW.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())


class FramesWriter:
    """Writes frames to a file at `path`; holds one at a time."""

    def __init__(self, path: Path, *, width: int, height: int, fps: int) -> None:
        self._path = path
        self._container = av.open(str(path), "w", format="matroska", options={"fflags": "+bitexact"})
        stream = self._container.add_stream("ffv1", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, _PIXELS
        stream.options = {**_FFV1, "threads": "1", "flags": "+bitexact"}
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = self._frame_time = Fraction(1, fps)
        self._stream = stream
        self.frames = 0

    def write(self, frame_HW3: Frame) -> None:
        """Append one frame."""
        picture = av.VideoFrame.from_ndarray(frame_HW3, format="rgb24").reformat(format=_PIXELS)
        picture.pts = self.frames
        picture.time_base = self._frame_time
        self._container.mux(self._stream.encode(picture))
        self.frames += 1

    def close(self) -> None:
        """Complete the file. It is not flushed to the disk: what must last goes into the artifact store."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        with self._path.open("rb+") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            file.write(_SEAL + digest)


def read_frames(path: Path, *, frames: int) -> Iterator[Frame]:
    """The frames of a file, of which there must be `frames`.

    Raises DamagedFrames for a file that is damaged or cut short, before its first frame.
    """
    if not _is_whole(path):
        raise DamagedFrames(f"{path.name} is damaged: its bytes do not match their sha256")
    read = 0
    try:
        with av.open(str(path)) as container:
            for picture in container.decode(video=0):
                yield cast("Frame", picture.to_ndarray(format="rgb24"))
                read += 1
    except (FFmpegError, IndexError) as error:
        raise DamagedFrames(f"{path.name} cannot be read after {read} of {frames} frames: {error}") from error
    if read != frames:
        raise DamagedFrames(f"{path.name} holds {read} frames, not {frames}")


def _is_whole(path: Path) -> bool:
    """Whether a file ends with the sha256 of all that comes before."""
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - _SEAL_BYTES
        digest = hashlib.sha256()
        while left > 0 and (part := file.read(min(left, 1 << 20))):
            digest.update(part)
            left -= len(part)
        return left == 0 and file.read() == _SEAL + digest.digest()
