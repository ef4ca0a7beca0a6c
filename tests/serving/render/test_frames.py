"""Frames are kept without the loss of a bit, and a file that is not whole is never read as one that is."""

import hashlib
import random
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.render.assembler import Frame
from serving.render.frames import DamagedFrames, FramesWriter, read_frames


def write(path: Path, frames: list[Frame]) -> Path:
    height, width, _ = frames[0].shape
    writer = FramesWriter(path, width=width, height=height, fps=16)
    for frame in frames:
        writer.write(frame)
    writer.close()
    return path


def noisy(count: int, *, width: int = 48, height: int = 32, seed: int = 0) -> list[Frame]:
    random_numbers = np.random.default_rng(seed)
    return [random_numbers.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


@settings(max_examples=25)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 5), st.integers(0, 9))
def test_frames_of_any_size_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, count: int, seed: int
) -> None:
    frames = noisy(count, width=2 * width, height=2 * height, seed=seed)
    path = write(tmp_path_factory.mktemp("frames") / "frames.mkv", frames)
    assert all(map(np.array_equal, read_frames(path, frames=count), frames))


def test_every_colour_comes_back_exactly(tmp_path: Path) -> None:
    colours = np.arange(1 << 24, dtype=np.uint32).reshape(16, 1024, 1024)
    frames = [np.stack([part >> 16, part >> 8, part], -1).astype(np.uint8) for part in colours]
    path = write(tmp_path / "frames.mkv", frames)
    assert all(map(np.array_equal, read_frames(path, frames=16), frames))


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    digests = {hashlib.sha256(write(tmp_path / f"{k}.mkv", noisy(5)).read_bytes()).hexdigest() for k in range(3)}
    assert len(digests) == 1


def test_other_programs_can_play_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "frames.mkv", noisy(20))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "ffv1"
        assert sum(1 for _ in container.decode(stream)) == 20


@settings(max_examples=60)
@given(st.integers(0, 2**32).map(random.Random))
def test_a_file_with_any_bit_flipped_or_its_end_missing_is_refused_before_its_first_frame(
    tmp_path_factory: pytest.TempPathFactory, luck: random.Random
) -> None:
    path = write(tmp_path_factory.mktemp("frames") / "frames.mkv", noisy(3))
    content = bytearray(path.read_bytes())
    if luck.random() < 0.7:
        content[luck.randrange(len(content))] ^= 1 << luck.randrange(8)
    else:
        del content[luck.randrange(len(content)) :]
    path.write_bytes(content)
    with pytest.raises(DamagedFrames):
        next(read_frames(path, frames=3))


def test_a_file_with_more_or_fewer_frames_than_it_should_have_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "frames.mkv", noisy(3))
    for expected in (2, 4):
        with pytest.raises(DamagedFrames, match=f"holds 3 frames, not {expected}"):
            list(read_frames(path, frames=expected))


def test_a_long_film_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    frame = noisy(1, width=480, height=320)[0]
    writer = FramesWriter(tmp_path / "frames.mkv", width=480, height=320, fps=16)
    tracemalloc.start()
    for _ in range(60):
        writer.write(frame)
    writer.close()
    assert all(np.array_equal(read, frame) for read in read_frames(tmp_path / "frames.mkv", frames=60))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * frame.nbytes
