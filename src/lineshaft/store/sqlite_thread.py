"""A thread with a database connection of its own, to which work is handed and from which results come back.

SQLite blocks; so each connection lives in its thread, and the event loop waits for a future. Work runs in the
order in which it was handed over.

While a process forks there are no connections: SQLite keeps in memory, for the whole process, which locks of
a file it holds. A child that inherited that would believe to hold locks that are its parent's, and damage the
file once it opens it. So they are closed before, and opened again in the parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from lineshaft.errors import Unavailable
from lineshaft.store.sqlite_specs import Connection

Result = TypeVar("Result")
_LOOK_AGAIN = 0.05
_KEEP_LOG: int | None = getattr(sqlite3, "SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE", None)


class _Parking:
    """A thread without its connection, until the process has forked."""

    def __init__(self) -> None:
        self.parked = threading.Event()
        self.over = threading.Event()

    def wait(self) -> None:
        self.parked.set()
        self.over.wait()


_Job = tuple[Callable[[Connection], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class ConnectionThread:
    """Run functions of a connection, one after the other, off the event loop."""

    def __init__(self, name: str, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._jobs: queue.SimpleQueue[_Job | _Parking | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"lineshaft-{name}", daemon=True)
        _threads.add(self)

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

    def park(self) -> _Parking | None:
        """Begin to do without the connection; None where there is none. Its jobs wait meanwhile."""
        if not self._thread.is_alive():
            return None
        parking = _Parking()
        self._jobs.put(parking)
        return parking

    def await_parked(self, parking: _Parking) -> None:
        """Wait until the connection is closed, or the thread has ended anyway."""
        while not parking.parked.wait(_LOOK_AGAIN) and self._thread.is_alive():
            pass

    def _run(self) -> None:
        connection: Connection | None = None
        try:
            connection = self._connect()
        except Exception as error:
            self._refuse(error)
            return
        try:
            while (job := self._jobs.get()) is not None:
                if isinstance(job, _Parking):
                    _close_for_a_moment(connection)
                    connection = None
                    job.wait()
                    continue
                work, loop, done = job
                try:
                    if connection is None:
                        connection = self._connect()
                    result = work(connection)
                except BaseException as error:
                    _answer(loop, done, error=error)
                else:
                    _answer(loop, done, result)
                # Else a large result would be kept until the next job comes.
                del job, work, done
        finally:
            if connection is not None:
                connection.close()

    def _refuse(self, error: Exception) -> None:
        while (job := self._jobs.get()) is not None:
            if isinstance(job, _Parking):
                job.wait()
            else:
                _answer(job[1], job[2], error=error)


_threads: weakref.WeakSet[ConnectionThread] = weakref.WeakSet()
_parked: list[_Parking] = []
_fork_guard = threading.Lock()


def _before_fork() -> None:
    _fork_guard.acquire()
    waiting = [(thread, thread.park()) for thread in list(_threads)]
    for thread, parking in waiting:
        if parking is not None:
            thread.await_parked(parking)
            _parked.append(parking)


def _after_fork_in_parent() -> None:
    while _parked:
        _parked.pop().over.set()
    _fork_guard.release()


def _after_fork_in_child() -> None:
    _fork_guard.release()
    _parked.clear()
    _threads.clear()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)


def _close_for_a_moment(connection: Connection | None) -> None:
    if connection is not None:
        if _KEEP_LOG is not None:
            # Else whoever forks would wait until all of the log is written back.
            connection.setconfig(_KEEP_LOG, True)  # type: ignore[attr-defined,unused-ignore]
        connection.close()


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
