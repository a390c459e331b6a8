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

from lineshaft.embedded.coordinator import Coordinator
from lineshaft.sdk.loop_thread import LoopThread
from lineshaft.wire import Call, PushedDirective


class ThreadedCoordinator:
    """Opens the store at `url` with the first call; see `Serves`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._thread = LoopThread("lineshaft-coordinator")
        self._opening: asyncio.Task[Coordinator] | None = None
        self._pid: int | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the thread."""
        return self._thread.loop

    async def call(
        self, call: Call, *, id: str | None, query: msgspec.Struct | None, body: Any, traceparent: str | None
    ) -> Any:
        """See `Serves.call`. Raises StoreInUse and the like while the store cannot be opened."""
        coordinator = await self.opened()
        return await coordinator.call(call, id=id, query=query, body=body, traceparent=traceparent)

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
        if self._pid == os.getpid():
            closing = asyncio.run_coroutine_threadsafe(self._close(), self.loop)
            await asyncio.wrap_future(closing)
            await asyncio.to_thread(self._thread.stop)
        self._pid = None

    async def _close(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            await asyncio.wait({opening})
            if not opening.cancelled() and opening.exception() is None:
                await opening.result().close()
