"""What goes out on a connection, and how long it may stand with nothing to do.

* An answer is one write, head and body.
* A line that is idle for long is closed; so is one whose client takes nothing of its answers for as long.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lineshaft.errors import LineshaftError
from lineshaft.server.exchange import Exchange
from lineshaft.server.responses import Response, date_line, refusal


class ClientGone(Exception):
    """The client hung up; nobody is there to be answered."""


class AnsweringProtocol(HttpToolsProtocol):
    """The half of a connection that writes."""

    farewell = False
    """Each answer is the last of its connection; set on the class, when the coordinator leaves."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.cycle: Any
        self._served: RequestResponseCycle | Exchange | None = None
        self._receiving = False
        self._idle_since: float | None = None
        self._unread: asyncio.TimerHandle | None = None

    @property
    def gone(self) -> bool:
        """Whether nothing that is written now will reach the client."""
        return bool(self.transport.is_closing())

    async def reach(self) -> None:
        """Wait until the client has read so much of what was written before that more can follow.

        Raises `ClientGone` where it hangs up instead, or already has.
        """
        if self.flow.write_paused:
            await self.flow.drain()
        if self.gone:
            raise ClientGone

    async def respond(self, response: Response) -> None:
        """Answer the request served by a cycle as `send` would, but with one write for head and body."""
        cycle = self._served
        assert isinstance(cycle, RequestResponseCycle)
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        keep_alive = cycle.keep_alive and not self.farewell
        self._write(response, keep_alive=keep_alive, bodiless=cycle.scope["method"] == "HEAD")
        cycle.message_event.set()
        cycle.on_response()

    def _write(self, response: Response, *, keep_alive: bool, bodiless: bool) -> None:
        self.transport.write(_rendered(response, keep_alive=keep_alive, bodiless=bodiless))
        if not keep_alive:
            self.transport.close()

    def _answer(self, exchange: Exchange, response: Response) -> None:
        """Write the answer to a request that was served without a task."""
        if exchange.disconnected:
            return
        if self.flow.write_paused:
            # The client does not read; its next request is not served before it has.
            task = self.loop.create_task(self._answer_later(exchange, response))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            return
        exchange.response_complete = True
        keep_alive = exchange.keep_alive and not self.farewell
        self._write(response, keep_alive=keep_alive, bodiless=exchange.request.method == "HEAD")
        self.on_response_complete()

    async def _answer_later(self, exchange: Exchange, response: Response) -> None:
        await self.flow.drain()
        self._answer(exchange, response)

    def _last_words(self, error: LineshaftError) -> bytes:
        """Return the answer to what cannot be read on, after which the line ends."""
        return _rendered(refusal(error), keep_alive=False)

    # -- with nothing to do --------------------------------------------------------------------------

    def _await_next(self) -> None:
        """Begin to count how long the line is idle; one timer looks again and again, not one a request."""
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def timeout_keep_alive_handler(self) -> None:
        """Close a line that has been idle for long."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _look_no_more(self) -> None:
        """End the timer, which would keep all of this alive after the line has ended, or become a session."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def on_response_complete(self) -> None:
        """Go on with what was sent ahead, or wait for the next request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif not self._receiving:
            self._await_next()

    def pause_writing(self) -> None:
        """The client reads more slowly than it asks; give up one that does not read at all."""
        super().pause_writing()
        self._watch_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has read most of what was written."""
        super().resume_writing()
        self._watch_no_more()

    def _watch_reading(self, left: int) -> None:
        self._unread = self.loop.call_later(self.timeout_keep_alive, self._look_at_reading, left)

    def _look_at_reading(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < before:
            self._watch_reading(left)
        else:
            self.transport.abort()

    def _watch_no_more(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def _rendered(response: Response, *, keep_alive: bool, bodiless: bool = False) -> bytes:
    parts = [STATUS_LINE[response.status], date_line()]
    for name, value in response.all_headers:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
    if not bodiless:
        parts.append(response.body)
    return b"".join(parts)
