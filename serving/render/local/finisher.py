"""Finished latents to film, in a process of its own: decodes them and gives the frames to the film's assembler.

It receives the latents of the takes in the order of the film, as soon as they are finished and while later ones are
still noise. What it holds does not grow with the film, but for a few numbers per frame.
"""

import os
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor

from serving.errors import ModelError
from serving.planning.plan import FilmPlan, TakePlan
from serving.render.assembler import FilmAssembler
from serving.render.frames import to_pixels
from serving.render.messages import FilmDone, FinishedLatents, FinisherError, HeadFinished
from serving.render.scratch import is_disk_full


def run_finisher(connection: Connection, plan: FilmPlan, model_name: str, out: Path) -> None:
    """Receive latents until the film is complete; answer with HeadFinished, and FilmDone or FinisherError at the
    end."""
    torch.set_num_threads(1)
    partial = _partial_path(out)
    assembler = FilmAssembler(plan, partial)
    try:
        connection.send(_finish(connection, plan, model_name, assembler, partial))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        assembler.abandon()  # the parent is gone
    except ModelError as error:
        assembler.abandon()
        connection.send(FinisherError(str(error), model_unfit=True))
    except Exception as error:
        assembler.abandon()
        full = is_disk_full(error)
        connection.send(FinisherError(_full_words(out) if full else traceback.format_exc(), disk_full=full))


def _finish(
    connection: Connection, plan: FilmPlan, model_name: str, assembler: FilmAssembler, partial: Path
) -> FilmDone:
    from serving.models.registry import open_model

    model = open_model(model_name)
    decode_s = 0.0
    num_latents = 0
    for take in plan.takes:
        codec = model.open_codec()
        assembler.begin_take()
        for latent in _receive_take(connection, take):
            started = time.monotonic()
            frames = to_pixels(codec.decode(latent))
            decode_s += time.monotonic() - started
            for frame in frames:
                assembler.add(frame)
            num_latents += 1
            connection.send(HeadFinished(num_latents, assembler.frames))
    return FilmDone(partial, assembler.finish(model.capabilities), decode_s)


def _full_words(out: Path) -> str:
    return f"no room on {out.parent}: the disk was full before the film was complete; nothing is left of it"


def _receive_take(connection: Connection, take: TakePlan) -> Iterator[Tensor]:
    received = 0
    while received < take.latents:
        message = connection.recv()
        assert isinstance(message, FinishedLatents)
        received += len(message.latents_nChw)
        yield from torch.from_numpy(message.latents_nChw)


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
