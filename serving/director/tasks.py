"""Work that a Director does beside its loop."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any


class Tasks:
    """The tasks of one Director that are under way."""

    def __init__(self) -> None:
        self.running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], *, failed: Callable[[Exception], Awaitable[None]]) -> None:
        """Do it beside the loop; `failed` is told of what it raises."""

        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                await failed(error)

        task = asyncio.ensure_future(guarded())
        self.running.add(task)
        task.add_done_callback(self.running.discard)
