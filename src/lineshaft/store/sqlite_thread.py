"""A thread with a database connection of its own, to which work is handed and from which results come back.

SQLite blocks; so each connection lives in its thread, and the event loop waits for a future. Work runs in the
order in which it was handed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from lineshaft.errors import Unavailable
from lineshaft.store.sqlite_specs import Connection

Result = TypeVar("Result")
_Job = tuple[Callable[[Connection], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class ConnectionThread:
    """Run functions of a connection, one after the other, off the event loop."""

    def __init__(self, name: str, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"lineshaft-{name}", daemon=True)

    async def start(self) -> None:
        """Start, and wait for the connection; raises what connecting raised."""
        self._thread.start()
        await self.run(lambda _: None)

    async def run(self, work: Callable[[Connection], Result]) -> Result:
        """Return what `work` returns; it is done even if the waiting is cancelled."""
        if self._closed:
            raise Unavailable("the store is closed")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()
        self._jobs.put((work, loop, done))
        return await done

    async def stop(self) -> None:
        """Finish what was handed over, close the connection and end the thread; idempotent."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            connection = self._connect()
        except Exception as error:
            self._refuse(error)
            return
        try:
            while (job := self._jobs.get()) is not None:
                work, loop, done = job
                try:
                    result = work(connection)
                except BaseException as error:
                    _answer(loop, done, error=error)
                else:
                    _answer(loop, done, result)
                # Else a large result would be kept until the next job comes.
                del job, work, done
        finally:
            connection.close()

    def _refuse(self, error: Exception) -> None:
        while (job := self._jobs.get()) is not None:
            _answer(job[1], job[2], error=error)


def _answer(
    loop: asyncio.AbstractEventLoop,
    done: asyncio.Future[Any],
    result: Any = None,
    *,
    error: BaseException | None = None,
) -> None:
    # A loop that was closed while we worked has nobody left to tell.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_settle, done, result, error)


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
