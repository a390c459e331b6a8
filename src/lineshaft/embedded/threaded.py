"""An App's own coordinator, in a thread with an event loop of its own.

So it serves every loop and thread of the process alike, and a handler that blocks the loop of a worker blocks
neither the coordinator nor the heartbeats that reach it. A script may end without closing it: what was
acknowledged is stored, and the thread and its locks go with the process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from lineshaft.embedded.bridge import refuse_calls_to
from lineshaft.embedded.coordinator import Coordinator
from lineshaft.sdk.failures import AppClosed
from lineshaft.sdk.loop_thread import LoopThread
from lineshaft.wire import Call, PushedDirective


class ThreadedCoordinator:
    """Opens the store at `url` with the first call; see `Serves`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._thread = LoopThread("lineshaft-coordinator")
        self._opening: asyncio.Task[Coordinator] | None = None
        self._pid: int | None = None
        self._closed = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the thread. Raises AppClosed after `close`, which must not start it again."""
        if self._closed:
            raise AppClosed("this App was closed")
        return self._thread.loop

    async def call(
        self, call: Call, *, id: str | None, query: msgspec.Struct | None, body: Any, traceparent: str | None
    ) -> Any:
        """See `Serves.call`. Raises StoreInUse and the like while the store cannot be opened."""
        coordinator = await self.opened()
        return await coordinator.call(call, id=id, query=query, body=body, traceparent=traceparent)

    def give_back(self, answer: Any) -> None:
        """See `Serves.give_back`."""
        opening = self._opening
        if opening is not None and opening.done():
            opening.result().give_back(answer)

    async def directives(
        self, workers: Collection[tuple[str, str | None]], tell: Callable[[PushedDirective], None]
    ) -> None:
        """See `Serves.directives`."""
        coordinator = await self.opened()
        await coordinator.directives(workers, tell)

    async def opened(self) -> Coordinator:
        """Give the coordinator, opening it where that was not done; awaited in `loop`."""
        if self._opening is None:
            self._pid = os.getpid()
            self._opening = asyncio.create_task(Coordinator.open(self.url))
        opening = self._opening
        try:
            return opening.result() if opening.done() else await asyncio.shield(opening)
        except BaseException:
            if opening.done() and (opening.cancelled() or opening.exception() is not None):
                self._opening = None  # the next call tries again
            raise

    async def close(self) -> None:
        """Close the store and end the thread; idempotent, from any loop."""
        ours, self._pid = self._pid == os.getpid(), None
        if ours:
            loop = self.loop
            closing = asyncio.run_coroutine_threadsafe(self._close(), loop)
            await asyncio.wrap_future(closing)
            self._closed = True
            await asyncio.to_thread(self._thread.stop)
            refuse_calls_to(loop)
        self._closed = True

    async def _close(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            await asyncio.wait({opening})
            if not opening.cancelled() and opening.exception() is None:
                await opening.result().close()
