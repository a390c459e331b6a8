"""A way to a server that a test may cut: after a request has arrived, or to lead to another server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Relay:
    """Listens at `port` of `host` and passes bytes on to `target`, a port of this machine."""

    def __init__(self, target: int, *, host: str = "127.0.0.1") -> None:
        self.target = target
        self._host = host
        self.lose_answers = 0
        """How many of the next answers to commits are lost, with their connections."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self._host, 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks)

    def cut(self) -> None:
        """End all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    def lead_to(self, target: int) -> None:
        """End all connections; new ones go to another server."""
        self.target = target
        self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(back)
            await asyncio.gather(self._pass(reader, back, writer), self._pass(there, writer, None))
            self._writers.discard(back)
        self._writers.discard(writer)
        writer.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, to: asyncio.StreamWriter, asker: asyncio.StreamWriter | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if asker is not None and self.lose_answers and b"_commit" in data:
                    self.lose_answers -= 1
                    asker.transport.abort()  # the request goes on
                to.write(data)
                await to.drain()
        to.close()
