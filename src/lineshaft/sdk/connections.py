"""The transports of an App: one for each event loop that uses it, none across a fork.

Sockets and futures belong to an event loop, so a synchronous facade beside a running loop, or one test after
another, must not share them. A child that inherits open sockets by `fork` would mix its bytes with its
parent's; so it opens its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
import weakref
from collections.abc import Callable

from lineshaft.sdk.coalescing import Coalescer
from lineshaft.sdk.failures import AppClosed, ForkedApp
from lineshaft.sdk.forking import forget_in_child, keep
from lineshaft.sdk.transport import Transport
from lineshaft.values.ids import TimeOrderedIds


class Connection:
    """What one event loop has of an App: a transport, enqueues over it, ids that no other loop makes."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.enqueues = Coalescer(transport)
        self._ids = TimeOrderedIds(random.getrandbits)

    async def close(self) -> None:
        """Send away who waits to share a request, and give back the sockets; idempotent."""
        self.enqueues.close()
        await self.transport.close()

    def new_id(self) -> str:
        """Make an id for a task or a claim."""
        return self._ids.next(time.time_ns() // 1_000_000)


class Connections:
    """Opens transports with `opener` when they are first needed.

    Where not `forkable` a child that was forked off cannot use them: what they lead to is in its parent.
    """

    def __init__(self, opener: Callable[[], Transport], *, forkable: bool = True) -> None:
        self.opener = opener
        self._forkable = forkable
        self._lock = threading.Lock()
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Connection]
        self._by_loop = weakref.WeakKeyDictionary()
        self._pid: int | None = None
        self._closed = False
        forget_in_child(self)

    def forked(self) -> None:
        """See `Forgets`."""
        keep(self._by_loop)
        self._lock = threading.Lock()
        self._by_loop = weakref.WeakKeyDictionary()
        if self._forkable:
            self._pid = None

    def current(self) -> Connection:
        """Give the connection of the running loop. Raises ForkedApp, AppClosed."""
        self.check()
        loop = asyncio.get_running_loop()
        found = self._by_loop.get(loop)
        return found if found is not None else self._open(loop)

    def check(self) -> None:
        """Raise ForkedApp where what the App leads to is in the process that this one was forked off from,
        AppClosed after `close`.
        """
        if self._pid is not None and self._pid != os.getpid():
            raise ForkedApp(
                f"this App was open in process {self._pid} when it forked into {os.getpid()}, and its tasks "
                "are in the memory of that process: use sqlite:///… or a coordinator to share them"
            )
        if self._closed:
            raise AppClosed("this App was closed; open it again with `async with app` or `with app.sync`")

    def open(self) -> None:
        """Allow use again after `close`. Raises ForkedApp."""
        self._closed = False
        self.check()

    async def close(self) -> None:
        """Close the transports of every loop that is still running; idempotent."""
        if self._closed or (self._pid is not None and self._pid != os.getpid()):
            return
        self._closed = True
        here = asyncio.get_running_loop()
        for loop, connection in list(self._by_loop.items()):
            if loop is here:
                await connection.close()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(connection.close(), loop)
                await asyncio.wrap_future(closing)
        self._by_loop.clear()

    def _open(self, loop: asyncio.AbstractEventLoop) -> Connection:
        with self._lock:
            self._pid = os.getpid()
            # Sockets hold on to their loop, so no entry goes by itself.
            for ended in [known for known in self._by_loop if known.is_closed()]:
                del self._by_loop[ended]
            connection = Connection(self.opener())
            self._by_loop[loop] = connection
            return connection
