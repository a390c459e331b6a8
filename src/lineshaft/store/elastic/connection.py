"""One connection to a node: a request at a time in HTTP/1.1, and nothing else.

A commit is one small request, and what a general client does for it costs more than all the rest of it.
"""

from __future__ import annotations

import asyncio

import msgspec


class Broken(Exception):
    """The connection ended before the answer did; `begun` tells whether a part of it had come."""

    def __init__(self, reason: str, *, begun: bool) -> None:
        super().__init__(reason)
        self.begun = begun


class TimedOut(Exception):
    """The answer did not come in time."""


class Response(msgspec.Struct):
    """Status, headers by lower-case name, body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """Sends requests and parses answers; whoever uses it sees to it that there is one at a time."""

    def __init__(self) -> None:
        self.reusable = False
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._buffer = bytearray()
        self._response: Response | None = None
        self._left: int | None = None
        """Bytes of the body that are to come; None: in chunks, or to the end of the connection."""
        self._in_chunks = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.reusable = True

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        response = self._response
        if response is not None and self._left is None and not self._in_chunks and error is None:
            response.body = bytes(self._buffer)
            self._answer(response)
            return
        begun = response is not None or bool(self._buffer)
        self._fail(Broken(str(error or "the node closed the connection"), begun=begun))

    async def request(self, head: bytes, body: bytes | None, timeout: float) -> Response:
        """Send a request; raise `Broken` or `TimedOut` where no answer comes."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            raise Broken("the connection was closed", begun=False)
        waiter: asyncio.Future[Response] = loop.create_future()
        self._waiter = waiter
        timer = loop.call_later(timeout, self._give_up, timeout)
        if body:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head)
        try:
            return await waiter
        except asyncio.CancelledError:
            self.close()  # its answer would be taken for that of the next request
            raise
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the connection."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            if self._response is None and not self._parse_head():
                return
            self._parse_body()
        except (ValueError, IndexError) as error:
            self._fail(Broken(f"not an answer in HTTP ({error})", begun=True))
            self.close()

    def _parse_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        status = int(lines[0].split(" ", 2)[1])
        if 100 <= status < 200:
            return self._parse_head()
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self._response = Response(status, headers, b"")
        self._in_chunks = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        if status in (204, 304):
            self._left = 0
        else:
            self._left = None if length is None or self._in_chunks else int(length)
        if headers.get("connection", "").lower() == "close":
            self.reusable = False
        return True

    def _parse_body(self) -> None:
        response = self._response
        assert response is not None
        if self._in_chunks:
            self._parse_chunks(response)
        elif self._left is not None and len(self._buffer) >= self._left:
            response.body = bytes(self._buffer[: self._left])
            del self._buffer[: self._left]
            self._answer(response)

    def _parse_chunks(self, response: Response) -> None:
        """Once all chunks are there, join them; they are rare, so they are gone through anew."""
        parts: list[bytes] = []
        at = 0
        while (end := self._buffer.find(b"\r\n", at)) >= 0:
            size = int(self._buffer[at:end].split(b";")[0], 16)
            at = end + 2 + size + 2
            if len(self._buffer) < at:
                return
            if size == 0:
                response.body = b"".join(parts)
                del self._buffer[:at]
                self._answer(response)
                return
            parts.append(bytes(self._buffer[end + 2 : end + 2 + size]))

    def _answer(self, response: Response) -> None:
        waiter, self._waiter, self._response = self._waiter, None, None
        if self._buffer or waiter is None:
            self.close()  # more than was asked for
        if waiter is not None and not waiter.done():
            waiter.set_result(response)

    def _fail(self, error: Exception) -> None:
        waiter, self._waiter, self._response = self._waiter, None, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _give_up(self, seconds: float) -> None:
        self._fail(TimedOut(f"no answer within {seconds:g} s"))
        self.close()
