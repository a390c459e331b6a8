"""One request that has arrived whole and its answer, without a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from lineshaft.server.responses import Response
from lineshaft.server.stepping import Stepper


class Request(msgspec.Struct, frozen=True):
    """The head of a request; `path` and `query` as they came, the names of headers in lower case."""

    method: str
    path: bytes
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]


class _Unheard:
    """Stands where uvicorn tells a task that something came in: nobody listens."""

    def set(self) -> None:
        """Do nothing."""


_UNHEARD = _Unheard()


class Exchange(Stepper):
    """Steps what serves the request to its end, and hands over the answer.

    It stands where uvicorn's protocol has a `RequestResponseCycle`, and has what is asked of one.
    """

    __slots__ = (
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
        super().__init__(loop)
        self.request = request
        self._write = write
        self.body: list[bytes] = []
        self.more_body = True
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False

    @property
    def response_started(self) -> bool:
        """Whether a part of the answer has been written: it is written whole."""
        return self.response_complete

    def ended(self, value: Response | None) -> None:
        """Answer; None says that nobody is there."""
        if value is not None:
            self._write(self, value)
