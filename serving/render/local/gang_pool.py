"""The gangs of one render: starts their processes, gives out calls, and replaces a gang that dies.

A call is idempotent, so the call of a dead gang is simply given out again. Deaths are bounded: a call that kills every
gang it meets must end the render instead of restarting gangs forever. A gang dies as a whole: without one of its ranks
the others are of no use.
"""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from torch._C._distributed_c10d import TCPStore

from serving.errors import Fault, ModelError
from serving.render.local.gang import run_rank
from serving.render.local.processes import start_process
from serving.render.messages import CallOutput, FilmInputs, GangCall, GangError, GangReady
from serving.render.rank import Meeting
from sharding.gang_shape import GangShape

MAX_GANG_DEATHS = 3
"""Gang processes that may die in one render before it is given up."""


Ticket = TypeVar("Ticket")
"""What the caller knows a call by."""

_HERE = "127.0.0.1"


@dataclass
class _Gang(Generic[Ticket]):
    ranks: list[tuple[BaseProcess, Connection]]
    """Rank 0 answers for all."""
    ready: bool = False
    ticket: Ticket | None = None
    """Of its present call; None while it is idle."""

    @property
    def connections(self) -> list[Connection]:
        return [connection for _, connection in self.ranks]

    def send(self, message: object) -> None:
        for connection in self.connections:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its death shows in `events`
                connection.send(message)


@dataclass(frozen=True)
class CallAnswer(Generic[Ticket]):
    """A call that a gang has finished."""

    ticket: Ticket
    output: CallOutput


@dataclass(frozen=True)
class Lost(Generic[Ticket]):
    """A call whose gang died: give it out again."""

    ticket: Ticket


class GangPool(Generic[Ticket]):
    """`size` gangs of one shape, all with the same model and film. Close it to end their processes."""

    def __init__(self, model_name: str, inputs: FilmInputs, size: int, *, shape: GangShape) -> None:
        self._model_name = model_name
        self._inputs = inputs
        self._shape = shape
        self._deaths = 0
        self._names = itertools.count()
        # Where the ranks of all gangs meet; a gang of one rank needs none.
        self._store = TCPStore(_HERE, 0, is_master=True, wait_for_workers=False) if shape.ranks > 1 else None
        self.numerics: dict[str, str] = {}
        self._gangs: list[_Gang[Ticket]] = [self._start(index) for index in range(size)]

    @property
    def num_idle(self) -> int:
        """Gangs that wait for a call."""
        return sum(gang.ready and gang.ticket is None for gang in self._gangs)

    @property
    def connections(self) -> list[Connection]:
        """What to wait on for `events`."""
        return [connection for gang in self._gangs for connection in gang.connections]

    def give(self, ticket: Ticket, call: GangCall) -> None:
        """Give a call to an idle gang; its CallAnswer, or Lost, comes with the ticket."""
        gang = next(gang for gang in self._gangs if gang.ready and gang.ticket is None)
        gang.ticket = ticket
        gang.send(call)

    def events(self) -> Iterator[CallAnswer[Ticket] | Lost[Ticket]]:
        """What the gangs have reported, without waiting. Raises ModelError, Fault: gangs raise, or die
        too often."""
        for index, gang in enumerate(self._gangs):
            for connection in wait(gang.connections, timeout=0):
                assert isinstance(connection, Connection)
                try:
                    message = connection.recv()
                except (EOFError, ConnectionResetError):
                    yield from self._replace(index)
                    break
                if isinstance(message, GangError):
                    raise ModelError(message.text) if message.model_unfit else Fault(f"a gang failed:\n{message.text}")
                if isinstance(message, GangReady):
                    self._greet(gang, message)
                    continue
                assert isinstance(message, CallOutput)
                ticket, gang.ticket = gang.ticket, None
                assert ticket is not None
                yield CallAnswer(ticket, message)

    def close(self) -> None:
        """End every gang, whatever it is doing."""
        for gang in self._gangs:
            _end(gang)
        for gang in self._gangs:
            _join(gang)

    def _start(self, index: int) -> _Gang[Ticket]:
        meeting = Meeting(_HERE, self._store.port, str(next(self._names))) if self._store is not None else None
        ranks = range(self._shape.ranks)
        name = "longtake-gang" if self._store is None else "longtake-rank"
        model, shape, first_gpu = self._model_name, str(self._shape), index * self._shape.ranks
        return _Gang[Ticket](
            [start_process(run_rank, model, shape, rank, first_gpu + rank, meeting, name=name) for rank in ranks]
        )

    def _greet(self, gang: _Gang[Ticket], message: GangReady) -> None:
        gang.ready = True
        if self.numerics and self.numerics != message.numerics:
            raise Fault(f"gangs of one render disagree on numerics: {self.numerics} and {message.numerics}")
        self.numerics = message.numerics
        gang.send(self._inputs)

    def _replace(self, index: int) -> Iterator[Lost[Ticket]]:
        dead: _Gang[Ticket] = self._gangs[index]
        gone = next((process for process, _ in dead.ranks if not process.is_alive()), dead.ranks[0][0])
        self._deaths += 1
        _end(dead)
        _join(dead)
        if self._deaths > MAX_GANG_DEATHS:
            raise Fault(f"{self._deaths} gangs died (the last with exit code {gone.exitcode}); giving up")
        self._gangs[index] = self._start(index)
        if dead.ticket is not None:
            yield Lost(dead.ticket)


def _end(gang: _Gang[Ticket]) -> None:
    for process, connection in gang.ranks:
        connection.close()
        process.terminate()


def _join(gang: _Gang[Ticket]) -> None:
    for process, _ in gang.ranks:
        process.join()
