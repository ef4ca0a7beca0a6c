"""Frames become an H.264 mp4 that players open while it loads, always with the same bytes."""

import ctypes
import random
from pathlib import Path

import av
import numpy as np

from serving.render.encode import FilmWriter, to_yuv420

FRAMES = 40


def picture(t: int) -> np.ndarray:
    y, x = np.mgrid[0:64, 0:96]
    frame = np.stack([40 + x, 60 + 2 * y, np.full_like(x, 90 + t)], axis=-1)
    frame[20:40, t : t + 20] = (230, 30, 30)
    return frame.astype(np.uint8)


def write(path: Path) -> str:
    writer = FilmWriter(path, width=96, height=64, fps=16)
    for t in range(FRAMES):
        writer.write(picture(t))
    return writer.close()


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a.mp4") == write(tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def leave_garbage_in_freed_memory(rng: random.Random) -> None:
    blocks = [rng.randbytes(rng.choice((100, 1000, 5000, 20_000, 60_000, 100_000))) for _ in range(2000)]
    rng.shuffle(blocks)


def test_memory_left_by_others_does_not_change_the_bytes(tmp_path: Path) -> None:
    rng = random.Random(0)
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD: freed blocks are used again instead of returned to the system
    hashes = set()
    for _ in range(12):
        leave_garbage_in_freed_memory(rng)
        hashes.add(write(tmp_path / "a.mp4"))
    assert len(hashes) == 1


def test_yuv_has_the_published_values() -> None:
    """ITU-R BT.709-6, limited range: white 235, black 16, pure red 63 / 102 / 240, chroma 128 for grey."""
    for colour, expected in (
        ((255, 255, 255), (235, 128, 128)),
        ((0, 0, 0), (16, 128, 128)),
        ((255, 0, 0), (63, 102, 240)),
        ((0, 0, 255), (32, 240, 118)),
    ):
        planes = to_yuv420(np.full((4, 6, 3), colour, np.uint8)).ravel()
        assert (int(planes[0]), int(planes[24]), int(planes[30])) == expected


def test_every_frame_is_there_at_its_time_and_looks_as_it_did(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 16
        frames = list(container.decode(video=0))
    assert [round(float(frame.time * 16)) for frame in frames] == list(range(FRAMES))
    for t in (0, 20, 39):
        error = np.abs(frames[t].to_ndarray(format="rgb24").astype(int) - picture(t))
        assert error.mean() < 4


def test_the_index_lies_before_the_pictures(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_an_abandoned_film_leaves_no_file(tmp_path: Path) -> None:
    writer = FilmWriter(tmp_path / "a.mp4", width=96, height=64, fps=16)
    writer.write(picture(0))
    writer.abandon()
    assert list(tmp_path.iterdir()) == []
