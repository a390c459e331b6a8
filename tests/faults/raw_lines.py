"""Lines to a coordinator that cost a client next to nothing: HTTP and the push session, spoken by hand."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

_UPGRADE = (
    b"GET /_tasks/_session HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: lineshaft.v1\r\n\r\n"
)
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class Gone(Exception):
    """The coordinator has hung up."""


class HttpLine:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> HttpLine:
        """Connect. Raises `OSError`."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and body. Raises `Gone`."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        try:
            self._writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            answer = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = int(answer.split(" ", 2)[1])
            length = next(
                (
                    int(line[15:])
                    for line in answer.split("\r\n")
                    if line.lower().startswith("content-length:")
                ),
                0,
            )
            read = await self._reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Gone from error
        return status, json.loads(read) if read and read[:1] in b'{["' else read.decode() or None

    def close(self, *, abruptly: bool = False) -> None:
        """Hang up, in good order or with a reset."""
        if abruptly:
            self._writer.transport.abort()
        else:
            self._writer.close()


class SessionLine(HttpLine):
    """A push session. Frames are masked with zeros, which is masked well enough."""

    @classmethod
    async def open(cls, port: int) -> SessionLine:
        """Connect and shake hands. Raises `OSError`, `Gone`."""
        line = cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))
        line._writer.write(_UPGRADE)
        try:
            head = await line._reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Gone from error
        if b" 101 " not in head.split(b"\r\n")[0]:
            line.close()
            raise Gone(head.decode("latin-1"))
        return line

    def say(self, type: str, body: Any, id: int = 0) -> None:
        """Send a message."""
        self._frame(_TEXT, json.dumps({"id": id, "type": type, "body": body}).encode())

    async def hear(self) -> Any:
        """Return the next message; pings are answered meanwhile. Raises `Gone`."""
        while True:
            try:
                first, second = await self._reader.readexactly(2)
                size = second & 0x7F
                if size >= 126:
                    form, length = (">H", 2) if size == 126 else (">Q", 8)
                    [size] = struct.unpack(form, await self._reader.readexactly(length))
                content = await self._reader.readexactly(size)
            except (OSError, asyncio.IncompleteReadError) as error:
                raise Gone from error
            match first & 0xF:
                case kind if kind == _TEXT:
                    return json.loads(content)
                case kind if kind == _PING:
                    self._frame(_PONG, content)
                case kind if kind == _CLOSE:
                    raise Gone(content[2:].decode())

    def _frame(self, kind: int, content: bytes) -> None:
        size = len(content)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
        self._writer.write(bytes([0x80 | kind]) + length + b"\0\0\0\0" + content)
