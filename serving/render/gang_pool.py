"""The gangs of one render: starts their processes, gives out calls, and replaces a gang that dies.

A call is idempotent, so the call of a dead gang is simply given out again. Deaths are bounded: a call that kills every
gang it meets must end the render instead of restarting gangs for ever.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from serving import settings
from serving.errors import Fault
from serving.render.gang import run_gang
from serving.render.messages import CallInput, CallOutput, GangError, GangReady, Prompts
from serving.render.processes import start_process

Ticket = TypeVar("Ticket")
"""What the caller knows a call by."""


@dataclass
class _Gang(Generic[Ticket]):
    process: BaseProcess
    connection: Connection
    ready: bool = False
    ticket: Ticket | None = None
    """Of its present call; None while it is idle."""


@dataclass(frozen=True)
class Answer(Generic[Ticket]):
    """A call that a gang has finished."""

    ticket: Ticket
    output: CallOutput


@dataclass(frozen=True)
class Lost(Generic[Ticket]):
    """A call whose gang died: give it out again."""

    ticket: Ticket


class GangPool(Generic[Ticket]):
    """`size` gangs of one thread each, all with the same model and prompts. Close it to end their processes."""

    def __init__(self, model_name: str, prompts: Prompts, size: int) -> None:
        self._model_name = model_name
        self._prompts = prompts
        self._deaths = 0
        self.numerics: dict[str, str] = {}
        self._gangs: list[_Gang[Ticket]] = [self._start() for _ in range(size)]

    @property
    def num_idle(self) -> int:
        """Gangs that wait for a call."""
        return sum(gang.ready and gang.ticket is None for gang in self._gangs)

    @property
    def connections(self) -> list[Connection]:
        """What to wait on for `events`."""
        return [gang.connection for gang in self._gangs]

    def give(self, ticket: Ticket, call: CallInput) -> None:
        """Give a call to an idle gang; its Answer, or Lost, comes with the ticket."""
        gang = next(gang for gang in self._gangs if gang.ready and gang.ticket is None)
        gang.ticket = ticket
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its death shows in `events`
            gang.connection.send(call)

    def events(self) -> Iterator[Answer[Ticket] | Lost[Ticket]]:
        """What the gangs have reported, without waiting. Raises Fault when gangs raise, or die too often."""
        for index, gang in enumerate(self._gangs):
            if not wait([gang.connection], timeout=0):
                continue
            try:
                message = gang.connection.recv()
            except (EOFError, ConnectionResetError):
                yield from self._replace(index)
                continue
            if isinstance(message, GangError):
                raise Fault(f"a gang failed:\n{message.text}")
            if isinstance(message, GangReady):
                self._greet(gang, message)
                continue
            assert isinstance(message, CallOutput)
            ticket, gang.ticket = gang.ticket, None
            assert ticket is not None
            yield Answer(ticket, message)

    def close(self) -> None:
        """End every gang, whatever it is doing."""
        for gang in self._gangs:
            gang.connection.close()
            gang.process.terminate()
        for gang in self._gangs:
            gang.process.join()

    def _start(self) -> _Gang[Ticket]:
        process, connection = start_process(run_gang, self._model_name, name="longtake-gang")
        return _Gang[Ticket](process, connection)

    def _greet(self, gang: _Gang[Ticket], message: GangReady) -> None:
        gang.ready = True
        if self.numerics and self.numerics != message.numerics:
            raise Fault(f"gangs of one render disagree on numerics: {self.numerics} and {message.numerics}")
        self.numerics = message.numerics
        gang.connection.send(self._prompts)

    def _replace(self, index: int) -> Iterator[Lost[Ticket]]:
        dead: _Gang[Ticket] = self._gangs[index]
        dead.process.join()
        self._deaths += 1
        if self._deaths > settings.MAX_GANG_DEATHS:
            raise Fault(f"{self._deaths} gangs died (the last with exit code {dead.process.exitcode}); giving up")
        dead.connection.close()
        self._gangs[index] = self._start()
        if dead.ticket is not None:
            yield Lost(dead.ticket)
