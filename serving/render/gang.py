"""A gang in a process of its own: one model, one thread, one call after the other.

One thread each, whatever the machine, so that a film's bytes do not depend on how many gangs render it.
"""

import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np
import torch

from serving.render.messages import Array, CallInput, CallOutput, GangError, GangReady, Prompts, as_tensor
from sharding.denoiser import PromptPart, WindowDenoiser


@contextmanager
def one_thread() -> Iterator[None]:
    """What runs inside computes as a gang does: its bits, and its time, do not depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_gang(connection: Connection, model_name: str) -> None:
    """Load the model and answer calls until the other side closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(1)
    try:
        from serving.models.registry import open_model

        denoiser = open_model(model_name).load_denoiser()
        connection.send(GangReady({**denoiser.numerics, "threads_per_rank": "1"}))
        serve_calls(connection, denoiser)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception:
        connection.send(GangError(traceback.format_exc()))


def serve_calls(connection: Connection, denoiser: WindowDenoiser) -> None:
    """Receive prompts, then calls, and answer each call. Raises EOFError when the other side is gone."""
    embeddings: dict[str, Array] = {}
    while True:
        message = connection.recv()
        if isinstance(message, Prompts):
            embeddings = message.embeddings
            continue
        assert isinstance(message, CallInput)
        started = time.monotonic()
        prediction = predict_call(denoiser, message, embeddings)
        connection.send(CallOutput(prediction, time.monotonic() - started))


@torch.inference_mode()
def predict_call(denoiser: WindowDenoiser, call: CallInput, embeddings: dict[str, Array]) -> Array:
    """The prediction of one call, float32 [n, C, h, w]."""
    parts = [
        PromptPart(
            embedding=as_tensor(embeddings[part.text]),
            negative=as_tensor(embeddings[part.negative]),
            weights=as_tensor(part.weights),
        )
        for part in call.parts
    ]
    prediction = denoiser.predict(as_tensor(call.latents_nChw), timestep=call.timestep, parts=parts, start=call.start)
    return np.ascontiguousarray(prediction.numpy())
