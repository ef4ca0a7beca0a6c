"""Gangs for tests: real processes that speak gloo, each kept for the whole session."""

import contextlib
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from serving.render.local.processes import start_process
from sharding.gang_groups import GangGroups, make_groups
from sharding.gang_shape import GangShape

ANSWER_S = 120.0
"""Seconds that ranks may take to answer on a busy machine."""


class RankFailed(Exception):
    """What a rank raised."""


class Ranks:
    """The processes of one world. `run` calls a function of a module in each of them, with this rank's groups first."""

    def __init__(self, world: int, *, timeout_s: float = 60.0) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-")
        rendezvous = str(Path(self._folder.name) / uuid.uuid4().hex)
        started = [
            start_process(_serve, rank, world, rendezvous, timeout_s, name=f"rank-{rank}") for rank in range(world)
        ]
        self.processes = [process for process, _ in started]
        self._connections: list[Connection] = [connection for _, connection in started]

    def run(self, work: Callable[..., Any], shape: GangShape, *arguments: Any) -> list[Any]:
        """What each rank answers. Raises RankFailed with the first traceback."""
        answers = self.try_run(work, shape, *arguments)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def try_run(self, work: Callable[..., Any], shape: GangShape, *arguments: Any) -> list[Any]:
        """What each rank answers; RankFailed, EOFError or TimeoutError where it raised, died or said nothing."""
        self.send(work, shape, *arguments)
        return [self.receive(rank) for rank in range(len(self._connections))]

    def send(self, work: Callable[..., Any], shape: GangShape, *arguments: Any) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.send((work, shape, arguments))

    def receive(self, rank: int, *, within_s: float = ANSWER_S) -> Any:
        connection = self._connections[rank]
        if not wait([connection], timeout=within_s):
            return TimeoutError(f"rank {rank} said nothing for {within_s:.0f} s")
        try:
            failed, answer = connection.recv()
        except (EOFError, OSError):
            return EOFError(f"rank {rank} is gone")
        return RankFailed(answer) if failed else answer

    def close(self) -> None:
        for process, connection in zip(self.processes, self._connections, strict=True):
            connection.close()
            process.kill()
            process.join()
        self._folder.cleanup()


class Worlds(dict[int, Ranks]):
    """Ranks by the size of their world, started when they are first asked for."""

    def __missing__(self, world: int) -> Ranks:
        self[world] = Ranks(world)
        return self[world]


@pytest.fixture(scope="session")
def ranks() -> Iterator[Worlds]:
    worlds = Worlds()
    yield worlds
    for world in worlds.values():
        world.close()


@contextlib.contextmanager
def fresh_ranks(world: int, *, timeout_s: float) -> Iterator[Ranks]:
    """Ranks that a test may break."""
    ranks = Ranks(world, timeout_s=timeout_s)
    try:
        yield ranks
    finally:
        ranks.close()


def _serve(connection: Connection, rank: int, world: int, rendezvous: str, timeout_s: float) -> None:
    torch.set_num_threads(1)
    timeout = timedelta(seconds=timeout_s)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world, timeout=timeout)
    groups: dict[GangShape, GangGroups] = {}
    while True:
        try:
            work, shape, arguments = connection.recv()
        except EOFError:
            return
        try:
            if shape not in groups:
                groups[shape] = make_groups(shape, timeout=timeout)
            connection.send((False, work(groups[shape], *arguments)))
        except Exception:
            connection.send((True, traceback.format_exc()))


def all_shapes(most: int) -> Sequence[GangShape]:
    """Every shape of up to `most` ranks."""
    degrees = range(1, most + 1)
    shapes = (GangShape(cfg, ulysses, ring) for cfg in (1, 2) for ulysses in degrees for ring in degrees)
    return [shape for shape in shapes if shape.ranks <= most]
