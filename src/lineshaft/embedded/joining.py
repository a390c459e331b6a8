"""The coordinator of another process that has the file: how one finds it, calls it, and sees its end.

A line is kept open to the owner on which nothing is said. Its end is the end of the owner, or of its serving,
whatever way it came about, and costs no look at a clock. Then everybody tries to take the file; the lock
lets one of them, and the others join that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec

from lineshaft.embedded.joining_socket import peer_is_ours
from lineshaft.errors import LineshaftError, Unavailable
from lineshaft.sdk import reports
from lineshaft.sdk.forking import leave_to_parent, whole_imports
from lineshaft.sdk.outcomes import Released
from lineshaft.sdk.tracing import traceparent as current_trace
from lineshaft.store.base import StoreUnusable
from lineshaft.store.file_lock import Holder, holder_of
from lineshaft.wire import CALLS, Call, ClaimedTask, Report

CONNECT = 5.0
"""Seconds for a line to somebody on this machine."""

SHORT = 1.0
"""Seconds that a line lives at least where somebody serves."""

AFTERMATH = 0.5
"""Seconds that a call which failed waits at most to hear whether the owner has ended."""

Line: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Joined:
    """The calls of the owner, for this process; bound to the event loop that joined."""

    def __init__(self, path: str, holder: Holder, line: Line, key: str | None) -> None:
        self.url = url = holder.address
        self.holder = holder
        self._path = path
        self._reader, self._writer = line
        with whole_imports:
            # Here and not above: an App that has the file itself needs no client.
            from lineshaft.sdk.http import HttpTransport

        # A call that fails is repeated by whoever made it, at the next owner.
        self._transport = HttpTransport(url, api_key=key, retry_for=0)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._left = False
        self.ended: asyncio.Task[None] = asyncio.get_running_loop().create_task(self._until_lost())

    @classmethod
    async def open(cls, path: str, holder: Holder, *, api_key: str | None) -> Joined | None:
        """Connect to who says to have the file at `path`; None where it cannot be reached: it may have ended.

        Raises StoreUnusable where the socket is another user's.
        """
        line = await _connect(holder.address)
        return None if line is None else cls(path, holder, line, api_key)

    async def call(
        self,
        call: Call,
        *,
        id: str | None,
        query: msgspec.Struct | None,
        body: Any,
        traceparent: str | None,
        timeout: float | None,
    ) -> Any:
        """Make a call; raises Unavailable, to be repeated, where the owner has ended meanwhile."""
        context = contextvars.copy_context()
        context.run(current_trace.set, traceparent)
        made = self._transport.call(call, id=id, query=query, body=body, timeout=timeout)
        # Whoever calls us may be no task, and the client's library needs one.
        calling = asyncio.get_running_loop().create_task(self._made(made), context=context)
        self._under_way.add(calling)
        calling.add_done_callback(self._under_way.discard)
        return await calling

    def give_back(self, answer: Any) -> None:
        """Release the tasks of an answer that nobody waits for any more."""
        tasks: list[ClaimedTask] | None = getattr(answer, "tasks", None)
        if tasks and isinstance(tasks[0], ClaimedTask):
            releasing = asyncio.get_running_loop().create_task(self._release(tasks))
            self._under_way.add(releasing)
            releasing.add_done_callback(self._under_way.discard)

    async def leave(self) -> None:
        """Hang up after the owner's end: answers that have arrived are still read, what is left fails."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=AFTERMATH)
        self._left = True
        await self.close()

    async def close(self) -> None:
        """Hang up; idempotent."""
        for one in (*self._under_way, self.ended):
            one.cancel()
        await asyncio.gather(*self._under_way, self.ended, return_exceptions=True)
        self._writer.close()
        await self._transport.close()

    async def _made(self, made: Any) -> Any:
        try:
            return await made
        except asyncio.CancelledError:
            if self._left:
                raise Unavailable("it has ended, another takes over") from None
            raise
        except Unavailable as error:
            # Where the owner has gone there is nothing to wait for but its successor.
            within = AFTERMATH if error.retry_after is None else min(AFTERMATH, error.retry_after)
            await asyncio.wait([self.ended], timeout=within)
            if self.ended.done():
                raise Unavailable(f"{error.reason}; it has ended, another takes over") from None
            raise

    async def _release(self, tasks: list[ClaimedTask]) -> None:
        items: list[Any] = [reports.outcome(task, Released()) for task in tasks]
        with contextlib.suppress(LineshaftError):
            await self._transport.call(CALLS["report"], body=Report(items=items))

    async def _until_lost(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            since = loop.time()
            with contextlib.suppress(OSError):
                await self._reader.read(1)
            self._writer.close()
            # A line that was idle for long may be closed although the owner lives.
            if loop.time() - since < SHORT or holder_of(self._path) != self.holder:
                return
            line = await _connect(self.url)
            if line is None:
                return
            self._reader, self._writer = line


async def _connect(url: str) -> Line | None:
    """Open a line; None where nobody answers. Raises StoreUnusable where another user does."""
    try:
        async with asyncio.timeout(CONNECT):
            line = await _connected(url)
    except (OSError, ValueError, TimeoutError):
        return None
    leave_to_parent(line[1].transport)
    return line


async def _connected(url: str) -> Line:
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname and parts.port:
        return await asyncio.open_connection(parts.hostname, parts.port)
    if parts.scheme != "unix":
        raise ValueError(url)
    path = unquote(parts.path)
    line = await asyncio.open_unix_connection(path)
    if not peer_is_ours(line[1].get_extra_info("socket")):
        line[1].close()
        raise StoreUnusable(
            f"{path} is the socket of another user: whoever shares a store must run as one user, or through "
            "`lineshaft serve`"
        )
    return line
