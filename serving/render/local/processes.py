"""How the processes of a render are started: forked from one server that has imported the model libraries once.

Importing torch and diffusers takes four CPU seconds; with a process for each gang that would be most of a short render,
and of the time to replace a gang that died. The server runs no model itself, so no thread is lost in a fork. Where
there is a GPU each process is started afresh: importing the libraries asks CUDA how many there are, and CUDA cannot be
used after a fork.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

PRELOADED = (
    "diffusers.models.autoencoders.autoencoder_kl_wan",
    "diffusers.models.transformers.transformer_wan",
    "serving.render.local.finisher",
    "serving.render.local.gang",
)


def begin_server() -> None:
    """Let the server begin to import, in the background; else the first `start_process` waits for it."""
    if _start_method() == "forkserver":
        multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
        with _interrupts_held():
            forkserver.ensure_running()


def start_process(run: Callable[..., None], *arguments: object, name: str) -> tuple[BaseProcess, Connection]:
    """Start `run(connection, *arguments)` in a process of its own; returns it and our end of the connection.

    It ends with us: when we are gone, by whatever death, its connection reads as an end of file.
    """
    begin_server()
    context: Any = multiprocessing.get_context(_start_method())
    ours, theirs = context.Pipe()
    process: BaseProcess = context.Process(target=run, args=(theirs, *arguments), name=name, daemon=True)
    with contextlib.nullcontext() if _start_method() == "forkserver" else _interrupts_held():
        process.start()
    theirs.close()
    return process, ours


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C goes to every process of a terminal, but is this process's to handle: what is started in here never sees
    it, from its first instruction on, for a process inherits the signals that are blocked."""
    resource_tracker.ensure_running()  # of multiprocessing's own; starting it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_method() -> Literal["forkserver", "spawn"]:
    import torch

    return "spawn" if torch.cuda.is_available() else "forkserver"
