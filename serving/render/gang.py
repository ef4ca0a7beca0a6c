"""The gangs of a render in one process tree: a process for each rank, one call after the other.

As many threads as the gang's shape says, whatever the machine, so that a film's bytes do not depend on how many gangs
render it.
"""

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np
import torch

from serving.render.messages import Array, CallInput, GangError, GangReady, Prompts, as_tensor
from sharding.denoiser import PromptPart, WindowDenoiser

if TYPE_CHECKING:
    from serving.render.rank import Meeting


_FILM = "film"
"""What the prompts of the one film are kept under."""


@contextmanager
def one_thread() -> Iterator[None]:
    """What runs inside computes as a gang does: its bits, and its time, do not depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_rank(
    connection: Connection, model_name: str, shape: str, index: int, gpu: int, meeting: "Meeting | None"
) -> None:
    """Be a rank of a gang until the other side closes the connection: load the model, be given prompts, then calls.
    Only rank 0 says that the gang is ready, and answers. `gpu` numbers all ranks of a render; where there are fewer
    GPUs, ranks share them."""
    from serving.render.rank import GangBroken, Rank

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(gpu % torch.cuda.device_count())
        rank = Rank(model_name, shape, index)
        if meeting is not None:
            rank.join(meeting)
        if index == 0:
            connection.send(GangReady(rank.numerics))
        while True:
            message = connection.recv()
            if isinstance(message, Prompts):
                rank.keep_prompts(_FILM, message.embeddings)
                continue
            assert isinstance(message, CallInput)
            output = rank.predict(message, _FILM)
            if index == 0:
                connection.send(output)
    except (EOFError, BrokenPipeError, ConnectionResetError, GangBroken):
        return
    except Exception:
        connection.send(GangError(traceback.format_exc()))


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
