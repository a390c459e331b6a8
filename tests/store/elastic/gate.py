"""What stands between a store and its cluster, and lets requests through, or does what networks do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Self

HOLD, SWALLOW = "hold", "swallow"

Rule = Callable[[str, str], Any]
"""Given method and path: None lets the request through; HOLD keeps it back while its sender sees the
connection break, until `land`; SWALLOW lets it through and breaks the connection in place of the answer; a
pair of status and error is answered in place of the cluster."""


class Gate:
    """A proxy on a port of its own."""

    def __init__(self, port: int) -> None:
        self.rule: Rule = lambda method, path: None
        self.passed: list[str] = []
        self._to = port
        self._held: list[bytes] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def land(self) -> list[int]:
        """Let what was held back arrive; return the statuses."""
        held, self._held = self._held, []
        return [int((await self._forward(request)).split(b" ", 2)[1]) for request in held]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await _message(reader)
        method, path, _ = request.split(b" ", 2)
        does = self.rule(method.decode(), path.decode())
        if does == HOLD:
            self._held.append(request)
            return False
        if does is not None and does != SWALLOW:
            status, error = does
            body = json.dumps({"error": error, "status": status}).encode()
            head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
            writer.write(f"{head}\r\n\r\n".encode() + body)
            await writer.drain()
            return True
        answer = await self._forward(request)
        if does == SWALLOW:
            return False
        self.passed.append(f"{method.decode()} {path.decode()}")
        writer.write(answer)
        await writer.drain()
        return True

    async def _forward(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            writer.write(request)
            return await _message(reader)
        finally:
            writer.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    if b"content-length:" not in lower:
        return head
    length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)
