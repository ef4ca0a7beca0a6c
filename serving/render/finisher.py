"""Finished latents to film, in a process of its own: decode, assemble, encode, measure seams.

It receives the latents of the takes in the order of the film, as soon as they are finished and while later ones are
still noise. What it holds does not grow with the film, but for a few numbers per frame.
"""

import os
import signal
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serving.plan import FilmPlan, TakePlan
from serving.render.assemble import TakeAssembler
from serving.render.encode import FilmWriter
from serving.render.messages import FilmDone, FinishedLatents, FinisherError, HeadFinished
from serving.render.takes import seam_regions
from sharding.denoiser import Capabilities
from sharding.seams import FrameStatistics, measure_seam
from sharding.spans import FrameSpan

CUT_FRAMES = 1
"""A cut is measured at its first frame alone."""


def run_finisher(connection: Connection, plan: FilmPlan, model_name: str, out: Path) -> None:
    """Receive latents until the film is complete; answer with HeadFinished, and FilmDone or FinisherError at the
    end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(1)
    partial = _partial_path(out)
    writer = FilmWriter(partial, width=plan.width, height=plan.height, fps=plan.fps)
    try:
        connection.send(_finish(connection, plan, model_name, writer, partial))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        writer.abandon()  # the parent is gone
    except Exception:
        writer.abandon()
        connection.send(FinisherError(traceback.format_exc()))


def _finish(connection: Connection, plan: FilmPlan, model_name: str, writer: FilmWriter, partial: Path) -> FilmDone:
    from serving.models.registry import open_model

    model = open_model(model_name)
    assembler, statistics = TakeAssembler(), FrameStatistics()
    decode_s = encode_s = 0.0
    num_latents = 0
    for take, dissolve_out in _with_dissolve_out(plan):
        codec = model.open_codec()
        assembler.begin_take(frames=take.frames - take.surplus, dissolve_in=take.dissolve_in, dissolve_out=dissolve_out)
        for latent in _receive_take(connection, take):
            started = time.monotonic()
            frames = to_pixels(codec.decode(latent))
            decoded = time.monotonic()
            for frame in (film for decoded_frame in frames for film in assembler.add(decoded_frame)):
                writer.write(frame)
                statistics.add(frame)
            decode_s += decoded - started
            encode_s += time.monotonic() - decoded
            num_latents += 1
            connection.send(HeadFinished(num_latents, writer.frames))
    assert writer.frames == plan.frames, f"{writer.frames} frames were encoded of {plan.frames}"
    seams = tuple(_measure(plan, statistics, model.capabilities))
    return FilmDone(partial, writer.close(), writer.frames, seams, decode_s, encode_s)


def to_pixels(frames_F3HW: Tensor) -> NDArray[np.uint8]:
    """Decoded frames, float32 [F, 3, H, W] in -1..1, as uint8 [F, H, W, 3]."""
    levels = ((frames_F3HW.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())


def _with_dissolve_out(plan: FilmPlan) -> Iterator[tuple[TakePlan, int]]:
    following = [take.dissolve_in for take in plan.takes[1:]]
    yield from zip(plan.takes, [*following, 0], strict=True)


def _receive_take(connection: Connection, take: TakePlan) -> Iterator[Tensor]:
    received = 0
    while received < take.latents:
        message = connection.recv()
        assert isinstance(message, FinishedLatents)
        received += len(message.latents_nChw)
        yield from torch.from_numpy(message.latents_nChw)


def _measure(plan: FilmPlan, statistics: FrameStatistics, capabilities: Capabilities) -> Iterator[dict[str, object]]:
    """Every chunk boundary region of the film's takes and every cut between them, in the order of the film."""
    for index, take in enumerate(plan.takes):
        film = FrameSpan(take.shots[0].film.start, take.shots[-1].film.stop)
        regions = seam_regions(plan, take, window=capabilities.window, grid=capabilities.grid)
        if index > 0 and not take.dissolve_in:
            cut = FrameSpan(film.start, film.start + CUT_FRAMES)
            around = FrameSpan(max(0, film.start - plan.fps), min(plan.frames, film.start + plan.fps))
            yield {
                "kind": "cut",
                "take": take.key,
                "frames": [cut.start, cut.stop],
                **asdict(measure_seam(statistics, cut, take=around, seams=[cut])),
            }
        for region in regions:
            yield {
                "kind": "chunk",
                "take": take.key,
                "frames": [region.start, region.stop],
                **asdict(measure_seam(statistics, region, take=film, seams=regions)),
            }


def remove_partial(out: Path) -> None:
    """Remove the temporary file of a film that was not completed."""
    _partial_path(out).unlink(missing_ok=True)


def publish(partial: Path, out: Path) -> None:
    """Give a complete film its name, at once or not at all."""
    partial.replace(out)
    folder = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _partial_path(out: Path) -> Path:
    """Where a film is written until it is complete: beside its place, so that a rename is enough."""
    return out.with_name(f".{out.name}.partial")
