"""The gangs of a render in one process tree: a process for each rank, one call after the other.

As many threads as the gang's shape says, whatever the machine, so that a film's bytes do not depend on how many gangs
render it.
"""

import traceback
from multiprocessing.connection import Connection

import torch

from serving.errors import GangBroken, ModelError
from serving.render.messages import FilmInputs, GangCall, GangError, GangReady
from serving.render.rank import Meeting, Rank


def run_rank(
    connection: Connection, model_name: str, shape: str, index: int, gpu: int, meeting: Meeting | None
) -> None:
    """Be a rank of a gang until the other side closes the connection: load the model, be given inputs, then calls.
    Only rank 0 says that the gang is ready, and answers. `gpu` numbers all ranks of a render; where there are fewer
    GPUs, ranks share them."""
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
            if isinstance(message, FilmInputs):
                for take_key, inputs in message.takes.items():
                    rank.keep_inputs(take_key, inputs, most=len(message.takes))
                continue
            assert isinstance(message, GangCall)
            output = rank.predict(message.content, message.take_key)
            if index == 0:
                connection.send(output)
    except (EOFError, BrokenPipeError, ConnectionResetError, GangBroken):
        return
    except ModelError as error:
        connection.send(GangError(str(error), model_unfit=True))
    except Exception:
        connection.send(GangError(traceback.format_exc()))
