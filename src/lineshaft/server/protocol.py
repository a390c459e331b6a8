"""Uvicorn's HTTP protocol with what a coordinator that faces anybody needs besides.

* A request that has not arrived whole in time is answered with 408, so that nobody holds
  a connection by sending slowly.
* A head that is too large (431) or malformed (400) is answered in JSON, as every error is.
* What serves a request is cancelled when its client has gone, so that nothing waits for nobody.
* A request whose body has a length, and is not large, is served without a task of its own (`Exchange`).
  Everything rarer (chunks, 100-continue, streams, what was sent ahead) goes through uvicorn's cycle.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from lineshaft.errors import LineshaftError, Malformed, RequestTimeout, Unavailable
from lineshaft.server.answering import AnsweringProtocol, ClientGone
from lineshaft.server.exchange import Exchange, Request
from lineshaft.server.responses import Response, date_line
from lineshaft.server.settings import Limits
from lineshaft.wire import SESSION_PATH

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

_log = logging.getLogger("lineshaft.server")
_LINGER = 1.0
_SAY_AGAIN = 60.0
_PIPELINED = 16
"""Requests read ahead of the one that is served, where that may take long."""
_AHEAD = 256
"""Requests that may stand behind the one that is served; a single read may bring thousands."""
_OFFER = re.compile(rb"\r\nupgrade:(?=[ \t]*h2c)", re.IGNORECASE)
_SESSION_PATH = SESSION_PATH.encode()
_SPECIAL = frozenset({b"accept", b"expect", b"transfer-encoding", b"upgrade"})
"""Headers whose requests may need more than one reading and one writing."""
_PLAIN_BODY = 1 << 20

Respond = Callable[..., Coroutine[Any, Any, "Response | None"]]


class HeadTooLarge(Malformed):
    """The request line and headers are above the limit."""

    type = "too_large"
    status = 431


class EdgeProtocol(AnsweringProtocol):
    """One connection. `limits` is set on a subclass, see `protocol_with`."""

    limits = Limits()
    respond_to: Respond
    silent_until = -math.inf
    """When (of the event loop) it may be said again that there are too many connections."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._in_head = False
        self._head_size = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._refusal: LineshaftError | None = None
        self._deaf = False
        self._eof = False
        self._minds_leaving = False
        self._serving: asyncio.Task[None] | Exchange | None = None
        self._whole: Exchange | None = None
        """Has arrived whole and is served as soon as the parser has let go."""

    # -- the connection --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        most = self.limits.connections
        if most is not None and len(self.connections) > most:
            self._turn_away(most)
            return
        # A client that connects and says nothing is treated like one that has nothing more to say.
        self._await_next()

    def _turn_away(self, most: int) -> None:
        """Close at once: whoever waits for room here would take it from those who have some."""
        if (now := self.loop.time()) >= EdgeProtocol.silent_until:
            EdgeProtocol.silent_until = now + _SAY_AGAIN
            _log.warning("%d connections are open, no more are taken", most)
        self._deaf = True
        self.transport.write(self._last_words(Unavailable("too many connections are open", retry_after=1)))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        serving, served = self._serving, self._served
        super().connection_lost(exc)
        self._look_no_more()
        self._watch_no_more()
        for waiting, _ in self.pipeline:
            waiting.disconnected = True
        self.pipeline.clear()
        if serving is not None and served is not None and not served.response_complete:
            served.disconnected = True
            served.message_event.set()
            serving.cancel()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the line open for an answer under way, unless it would be wrong to give it to nobody.

        A client that has closed altogether looks just like one that will only not say more.
        """
        self._eof = True
        if not self._busy or self._receiving or self._minds_leaving:
            return False
        self.cycle.keep_alive = False
        return True

    def mind_leaving(self) -> None:
        """Take the end of what the client says for its leaving while the request being served lasts.

        For requests that wait or lease. Raises `ClientGone` where that has happened already.
        """
        if self._eof:
            raise ClientGone
        self._minds_leaving = True
        self.flow.resume_reading()

    def leave(self) -> None:
        """End the request being served without an answer."""
        if self._served is not None:
            self._served.disconnected = True
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        # A head that comes in one small piece is small; only others are counted.
        self._head_counts = self._in_head or len(data) > self.limits.head
        if b"h2c" in data and (self._in_head or not self._receiving):
            data = _without_offers(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._serve_whole()
            if self._should_upgrade():
                if data[upgrade.args[0] :] or self._busy:
                    self._refuse(Malformed("a handshake is the last that is sent until it is answered"))
                    return
                self._disarm()
                self._look_no_more()
                self.handle_websocket_upgrade()
            elif rest := data[upgrade.args[0] :]:
                self.data_received(rest)  # what was offered is passed over, so HTTP goes on
            return
        except httptools.HttpParserError as error:
            self._serve_whole()
            self._refuse(self._refusal or Malformed(f"not HTTP/1.1: {error}"))
            return
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > self.limits.head:
                self._refuse(self._head_too_large())
                return
        self._serve_whole()
        if self._receiving and self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.receive, self._too_slow)

    # -- the parser's callbacks --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _AHEAD:
            self._raise(Malformed(f"more than {_AHEAD} requests were sent ahead of their answers"))
        self._receiving = self._in_head = True
        self._idle_since = None
        self._head_size = 0
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.head:
            self._raise(self._head_too_large())

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_counts:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self.limits.head:
                self._raise(self._head_too_large())
        if not self.url.startswith(b"/"):
            self._raise(Malformed("the request target must be a path"))
        if not self._busy and self._is_plain():
            self.cycle = Exchange(
                self.loop,
                Request(self.parser.get_method().decode(), *_split(self.url), "1.1", self.headers),
                self._answer,
                keep_alive=self.parser.should_keep_alive(),
            )
            return
        self._make_scope()
        super().on_headers_complete()
        if self._minds_leaving and 0 < len(self.pipeline) < _PIPELINED:
            self.flow.resume_reading()  # else one would not see that the client leaves

    def _is_plain(self) -> bool:
        """Tell whether the request needs no cycle: it is of HTTP/1.1, with a body of known length."""
        if self.parser.get_http_version() != "1.1" or self.parser.should_upgrade():
            return False
        length = 0
        for name, value in self.headers:
            if name in _SPECIAL and not (name == b"accept" and b"event-stream" not in value.lower()):
                return False
            if name == b"content-length":
                length = int(value)  # the parser has let digits only pass
        return length <= _PLAIN_BODY

    def _make_scope(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        self.scope["lineshaft.protocol"] = self  # type: ignore[typeddict-unknown-key]
        self.server_state.default_headers = [(b"date", date_line()[6:-2])]

    def _serve_whole(self) -> None:
        """Serve the request that has arrived whole, if one has."""
        exchange = self._whole
        if exchange is None:
            return
        self._whole = None
        self._serving = self._served = exchange
        self._minds_leaving = False
        exchange.begin(
            self.respond_to(exchange.request, b"".join(exchange.body), line=self, serving=exchange)
        )

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if type(cycle) is Exchange:
            cycle.body.append(body)
        else:
            super().on_body(body)

    def _should_upgrade(self) -> bool:
        path = self.url.partition(b"?")[0]
        return self.scope["method"] == "GET" and path == _SESSION_PATH and super()._should_upgrade()

    def on_message_complete(self) -> None:
        self._receiving = False
        if self._deadline is not None:
            self._disarm()
        cycle = self.cycle
        if type(cycle) is Exchange and cycle.more_body:
            cycle.more_body = False
            self._whole = cycle
            return
        super().on_message_complete()
        if self._served is not None and not self._busy:
            # It was answered before it had come whole, and reading on has stopped the clock of idle lines.
            self._await_next()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._serving, self._served = task, cycle
        self._minds_leaving = False

    # -- refusals ----------------------------------------------------------------------------------

    def _head_too_large(self) -> HeadTooLarge:
        return HeadTooLarge(f"the request line and headers are above {self.limits.head} bytes")

    def _raise(self, refusal: LineshaftError) -> None:
        """Leave a parser callback; `data_received` gets an `HttpParserError` for it."""
        self._refusal = refusal
        raise refusal

    def _too_slow(self) -> None:
        self._deadline = None
        if self.pipeline or (self._in_head and self._busy):
            # It is we who have not read on, being busy with the request before.
            self._deadline = self.loop.call_later(self.limits.receive, self._too_slow)
            return
        if not self._in_head and not self._busy:
            self.transport.close()  # answered long ago, and still the body comes
            return
        self._refuse(RequestTimeout(f"the request did not arrive whole within {self.limits.receive:g} s"))

    @property
    def _busy(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _refuse(self, refusal: LineshaftError) -> None:
        """Answer an unreadable request, and read no more of this connection."""
        self._deaf = True
        self._disarm()
        cycle = self.cycle
        if self._busy and (not cycle.more_body or self.pipeline or self._in_head):
            # A request before this one is still being served: its answer goes first, and is the last.
            cycle.keep_alive = False
            return
        if self._busy:
            answered = cycle.response_started
            cycle.disconnected = True
            cycle.message_event.set()
            if self._serving is not None:
                self._serving.cancel()
            if answered:
                self.transport.close()
                return
        if not self.transport.is_closing():
            self.transport.write(self._last_words(refusal))
            self._hang_up()

    def _hang_up(self) -> None:
        """Close, but let what is still coming in be read: a reset would destroy the answer under way."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(_LINGER, self.transport.close)
        else:
            self.transport.close()

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _split(url: bytes) -> tuple[bytes, bytes]:
    """Return path and query."""
    path, _, query = url.partition(b"#")[0].partition(b"?")
    return path, query


def _without_offers(data: bytes) -> bytes:
    """Rename offers to go on in HTTP/2: the parser would pass over the body of a request that makes one."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return _OFFER.sub(b"\r\nx-offer:", head) + end + rest


def protocol_with(limits: Limits, respond: Respond) -> type[EdgeProtocol]:
    """Return the protocol with these limits; uvicorn makes one instance for each connection.

    `respond` is what answers a request that has come whole, see `Application.respond`.
    """
    members = {"limits": limits, "respond_to": staticmethod(respond)}
    return type("LimitedEdgeProtocol", (EdgeProtocol,), members)
