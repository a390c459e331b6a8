"""One request that has arrived whole and its answer, without a task of its own.

A task costs as much as a whole enqueue: it is scheduled, switched to, watched and thrown away. Here the
coroutine that serves runs at once up to its first wait, and what it waits for runs it on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from lineshaft.server.responses import Response


class Request(msgspec.Struct, frozen=True):
    """The head of a request; `path` and `query` as they came, the names of headers in lower case."""

    method: str
    path: bytes
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]


Serving = Coroutine[Any, Any, "Response | None"]


class _Unheard:
    """Stands where uvicorn tells a task that something came in: nobody listens."""

    def set(self) -> None:
        """Do nothing."""


_UNHEARD = _Unheard()


class Exchange:
    """Steps a coroutine to its end and hands over what it returns.

    It stands where uvicorn's protocol has a `RequestResponseCycle`, and has what is asked of one. In the
    coroutine `asyncio.current_task()` is None, so nothing in it may use `asyncio.timeout`.
    """

    __slots__ = (
        "_awaited",
        "_cancelled",
        "_coroutine",
        "_loop",
        "_write",
        "body",
        "disconnected",
        "keep_alive",
        "more_body",
        "request",
        "response_complete",
    )

    message_event = _UNHEARD

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        request: Request,
        write: Callable[[Exchange, Response], None],
        *,
        keep_alive: bool,
    ) -> None:
        """`write` is called once, with the answer, unless nobody is to be answered."""
        self._loop = loop
        self.request = request
        self._write = write
        self._coroutine: Serving | None = None
        self._awaited: asyncio.Future[Any] | None = None
        self._cancelled = False
        self.body: list[bytes] = []
        self.more_body = True
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False

    @property
    def response_started(self) -> bool:
        """Whether a part of the answer has been written: it is written whole."""
        return self.response_complete

    def begin(self, serving: Serving) -> None:
        """Run the coroutine as far as it goes; what it waits for runs it on."""
        self._coroutine = serving
        self._step()

    def cancel(self) -> None:
        """Let the coroutine end with `CancelledError`, as a task would."""
        if self._awaited is not None:
            self._awaited.cancel()
        else:
            self._cancelled = True  # at its next wait

    def _step(self, _: Any = None) -> None:
        coroutine = self._coroutine
        assert coroutine is not None
        self._awaited = None
        try:
            awaited = coroutine.send(None)
        except StopIteration as end:
            self._coroutine = None
            if end.value is not None:
                self._write(self, end.value)
            return
        if awaited is None:
            self._loop.call_soon(self._step)
            return
        # As a task does it: the future wants to see that whoever yielded it was understood.
        awaited._asyncio_future_blocking = False
        awaited.add_done_callback(self._step)
        self._awaited = awaited
        if self._cancelled:
            self._cancelled = False
            awaited.cancel()
