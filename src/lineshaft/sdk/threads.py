"""Threads for handlers that are plain functions.

Not a ThreadPoolExecutor, since that one joins its threads when the interpreter exits: a handler that never
returns would keep a worker from ever stopping. These are daemons, made when needed and kept.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

_Job = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Threads:
    """As many threads as functions run at once; the caller bounds them."""

    def __init__(self, name: str = "lineshaft-handler") -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._busy = 0
        self._threads = 0

    async def run(self, function: Callable[[], Any]) -> Any:
        """Run `function` in a thread. Cancelling the caller leaves the thread to finish on its own."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._busy += 1
        if self._busy > self._threads:
            self._threads += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._jobs.put((function, loop, future))
        return await future

    def close(self) -> None:
        """Let the idle threads end; those that run a function end after it."""
        for _ in range(self._threads):
            self._jobs.put(None)
        self._threads = 0

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, loop, future = job
            result: Any = None
            error: BaseException | None = None
            try:
                result = function()
            except BaseException as raised:
                error = _portable(raised)
            try:
                loop.call_soon_threadsafe(self._settle, future, result, error)
            except RuntimeError:  # the loop was closed: nobody waits any more
                return
            job = function = future = result = error = None  # type: ignore[assignment]  # keep nothing alive while idle

    def _settle(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._busy -= 1
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _portable(error: BaseException) -> BaseException:
    """A future refuses StopIteration; what a handler raised must not be able to break the worker."""
    if isinstance(error, StopIteration):
        substitute = RuntimeError(f"StopIteration: {error}")
        substitute.__cause__ = error
        return substitute
    return error
