"""An App's coordinator, in a thread with an event loop of its own: this process's, or the way to that of
another which has the file.

So it serves every loop and thread of the process alike, and a handler that blocks the loop of a worker blocks
neither the coordinator nor the heartbeats that reach it. A script may end without closing it: what was
acknowledged is stored, and the thread and its locks go with the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from lineshaft.embedded.bridge import refuse_calls_to
from lineshaft.embedded.coordinator import Coordinator
from lineshaft.embedded.joining import Joined
from lineshaft.embedded.joining_search import Manner, open_or_join
from lineshaft.errors import Unavailable
from lineshaft.sdk.failures import AppClosed
from lineshaft.sdk.forking import forget_in_child, keep
from lineshaft.sdk.loop_thread import LoopThread
from lineshaft.wire import Call, PushedDirective

INTERREGNUM = 5.0
"""Seconds that a call waits for the successor of an owner that has ended, before it is told to try again."""

_log = logging.getLogger("lineshaft.embedded")


class ThreadedCoordinator:
    """Opens the store at `url` with the first call, or joins who has it open; see `Serves`."""

    def __init__(self, url: str, manner: Manner) -> None:
        self.url = url
        self._manner = manner
        self._thread = LoopThread("lineshaft-coordinator")
        self._opening: asyncio.Task[Coordinator | Joined] | None = None
        self._pid: int | None = None
        self._closed = False
        self._closing = False
        forget_in_child(self)

    def forked(self) -> None:
        """See `Forgets`: the coordinator is the parent's, the child opens or joins for itself."""
        keep(self._opening)
        self._opening = self._pid = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the thread. Raises AppClosed after `close`, which must not start it again."""
        if self._closed:
            raise AppClosed("this App was closed")
        return self._thread.loop

    async def call(
        self,
        call: Call,
        *,
        id: str | None,
        query: msgspec.Struct | None,
        body: Any,
        traceparent: str | None,
        timeout: float | None = None,
    ) -> Any:
        """See `Serves.call`. Raises StoreInUse and the like while the store can be neither opened nor
        joined.
        """
        home = await self.opened()
        return await home.call(call, id=id, query=query, body=body, traceparent=traceparent, timeout=timeout)

    def give_back(self, answer: Any) -> None:
        """See `Serves.give_back`."""
        opening = self._opening
        if opening is not None and opening.done():
            opening.result().give_back(answer)

    async def directives(
        self, workers: Collection[tuple[str, str | None]], tell: Callable[[PushedDirective], None]
    ) -> None:
        """See `Serves.directives`; while the coordinator is another process's its sessions tell of them."""
        while isinstance(home := await self.opened(), Joined):
            await asyncio.wait([home.ended])
        await home.directives(workers, tell)

    async def where(self) -> str | None:
        """Return the address of the process that has the store, None where that is this one."""
        home = await self.opened()
        return home.url if isinstance(home, Joined) else None

    async def opened(self) -> Coordinator | Joined:
        """Give the coordinator, opening or joining it where that was not done; awaited in `loop`.

        Raises Unavailable where an owner has ended and nobody has taken over yet.
        """
        if self._opening is None:
            self._pid = os.getpid()
            self._opening = asyncio.create_task(open_or_join(self.url, self._manner))
            self._opening.add_done_callback(self._was_opened)
        opening = self._opening
        if not opening.done():
            await asyncio.wait([opening], timeout=INTERREGNUM)
            if not opening.done():
                raise Unavailable(f"nobody serves {self.url} at the moment: it is being taken over")
        try:
            return opening.result()
        except BaseException:
            if self._opening is opening:
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
        self._closing = True
        opening, self._opening = self._opening, None
        if opening is not None:
            if not opening.done():
                opening.cancel()
            await asyncio.wait({opening})
            if not opening.cancelled() and opening.exception() is None:
                await opening.result().close()

    def _was_opened(self, opening: asyncio.Task[Coordinator | Joined]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            home = opening.result()
            if isinstance(home, Joined):
                home.ended.add_done_callback(lambda _: self._owner_ended(opening, home))

    def _owner_ended(self, opening: asyncio.Task[Coordinator | Joined], joined: Joined) -> None:
        """Look for another at once, or become it: timers and leases must not wait for our next call."""
        if self._closing or self._opening is not opening:
            return
        _log.info("process %d does not serve %s any more", joined.holder.pid, self.url)
        self._opening = asyncio.get_running_loop().create_task(self._succeed(joined))
        self._opening.add_done_callback(self._was_opened)

    async def _succeed(self, joined: Joined) -> Coordinator | Joined:
        leaving = asyncio.create_task(joined.leave())
        try:
            home = await open_or_join(self.url, self._manner, for_ever=True)
        finally:
            await asyncio.wait([leaving])
        if isinstance(home, Coordinator):
            _log.info("this process serves %s now", self.url)
        return home
